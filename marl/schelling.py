"""Schelling diagrams: what a cooperator and a defector earn by how many of the others cooperate.

**Sources**: Schelling 1973, "Hockey helmets, concealed weapons, and daylight saving" (Journal of Conflict
Resolution 17); the conditions of a social dilemma as in Hughes et al. 2018, "Inequity aversion
improves cooperation in intertemporal social dilemmas" (arXiv 1803.08884), section 3. Here l
always counts the *other* seats that cooperate, so R_c(A-1) is mutual cooperation (the paper's
R_c(N)) and R_d(0) mutual defection; payoffs are per step, where the paper has those of episodes.
Axes: E episodes, A seats, S seeds, L = A values of l.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.algorithm import Algorithm
from marl.build import Setup, config_errors, player
from marl.environment import Environment
from marl.evaluate import play
from marl.figures import for_figures
from marl.statistics import swept_summary


class Split(Algorithm):
    """Some seats follow one player and the others another; which, may be traced.

    In game e the seats s with (s - e) mod A < num_first follow `first`, so that over A games every
    seat plays each part equally often.
    """

    first: Algorithm
    second: Algorithm
    num_first: Any  # [] int32, seats that follow `first`

    def check(self, env: Environment) -> None:
        """Check both players."""
        self.first.check(env)
        self.second.check(env)

    def follows_first(self, num_games: int, num_seats: int) -> Array:
        """[E, A] bool, the seats that follow `first`."""
        turn = (np.arange(num_seats) - np.arange(num_games)[:, None]) % num_seats
        return jnp.asarray(turn) < self.num_first

    def init(self, key, env, ts):
        """One learner for each player."""
        keys = jax.random.split(key)
        return self.first.init(keys[0], env, ts), self.second.init(keys[1], env, ts)

    def initial_carry(self, env, ts):
        """One carry for each player."""
        return self.first.initial_carry(env, ts), self.second.initial_carry(env, ts)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Both act for all seats; each seat takes the action of the player that it follows."""
        players = zip((self.first, self.second), learner, carry, jax.random.split(key), strict=True)
        parts = [player.act(env, own, memory, ts, k, greedy) for player, own, memory, k in players]
        (one, memory, _), (other, other_memory, _) = parts
        chosen = self.follows_first(*ts.reward.shape).reshape(*ts.reward.shape, *(1,) * (one.ndim - 2))
        return jnp.where(chosen, one, other), (memory, other_memory), ()


@for_figures
def diagram(
    *, setup: Setup, cooperator: str, defector: str, num_episodes: int, max_steps: int
) -> dict[str, Any]:
    """The Schelling diagram of a game, as a run's summary whose swept value is l ("others").

    Metrics: `cooperator` R_c(l) and `defector` R_d(l), mean reward per step; `defection_gain`
    R_d(l) - R_c(l). The same at every l are `fear` R_d(0) - R_c(0), `greed` R_d(A-1) - R_c(A-1),
    and what mutual cooperation is better by: `over_defection` than mutual defection,
    R_c(A-1) - R_d(0), and `over_exploitation` than being exploited, R_c(A-1) - R_c(0). A
    game is a social dilemma if the last two are positive, and fear or greed is.

    Args:
        setup: the game, and `num_seeds` and `seed` of its configuration.
        cooperator: who cooperates, a scripted player or a run folder; defector: likewise.
        num_episodes: E a seed and l, a multiple of A for every seat to play each part equally often.
        max_steps: cut of games that have no end of their own.

    Raises:
        ConfigError: if a player cannot play the game.
    """
    began, env, cfg = time.perf_counter(), setup.env, setup.cfg
    seats = list(range(env.num_agents))
    with config_errors():
        players = [player(name, seats, tuple(cfg.plugins)) for name in (cooperator, defector)]
        Split(*players, num_first=0).check(env)
    learners = tuple(getattr(player, "learner", ()) for player in players)
    steps = env.fixed_horizon or max_steps

    def one(num_cooperators: Array, key: Array) -> tuple[Array, Array]:
        """[] mean reward of the cooperators and of the defectors; nan where there are none."""
        algo = Split(*players, num_first=num_cooperators)
        seen = play(env, algo, learners, key, num_episodes=num_episodes, max_steps=steps, greedy=False)
        reward = seen.return_ / seen.length[:, None]
        cooperates = algo.follows_first(*reward.shape)
        mean = lambda who: (reward * who).sum() / who.sum()
        return mean(cooperates), mean(~cooperates)

    seeds = jnp.arange(cfg.seed, cfg.seed + cfg.num_seeds)
    keys = jax.vmap(jax.random.key)(seeds)
    over_seeds = jax.vmap(one, in_axes=(None, 0))
    num_cooperators = jnp.arange(env.num_agents + 1, dtype=jnp.int32)
    found = jax.jit(jax.vmap(over_seeds, in_axes=(0, None)))(num_cooperators, keys)
    cooperators, defectors = (np.asarray(x, np.float64) for x in found)  # [A + 1, S]
    values = _metrics(cooperators[1:], defectors[:-1])
    return swept_summary(values, "others", range(env.num_agents), began)


def _metrics(cooperator: np.ndarray, defector: np.ndarray) -> dict[str, np.ndarray]:
    """What `diagram` reports, each [L, S], from R_c and R_d [L, S]."""
    constant = {
        "fear": defector[0] - cooperator[0],
        "greed": defector[-1] - cooperator[-1],
        "over_defection": cooperator[-1] - defector[0],
        "over_exploitation": cooperator[-1] - cooperator[0],
    }
    curves = {"cooperator": cooperator, "defector": defector, "defection_gain": defector - cooperator}
    return curves | {name: np.broadcast_to(x, cooperator.shape) for name, x in constant.items()}
