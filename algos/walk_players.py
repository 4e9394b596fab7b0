"""Scripted players of the games of walking seats: each walks to things of one kind and takes them.

**Source**: our own, for the Schelling diagrams of the games of LASE (Kong et al. 2024, arXiv 2410.07863),
which does not tell its scripted players. A player takes a shortest way to the nearest thing that it goes
for, or to the first in reading order, where players that hunt together meet; there it does what takes it,
again and again. It steps at random where none is in view. Equally good moves are drawn from uniformly.
Axes: E games, A seats, W cells of the view.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.algorithm import Algorithm
from marl.environment import Environment, bare_game, legal_or_first

STEPS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])  # (row, column) of the actions up, down, left, right
FAR = 1000  # steps, more than any distance
ORDERS = ("nearest", "first")


class WalkPlayer(Algorithm):
    """Goes for each `target`, while it sees more than `leaves` of them, and each `other_target`.

    Reads obs["grid"] alone. Where its action is not legal it takes the lowest-numbered legal one.
    """

    leaves: Any  # [] targets in view that it leaves alone
    target: str = struct.field(pytree_node=False)  # name of an item of the game; "": nothing
    take: str = struct.field(pytree_node=False)  # name of the action that takes it
    other_target: str = struct.field(pytree_node=False)  # as `target`
    other_take: str = struct.field(pytree_node=False)  # as `take`
    order: str = struct.field(pytree_node=False)  # one of ORDERS

    def check(self, env: Environment) -> None:
        """Raise ValueError for an unknown order, or a game without the items or actions."""
        if self.order not in ORDERS:
            raise ValueError(f"algo.order={self.order}: must be {' or '.join(ORDERS)}")
        game: Any = bare_game(env)
        if not all(hasattr(game, name) for name in ("walked", "ITEMS", "ACTIONS")):
            name = type(game).__name__
            raise ValueError(f"a scripted player that walks plays only games of walking seats, not {name}")
        for prefix in ("", "other_"):
            target, take = self._goal(prefix)
            named = (("target", target, game.ITEMS[2:]), ("take", take, game.ACTIONS[5:]))
            for field, value, known in named if target else ():
                if value not in known:
                    wrong = f"algo.{prefix}{field}={value}: {type(game).__name__} has"
                    raise ValueError(f"{wrong} only {', '.join(known)}")

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Actions [E, A] int32; `greedy` takes the first of equally good ones."""
        game: Any = bare_game(env)
        grid = ts.obs["grid"]
        item = grid[..., 0].reshape(*grid.shape[:2], -1)  # [E, A, W]
        goals = [self._towards(game, item, *self._goal(prefix)) for prefix in ("", "other_")]
        (target, take), (other, other_take) = goals
        target &= target.sum(-1, keepdims=True) > self.leaves
        wanted = target | other
        if self.order == "first":
            wanted &= jnp.cumsum(wanted, axis=-1) == 1
        distance = jnp.asarray(_distance(grid.shape[2]))  # [4, W]
        cost = jnp.where(wanted[:, :, None], distance, FAR).min(-1)  # [E, A, 4]
        noise = 0 if greedy else jax.random.uniform(key, cost.shape)  # orders only equal whole numbers
        move = (cost + noise).argmin(-1)
        centre = wanted.shape[-1] // 2
        stays = jnp.where(target[..., centre], take, other_take)
        action = jnp.where(wanted[..., centre], stays, move)
        return legal_or_first(ts.action_mask, action.astype(jnp.int32)), carry, ()

    def _goal(self, prefix: str) -> tuple[str, str]:
        """The names of a target and of the action that takes it; prefix as of the fields."""
        return getattr(self, f"{prefix}target"), getattr(self, f"{prefix}take")

    def _towards(self, game: Any, item: Array, target: str, take: str) -> tuple[Array, int]:
        """Where a target is, [E, A, W] bool, and the number of the action that takes it."""
        if not target:
            return jnp.zeros(item.shape, bool), 0
        return item == game.ITEMS.index(target), game.ACTIONS.index(take)


def _distance(size: int) -> np.ndarray:
    """[4, W] int32 steps from where each move leads to each cell of a view of size * size cells."""
    row, column = np.divmod(np.arange(size**2), size)
    down, right = row - size // 2, column - size // 2
    return abs(down - STEPS[:, :1]) + abs(right - STEPS[:, 1:]).astype(np.int32)
