"""The one training loop: play, restart, learn, for every algorithm and every game.

Everything here is pure and meant to run inside one jit; `marl.run` is the host side. Update i
draws its randomness from `fold_in(key, i)`, so that 4 updates in one call equal 2 + 2.
Axes: U updates, T steps, E parallel games, A seats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from marl.algorithm import Algorithm, Batch
from marl.environment import Environment, TimeStep, clip_to_space
from marl.metrics import Tally


class Runner(struct.PyTreeNode):
    """All that training carries from one update to the next."""

    learner: Any
    state: Any  # of the environment, leaves [E, ...]
    ts: TimeStep  # what the next action answers to, leaves [E, ...]
    carry: Any  # recurrent state of the policies, leaves [E, A, ...]
    episode_return: Array  # [E, A] of the episode under way
    episode_length: Array  # [E] int32 steps of the episode under way


def start(algo: Algorithm, env: Environment, key: Array, num_envs: int) -> Runner:
    """A fresh learner before `num_envs` fresh games."""
    learn_key, env_key = jax.random.split(key)
    state, ts = jax.vmap(env.reset)(jax.random.split(env_key, num_envs))
    return Runner(
        learner=algo.init(learn_key, env, ts),
        state=state,
        ts=ts,
        carry=algo.initial_carry(env, ts),
        episode_return=jnp.zeros_like(ts.reward),
        episode_length=jnp.zeros(num_envs, jnp.int32),
    )


def train(
    algo: Algorithm, env: Environment, runner: Runner, key: Array, updates: Array
) -> tuple[Runner, tuple[Tally, dict[str, Array]]]:
    """Run the updates numbered `updates` [U] int32, in turn.

    `updates` must not be mapped by vmap: it drives the restart of games of fixed horizon, so
    that the restart stays a real branch.

    Returns:
        the runner, and what happened: a Tally of sums and the algorithm's metrics, leaves [U, ...].
        `marl.metrics.report` turns both into scalars.
    """

    def update(runner: Runner, i: Array) -> tuple[Runner, tuple[Tally, dict]]:
        roll_key, learn_key = jax.random.split(jax.random.fold_in(key, i))
        clock = 0
        if env.fixed_horizon:  # steps since the last common restart, without overflow
            clock = (i % env.fixed_horizon) * (algo.num_steps % env.fixed_horizon)
        runner, batch, tally = rollout(algo, env, runner, roll_key, clock, algo.num_steps)
        learner, metrics = algo.update(env, runner.learner, batch, learn_key)
        return runner.replace(learner=learner), (tally, metrics)

    return jax.lax.scan(update, runner, updates)


def rollout(
    algo: Algorithm, env: Environment, runner: Runner, key: Array, clock: Array | int, num_steps: int
) -> tuple[Runner, Batch, Tally]:
    """Play `num_steps` steps in all games, restarting those that end.

    Args:
        algo: chooses the actions; env: the game.
        runner: where play stands.
        key: all randomness of the rollout.
        clock: [] steps played so far, modulo a fixed horizon; not read without one.
        num_steps: T.

    Returns:
        the runner after the steps, the Batch to learn from, and the Tally of what happened.
    """

    def step(carry: tuple[Runner, Tally], now: tuple[Array, Array]) -> tuple[tuple[Runner, Tally], dict]:
        (runner, tally), (key, time) = carry, now
        act_key, step_key, reset_key = jax.random.split(key, 3)
        before = runner.ts
        action, memory, extras = algo.act(env, runner.learner, runner.carry, before, act_key)
        state, ts = _step_games(env, runner.state, action, step_key)
        runner = runner.replace(
            state=state,
            ts=ts,
            carry=memory,
            episode_return=runner.episode_return + ts.reward,
            episode_length=runner.episode_length + 1,
        )
        runner, tally, bootstrap = _restart(algo, env, runner, tally.add(ts), reset_key, time)
        return (runner, tally), {
            "obs": before.obs,
            "action_mask": before.action_mask,
            "action": action,
            "reward": ts.reward,
            "terminated": ts.terminated,
            "done": ts.done,
            "extras": extras,
            "bootstrap": bootstrap,
        }

    first_carry = runner.carry
    steps = jnp.arange(1, num_steps + 1) + clock
    keys = jax.random.split(key, num_steps)
    (runner, tally), trace = jax.lax.scan(step, (runner, Tally.zero(runner.ts)), (keys, steps))
    return runner, Batch(**trace, carry=first_carry, last=runner.ts, last_carry=runner.carry), tally


def _step_games(env: Environment, state: Any, action: Array, key: Array) -> tuple[Any, TimeStep]:
    keys = jax.random.split(key, action.shape[0])
    return jax.vmap(env.step)(keys, state, clip_to_space(env.action_space, action))


def _restart(
    algo: Algorithm, env: Environment, runner: Runner, tally: Tally, key: Array, time: Array
) -> tuple[Runner, Tally, Any]:
    """Restart the games that are over; also returns what `algo` remembers of their last states.

    Games of fixed horizon restart together, in a branch that other steps do not pay for. In
    all others a fresh game is made at every step and taken where the old one is done.
    """
    keys = jax.random.split(key, runner.episode_length.shape[0])

    def remember(runner: Runner) -> Any:
        return algo.bootstrap(env, runner.learner, runner.carry, runner.ts)

    def finish(runner: Runner, tally: Tally) -> tuple[Runner, Tally]:
        done = runner.ts.done  # [E]
        tally = tally.finish(done, runner.episode_return, runner.episode_length)
        state, ts = jax.vmap(env.reset)(keys)
        fresh = runner.replace(
            state=state,
            ts=ts,
            carry=jax.tree.map(jnp.zeros_like, runner.carry),
            episode_return=jnp.zeros_like(runner.episode_return),
            episode_length=jnp.zeros_like(runner.episode_length),
            learner=(),
        )
        choose = lambda new, old: jnp.where(done.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
        chosen = jax.tree.map(choose, fresh, runner.replace(learner=()))
        return chosen.replace(learner=runner.learner), tally

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(remember, runner))
    if env.fixed_horizon:
        return jax.lax.cond(
            time % env.fixed_horizon == 0,
            lambda r, t: (*finish(r, t), remember(r)),
            lambda r, t: (r, t, nothing),
            runner,
            tally,
        )
    bootstrap = remember(runner) if env.can_truncate else nothing
    return *finish(runner, tally), bootstrap
