"""Scripted players of avatar games: they walk to food and eat it, spare what must grow back, and do a chore.

They read obs["grid"] and obs["vector"] and a few facts that an avatar game declares: `FOOD`, item codes that
are eaten by entering their cell; `BLOCKS`, item codes that nobody enters; `CHORE`, the work that
helps everybody (cleaning, planting), as a tuple of item codes that want it, item codes that end its beam, its
action, its reach in cells, and the number of obs["vector"] that says how ready it is. Axes: E games, A seats,
H x W cells of a view, in which the own cell is (ahead, side) and ahead is up.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.algorithm import Algorithm
from marl.environment import Environment, bare_game

NOOP, FORWARD, BACKWARD, LEFT, RIGHT, TURN_LEFT, TURN_RIGHT = range(7)  # actions of avatar games
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # (row, column) in the view, of FORWARD .. RIGHT
FAR = 1000  # steps, more than any distance
FACTS = ("FOOD", "BLOCKS", "CHORE", "ahead", "side")


class Forager(Algorithm):
    """Goes to the nearest food in view, and in some of its time to the nearest chore.

    Where nothing is in view it walks straight on, and turns where it cannot. Equally good moves are drawn
    from uniformly. The seats' times of work are spread evenly over the period.
    """

    restraint: int = struct.field(pytree_node=False)  # spares food with fewer food within 2 cells
    chore_share: Any  # [] share of each period that is spent on the chore
    period: int = struct.field(pytree_node=False)  # steps
    turn_prob: Any  # [] that who sees nothing of interest turns

    def check(self, env: Environment) -> None:
        """Raise ValueError for bad numbers, or a game without food or without the chore."""
        game: Any = bare_game(env)
        if not all(hasattr(game, name) for name in FACTS) or not game.FOOD:
            raise ValueError(f"scripted forager needs a grid game with food, not {type(game).__name__}")
        if self.chore_share > 0 and not game.CHORE:
            raise ValueError(
                f"algo.chore_share={self.chore_share}: {type(game).__name__} has no chore, set 0"
            )
        for name in ("chore_share", "turn_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"algo.{name}={getattr(self, name)}: must lie in [0, 1]")
        if self.period < 1 or self.restraint < 0:
            raise ValueError(
                f"algo.period={self.period}, algo.restraint={self.restraint}: must be at least 1 and 0"
            )

    def initial_carry(self, env: Environment, ts: Any) -> Array:
        """[E, A] int32, steps played, ahead by a share of the period that grows with the seat."""
        num = ts.reward.shape[-1]
        first = np.arange(num) * self.period // num
        return jnp.broadcast_to(jnp.asarray(first, jnp.int32), ts.reward.shape)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Actions [E, A] int32 and the carry a step later; draws also if `greedy`."""
        game: Any = bare_game(env)
        item, seat = ts.obs["grid"][..., 0], ts.obs["grid"][..., 1]
        blocked = is_one_of(item, game.BLOCKS) | (seat > 1)
        u = jax.random.uniform(key, (*ts.reward.shape, 7))
        near = steps_blocked(blocked, game)  # [E, A, 4]
        action = self._wander(near[..., 0], u[..., 4:])
        food = is_one_of(item, game.FOOD)
        if self.restraint:
            food &= _num_near(food) >= self.restraint
        row, column, found = nearest(food, game, u[..., 4])
        action = jnp.where(found, step_to(row, column, near, u), action)
        if game.CHORE:
            works = carry % self.period < self.chore_share * self.period
            action = jnp.where(works, self._work(game, ts, near, u), action)
        return action.astype(jnp.int32), carry + 1, ()

    def _wander(self, blocked: Array, u: Array) -> Array:
        """[E, A] straight on, or a turn; u [E, A, 3]."""
        turn = jnp.where(u[..., 0] < 0.5, TURN_LEFT, TURN_RIGHT)
        return jnp.where(blocked | (u[..., 1] < self.turn_prob), turn, FORWARD)

    def _work(self, game: Any, ts: Any, near: Array, u: Array) -> Array:
        """[E, A] the chore where one is in reach, else a step towards one."""
        wanting, ending, action, reach, ready = game.CHORE
        item = ts.obs["grid"][..., 0]
        wants, ends = is_one_of(item, wanting), is_one_of(item, ending)
        row, column, found = nearest(wants, game, u[..., 4])
        towards = jnp.where(column < 0, TURN_LEFT, TURN_RIGHT)
        towards = jnp.where(row < 0, step_to(row, column, near, u), towards)
        otherwise = jnp.where(found, towards, self._wander(near[..., 0], u[..., 4:]))
        is_ready = ts.obs["vector"][..., ready] >= 1
        return jnp.where(
            straight_ahead(wants, ends, game, reach), jnp.where(is_ready, action, NOOP), otherwise
        )


