"""Strategies of the Donor Game that can evolve: a few numbers a seat, read off the receiver's trace.

**Source**: a parametric stand-in for the written strategies of Vallinder and Hughes 2024 (arXiv 2412.10270);
its form and numbers are ours. An act seen counts as the share given plus `merit` times the share spent
to punish, and as 0 where there is none. Who has a trace is given `base` + `weight` times the newest
act seen + the older acts' weights times those; who has none, `first`; both cut to [0, 1]. Where the game has
punishment, a receiver whose newest act counts for less than `threshold` is punished instead, also one
without a trace if the threshold is above 0. Axes: E games, A seats, L trace length.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.algorithm import Algorithm
from marl.environment import Environment, bare_game, legal_or_first

FIRST, BASE, THRESHOLD, SPEND, MERIT = range(5)
WEIGHTS = slice(5, None)
TRACE = slice(4, None)  # of obs["vector"], L times [there is one, given, spent to punish, refused]


class DonorStrategy(Algorithm):
    """Strategies that do not learn from rewards; `marl.generations` selects and varies them.

    A learner is [A, 5 + L] float32: `first`, `base`, `threshold`, `spend`, `merit`, and the weights of the
    acts seen, newest first. The fields but `mutation` are the ends, [2], of the first generation's uniform
    distribution of these. A fixed opponent, for which none is drawn, plays its mean.
    """

    mutation: Any  # [] standard deviation of what a newborn's numbers differ by from its parent's
    first: Any  # share given to who has no trace
    base: Any  # share given to who has one, whatever it shows
    threshold: Any  # newest act seen below which the receiver is punished
    spend: Any  # share spent on it, at least one step
    merit: Any  # what a share spent to punish counts for: 1 as much as one given, -1 as one taken
    weights: Any  # [at least L, 2] share more for each unit of the acts seen, newest first

    def check(self, env: Environment) -> None:
        """Raise ValueError for another game, or ends that are none."""
        if not hasattr(bare_game(env), "trace_length"):
            game = type(bare_game(env)).__name__
            raise ValueError(f"scripted player donor_strategy needs env=donor_game, not {game}")
        for name in ("first", "base", "threshold", "spend", "merit"):
            ends = np.asarray(getattr(self, name))
            if ends.shape != (2,) or ends[0] > ends[1]:
                raise ValueError(f"algo.{name}={ends.tolist()}: must be [low, high]")
        length, ends = bare_game(env).trace_length, np.asarray(self.weights)
        if ends.shape[1:] != (2,) or len(ends) < length or (ends[:, 0] > ends[:, 1]).any():
            raise ValueError(f"algo.weights: must be [low, high] for each of the {length} acts of a trace")

    def init(self, key, env, ts):
        """A first generation, [A, 5 + L]."""
        ends = self._ends(env)
        place = jax.random.uniform(key, (ts.reward.shape[1], len(ends)))
        return ends[:, 0] + place * (ends[:, 1] - ends[:, 0])

    def vary(self, key: Array, learner: Array) -> Array:
        """Newborns' numbers from their parents', [..., 5 + L] both."""
        return learner + self.mutation * jax.random.normal(key, learner.shape)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Actions [E, A] int32, the nearest gift or punishment that there is; `greedy` changes nothing."""
        game: Any = bare_game(env)
        if isinstance(learner, tuple):
            learner = jnp.broadcast_to(self._ends(env).mean(1), (ts.reward.shape[1], 5 + game.trace_length))
        trace = ts.obs["vector"][..., TRACE].reshape(*ts.reward.shape, -1, 4)  # [E, A, L, 4]
        seen = trace[..., 1] + learner[:, MERIT, None] * trace[..., 2]  # [E, A, L], 0 where there is none
        reply = learner[:, BASE] + (learner[:, WEIGHTS] * seen).sum(-1)
        has_trace = trace[..., :1, 0].sum(-1) > 0  # [E, A] bool, also where L is 0
        share = jnp.clip(jnp.where(has_trace, reply, learner[:, FIRST]), 0, 1)
        action = jnp.round(share * (game.gift_levels - 1))
        if game.punish_levels:
            level = jnp.clip(jnp.round(learner[:, SPEND] * game.punish_levels), 1, game.punish_levels)
            punishes = seen[..., :1].sum(-1) < learner[:, THRESHOLD]
            action = jnp.where(punishes, game.gift_levels - 1 + level, action)
        decides = ts.action_mask[..., 0]
        action = jnp.where(decides, action, env.action_space.n - 1).astype(jnp.int32)
        return legal_or_first(ts.action_mask, action), carry, ()

    def _ends(self, env: Environment) -> Array:
        """[5 + L, 2] low and high of the first generation's numbers."""
        ends = jnp.asarray([self.first, self.base, self.threshold, self.spend, self.merit])
        game: Any = bare_game(env)
        return jnp.concatenate([ends, jnp.asarray(self.weights)[: game.trace_length]])
