"""Full episodes of given players, and what came of them.

Where a mechanism shapes what seats learn from, outcomes are those of the reward before shaping, which it
leaves in the event EXTRINSIC. Axes: E episodes, A seats, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.algorithm import Algorithm
from marl.build import hold, learning_member
from marl.environment import EXTRINSIC, Environment, TimeStep, clip_to_space
from marl.metrics import equality, peace, shares
from marl.population import Mixture


class Episodes(struct.PyTreeNode):
    """Outcomes of E episodes."""

    return_: Array  # [E, A] undiscounted
    length: Array  # [E] steps
    events: dict[str, Array]  # each [E, A] counts
    earning_steps: Array  # [E, A] steps with a positive reward
    earning_time: Array  # [E, A] sum of the step numbers (from 0) of those steps

    def outcomes(self) -> dict[str, Array]:
        """Scalars over all episodes, as defined in `marl.metrics`."""
        per_step = 1.0 / self.length[:, None]
        when = self.earning_time / jnp.maximum(self.earning_steps, 1)
        reward = self.return_ * per_step
        out = {
            "return": self.return_.mean(),
            "reward": reward.mean(),
            "efficiency": reward.sum(-1).mean(),
            "equality": equality(self.return_).mean(),
            "sustainability": when.mean(),
            "episode_length": self.length.mean(),
        }
        out |= {
            f"reward/seat_{i}": (self.return_ * per_step)[:, i].mean() for i in range(self.return_.shape[1])
        }
        out |= {f"events/{k}": (v * per_step).mean() for k, v in self.events.items()}
        out |= shares(self.events)
        if "away" in self.events:
            out["peace"] = peace((self.events["away"] * per_step)[None]).mean()
        return out


class Film(struct.PyTreeNode):
    """One episode of T steps, as numpy arrays."""

    state: Any  # leaves [T + 1, ...], before the first step and after each
    ts: TimeStep  # leaves [T + 1, ...]
    action: np.ndarray  # [T, A, ...]


def play(
    env: Environment,
    algo: Algorithm,
    learner: Any,
    key: Array,
    *,
    num_episodes: int,
    max_steps: int,
    greedy: bool,
) -> Episodes:
    """Play `num_episodes` at once, each to its end or to `max_steps`.

    Args:
        env: the game; algo, learner: the players of all seats.
        key: all randomness.
        num_episodes: E.
        max_steps: cut for games that have no end of their own.
        greedy: likeliest actions instead of samples (scripted players ignore it).
    """
    reset_key, key = jax.random.split(key)
    state, ts = jax.vmap(env.reset)(jax.random.split(reset_key, num_episodes))
    zero = jnp.zeros_like(ts.reward)
    length = jnp.zeros(num_episodes)
    nothing = Episodes(zero, length, jax.tree.map(jnp.zeros_like, ts.events), zero, zero)
    first = (jnp.int32(0), state, ts, algo.initial_carry(env, ts), jnp.ones(num_episodes, bool), nothing)

    def under_way(now: tuple) -> Array:
        return (now[0] < max_steps) & now[4].any()

    def step(now: tuple) -> tuple:
        time, state, ts, carry, alive, seen = now
        step_key = jax.random.fold_in(key, time)
        (state, ts, carry), _ = _advance(env, algo, learner, (state, ts, carry), step_key, greedy)
        return time + 1, state, ts, carry, alive & ~ts.done, _count(seen, ts, alive, time)

    return jax.lax.while_loop(under_way, step, first)[-1]


def record(
    env: Environment, algo: Algorithm, learner: Any, key: Array, *, max_steps: int, greedy: bool
) -> Film:
    """Play one episode and keep all of it, on the host; arguments as for `play`, whose first it is."""
    reset_key, key = jax.random.split(key)

    @jax.jit
    def episode(learner: Any) -> tuple:
        state, ts = jax.vmap(env.reset)(jax.random.split(reset_key, 1))

        def step(now: tuple, time: Array) -> tuple:
            now, action = _advance(env, algo, learner, now, jax.random.fold_in(key, time), greedy)
            return now, (now[0], now[1], action)

        first = (state, ts, algo.initial_carry(env, ts))
        return (state, ts), jax.lax.scan(step, first, jnp.arange(max_steps))[1]

    (state, ts), (states, steps, action) = jax.device_get(episode(learner))
    ends = np.flatnonzero(steps.done[:, 0])
    length = ends[0] + 1 if len(ends) else max_steps
    join = lambda first, later: np.concatenate([first, later[:length, 0]])
    return Film(*jax.tree.map(join, (state, ts), (states, steps)), action[:length, 0])


def _advance(
    env: Environment, algo: Algorithm, learner: Any, now: tuple, key: Array, greedy: bool
) -> tuple[tuple, Array]:
    """One step of all games: (state, ts, carry) after it, and the action [E, A, ...] that was played."""
    state, ts, carry = now
    act_key, env_key = jax.random.split(key)
    action, carry, _ = algo.act(env, learner, carry, ts, act_key, greedy)
    action = clip_to_space(env.action_space, action)
    state, ts = jax.vmap(env.step)(jax.random.split(env_key, ts.reward.shape[0]), state, action)
    return (state, ts, carry), action


def _count(seen: Episodes, ts: TimeStep, alive: Array, time: Array) -> Episodes:
    """Add one step of the episodes that are still `alive` [E]."""
    on = alive.astype(jnp.float32)[:, None]
    reward = ts.events.get(EXTRINSIC, ts.reward)
    earned = on * (reward > 0)
    return Episodes(
        return_=seen.return_ + on * reward,
        length=seen.length + on[:, 0],
        events={k: v + on * ts.events[k] for k, v in seen.events.items()},
        earning_steps=seen.earning_steps + earned,
        earning_time=seen.earning_time + earned * time,
    )


def against(env: Environment, algo: Algorithm, learner: Any, opponent: Algorithm) -> tuple[Mixture, tuple]:
    """Players of all seats and their learners: the learner of seat 0, leaves [P, ...], and an opponent."""
    own = hold(*learning_member(algo, learner), [0])
    players = Mixture(members=(own, opponent), holder=(0,) + (1,) * (env.num_agents - 1))
    return players, (own.learner, getattr(opponent, "learner", ()))


def evaluate_seeds(
    env: Environment,
    algo: Algorithm,
    learners: Any,
    *,
    opponent: Algorithm | None = None,
    seed: int,
    num_episodes: int,
    max_steps: int,
    greedy: bool,
    read: Callable[[Episodes], dict[str, Array]] = Episodes.outcomes,
) -> dict[str, np.ndarray]:
    """Outcomes of every seed's learners, leaves [S, ...]: among themselves, or against a player.

    Against an opponent the learner of seat 0 holds seat 0 and the opponent all others.

    Returns:
        {name: [S]}, or what `read` makes of a seed's episodes, [S, ...].
    """

    def one(learner: Any, key: Array) -> dict[str, Array]:
        players, params = algo, learner
        if opponent is not None:
            players, params = against(env, algo, learner, opponent)
        sizes = {"num_episodes": num_episodes, "max_steps": max_steps, "greedy": greedy}
        return read(play(env, players, params, key, **sizes))

    learners = algo.for_acting(learners)
    num_seeds = jax.tree.leaves(learners)[0].shape[0]
    keys = jax.random.split(jax.random.key(seed), num_seeds)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(learners, keys))