def is_one_of(item: Array, codes: tuple[int, ...]) -> Array:
    """[...] bool, where `item` [...] is one of `codes`."""
    return sum(((item == code) for code in codes), jnp.zeros(item.shape, bool))


def _num_near(there: Array) -> Array:
    """[E, A, H, W] int32, how many others of `there` [E, A, H, W] lie within 2 cells of each."""
    height, width = there.shape[-2:]
    padded = jnp.pad(there.astype(jnp.int32), ((0, 0), (0, 0), (2, 2), (2, 2)))
    near = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if 0 < i * i + j * j <= 4]
    return sum(padded[..., 2 + i : 2 + i + height, 2 + j : 2 + j + width] for i, j in near)


def nearest(there: Array, game: Any, u: Array) -> tuple[Array, Array, Array]:
    """Rows and columns to the nearest of `there` [E, A, H, W], and whether there is one, each [E, A].

    Of equally near ones the choice turns with u [E, A]; the own cell does not count.
    """
    height, width = there.shape[-2:]
    row, column = np.arange(height)[:, None] - game.ahead, np.arange(width) - game.side
    apart = (abs(row) + abs(column)).ravel()
    flat = there.reshape(*there.shape[:2], -1) & (apart > 0)
    order = (np.arange(len(apart)) / len(apart) + u[..., None]) % 1.0
    cost = jnp.where(flat, apart + order, FAR)
    place = cost.argmin(-1)
    return place // width - game.ahead, place % width - game.side, flat.any(-1)


def straight_ahead(there: Array, ends: Array, game: Any, reach: int) -> Array:
    """[E, A] bool, whether one of `there` is within `reach` cells ahead, before `ends`, both [E, A, H, W]."""
    found, free = jnp.zeros(there.shape[:2], bool), jnp.ones(there.shape[:2], bool)
    for step in range(1, min(reach, game.ahead) + 1):
        cell = (..., game.ahead - step, game.side)
        free &= ~ends[cell]
        found |= free & there[cell]
    return found


def steps_blocked(blocked: Array, game: Any) -> Array:
    """[E, A, 4] bool, whether the cell that each of MOVES leads to is in view and `blocked` [E, A, H, W]."""
    height, width = blocked.shape[-2:]
    found = []
    for down, right in MOVES:
        row, column = game.ahead + down, game.side + right
        inside = 0 <= row < height and 0 <= column < width
        found.append(blocked[..., row, column] if inside else jnp.zeros(blocked.shape[:2], bool))
    return jnp.stack(found, axis=-1)


def step_to(row: Array, column: Array, blocked: Array, u: Array) -> Array:
    """[E, A] one of FORWARD .. RIGHT, which leads nearest to a cell `row` and `column` [E, A] away."""
    left = [abs(row - down) + abs(column - right) for down, right in MOVES]
    cost = jnp.stack(left, axis=-1) + FAR * blocked + u[..., :4]
    return cost.argmin(-1) + FORWARD
