"""Basins of attraction of a one-shot game of two actions with gifts: how many first policies end where.

**Source**: Wang, Beliaev, Biyik, Lazar, Pedarsani, Sadigh 2021, "Emergent prosociality in multi-agent games
through gifting" (IJCAI), and their code: four actions, cooperate and defect without and with a gift; a giver
loses `gift` and the other gains it; softmax policies of both players climb their own expected payoff with
step size 1, from logits on a grid, that of defection without a gift being 0, until the policies are within .1
(L2) of both cooperating or both defecting without gifts. Inferred: the distance is that of both players'
probabilities together, and all four logits move; `starts: alike` begins both at the same point of the grid
(its published size, for both apart, would give 1.5e8 pairs), `apart` at all pairs of two points; what has
arrived nowhere in `num_steps` counts as neither. Who cannot give has the two actions without gifts and a grid
in one dimension. Axes: W pairs of first policies, V swept values; actions C, D, C + gift, D + gift.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.build import Setup
from marl.environment import bare_game
from marl.figures import for_figures
from marl.statistics import swept_summary
from marl.validation import ConfigError

GIFTERS = {"neither": (False, False), "one": (True, False), "both": (True, True)}
STARTS = ("alike", "apart")
CLOSE = 0.1  # L2
COOPERATION, DEFECTION = 0, 1  # also their actions; 2: nowhere
NEVER = -1e9  # logit of an action that there is not


def extended(table: Array, gift: Any) -> Array:
    """[4, 4, 2] payoffs of the game with gifts from [2, 2, 2] without; axes row, column, player."""
    action = np.arange(4)
    gives = action // 2
    payoff = table[action[:, None] % 2, action % 2]
    paid = gives[None, :] - gives[:, None]  # what the row player gets from the column player
    return payoff + gift * jnp.stack([paid, -paid], axis=-1)


def ends(payoff: Array, first: Array, *, step_size: float, num_steps: int) -> Array:
    """[W] int32 where gradient ascent from logits `first` [W, 2, 4] leads: COOPERATION, DEFECTION or 2.

    The gradient is exact: that of action a's logit is p_a (q_a - E q), with q the payoffs against the
    other's policy. Payoffs [4, 4, 2] as of `extended`.
    """
    goals = jnp.asarray(np.eye(4, dtype=np.float32)[:2])

    def where(logits: Array) -> Array:
        policy = jax.nn.softmax(logits)
        far = jnp.sqrt(jnp.square(policy - goals[:, None, None]).sum((-1, -2)))  # [2, W]
        return jnp.where(far[0] < CLOSE, COOPERATION, jnp.where(far[1] < CLOSE, DEFECTION, 2))

    def climb(now: tuple) -> tuple:
        logits, found, count = now
        policy = jax.nn.softmax(logits)
        row = policy[:, 1] @ payoff[..., 0].T  # [W, 4] of the row player's actions
        column = policy[:, 0] @ payoff[..., 1]
        values = jnp.stack([row, column], axis=1)
        values = values - (policy * values).sum(-1, keepdims=True)
        logits = logits + step_size * policy * values
        return logits, jnp.where(found == 2, where(logits), found), count + 1

    under_way = lambda now: (now[2] < num_steps) & (now[1] == 2).any()
    return jax.lax.while_loop(under_way, climb, (first, where(first), jnp.int32(0)))[1]


def grid(gives: bool, num: int, num_gift: int, limit: float) -> np.ndarray:
    """[points, 4] logits from -limit to limit: `num` of C, `num_gift` of each gift action; 0 of D."""
    along = partial(np.linspace, -limit, limit)
    gifts = along(num_gift) if gives else np.array([NEVER])
    cooperate, one, other = (x.ravel() for x in np.meshgrid(along(num), gifts, gifts, indexing="ij"))
    return np.stack([cooperate, np.zeros_like(cooperate), one, other], axis=-1).astype(np.float32)


def first_policies(gifters: str, starts: str, num: int, num_gift: int, limit: float) -> np.ndarray:
    """[W, 2, 4] logits of both players; arguments as of `measure`.

    Alike with one gifter: the other has the same logit of cooperation.
    """
    sides = [grid(gives, num, num_gift, limit) for gives in GIFTERS[gifters]]
    if starts == "apart":
        first, second = np.meshgrid(*(np.arange(len(side)) for side in sides), indexing="ij")
        return np.stack([sides[0][first.ravel()], sides[1][second.ravel()]], axis=1)
    other = sides[0].copy()
    if not GIFTERS[gifters][1]:
        other[:, 2:] = NEVER
    return np.stack([sides[0], other], axis=1)


@for_figures
def measure(
    *,
    setup: Setup,
    field: str,
    values: list[float],
    gifters: str,
    gift: float,
    starts: str,
    num: int,
    num_gift: int,
    limit: float,
    step_size: float,
    num_steps: int,
) -> dict[str, Any]:
    """Shares of first policies that end in cooperation, defection or nowhere, as a swept run's summary.

    Args:
        setup: a game of two players and two actions with a payoff table [2, 2, 2].
        field: number of the game that is swept; values: V of them.
        gifters: who can give, one of GIFTERS.
        gift: reward units.
        starts: one of STARTS.
        num, num_gift, limit: of the grid, see `grid`.
        step_size: of the gradient ascent; num_steps: at most.

    Raises:
        ConfigError: for a game without such a table or field, or an unknown choice.
    """
    began, game = time.perf_counter(), bare_game(setup.env)
    if not hasattr(game, "table") or not hasattr(game, field):
        raise ConfigError([f"figure.measure: {type(game).__name__} has no payoff table or no field {field}"])
    for name, value, known in (("gifters", gifters, GIFTERS), ("starts", starts, STARTS)):
        if value not in known:
            raise ConfigError([f"figure.measure.{name}={value}: must be one of {', '.join(known)}"])
    first = jnp.asarray(first_policies(gifters, starts, num, num_gift, limit))

    def one(value: Array) -> Array:
        payoff = extended(game.replace(**{field: value}).table, gift)
        found = ends(payoff, first, step_size=step_size, num_steps=num_steps)
        return jnp.stack([(found == end).mean() for end in range(3)])

    shares = np.asarray(jax.jit(lambda x: jax.lax.map(one, x))(jnp.asarray(values, jnp.float32)))
    names = ("cooperation", "defection", "nowhere")
    return swept_summary({name: shares[:, [i]] for i, name in enumerate(names)}, field, values, began)
