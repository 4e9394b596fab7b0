"""The one training loop: play, restart, learn, for every algorithm and every game.

Everything here is pure and meant to run inside one jit (`start` has its own); `marl.run` is the host side.
Update i draws its randomness from `fold_in(key, i)`, so that 4 updates in one call equal 2 + 2.
Axes: U updates, T steps, E parallel games, A seats.
"""

from __future__ import annotations

import functools
import math
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
    ts: TimeStep  # what the next action answers to, leaves [E, ...]; reward and events are zero
    carry: Any  # recurrent state of the policies, leaves [E, A, ...]
    episode_return: Array  # [E, A] of the episode under way
    episode_length: Array  # [E] int32 steps of the episode under way


@functools.partial(jax.jit, static_argnames="num_envs")
def start(algo: Algorithm, env: Environment, key: Array, num_envs: int, learner: Any = None) -> Runner:
    """A learner before `num_envs` fresh games; None: a fresh one."""
    learn_key, env_key = jax.random.split(key)
    state, ts = jax.vmap(env.reset)(_game_keys(env_key, num_envs, algo.group_size))
    return Runner(
        learner=algo.init(learn_key, env, ts) if learner is None else learner,
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

    `updates` must not be mapped by vmap: it drives the restart of games that end only at certain steps,
    so that the restart stays a real branch.

    Returns:
        the runner, and what happened: a Tally of sums and the algorithm's metrics, leaves [U, ...].
        `marl.metrics.report` turns both into scalars.
    """

    def update(runner: Runner, i: Array) -> tuple[Runner, tuple[Tally, dict]]:
        roll_key, learn_key = jax.random.split(jax.random.fold_in(key, i))
        clock = 0
        if env.ends_every:  # steps since games could last end, without overflow
            clock = (i % env.ends_every) * (algo.num_steps % env.ends_every)
        runner, batch, tally = rollout(algo, env, runner, roll_key, clock, algo.num_steps)
        learner, metrics = algo.update(env, runner.learner, batch, learn_key)
        return runner.replace(learner=learner), (tally, metrics)

    return jax.lax.scan(update, runner, updates)


def rollout(
    algo: Algorithm, env: Environment, runner: Runner, key: Array, clock: Array | int, num_steps: int
) -> tuple[Runner, Batch, Tally]:
    """Play `num_steps` steps in all games, restarting those that end.

    The steps are cut into stretches at whose ends alone a game can end: one step each, or for
    games that end only every H steps the largest length that divides both H and num_steps. So these
    pay nothing for restarts at most steps.

    Args:
        algo: chooses the actions; env: the game.
        runner: where play stands.
        key: all randomness of the rollout.
        clock: [] steps played so far, modulo `env.ends_every`; not read without it.
        num_steps: T.

    Returns:
        the runner after the steps, the Batch to learn from, and the Tally of what happened.
    """
    length = math.gcd(num_steps, env.ends_every or 1)

    def stretch(carry: tuple[Runner, Tally], now: tuple) -> tuple[tuple, tuple[dict, Any]]:
        (runner, tally), (step_keys, reset_key, time) = carry, now
        runner, events, trace = _play(algo, env, runner, step_keys)
        reward = trace["reward"].sum(0)
        runner = runner.replace(
            episode_return=runner.episode_return + reward,
            episode_length=runner.episode_length + length,
        )
        tally = tally.add(length, reward, events)
        done = trace["done"][-1]
        runner, tally, bootstrap = _restart(algo, env, runner, tally, done, reset_key, time)
        return (runner, tally), (trace, bootstrap)

    num = num_steps // length
    # all keys at once: on a CPU a split in the loop costs more than a step of a small game
    step_key, reset_key = jax.random.split(key)
    act_keys, env_keys = jnp.moveaxis(jax.random.split(step_key, (num, length, 2)), 2, 0)
    games = runner.episode_length.shape[0]
    env_keys = jax.vmap(jax.vmap(lambda key: _game_keys(key, games, algo.group_size)))(env_keys)
    step_keys = act_keys, env_keys
    now = (step_keys, jax.random.split(reset_key, num), clock + length * jnp.arange(1, num + 1))
    first, nothing = runner, Tally.zero(runner.ts)
    (runner, tally), (trace, bootstrap) = jax.lax.scan(stretch, (runner, nothing), now)
    join = lambda x: x.reshape(num_steps, *x.shape[2:])  # [T/L, L, E, ...] -> [T, E, ...]
    at_ends = lambda x: jnp.zeros((num, length, *x.shape[1:]), x.dtype).at[:, -1].set(x)
    batch = Batch(
        **jax.tree.map(join, trace),
        bootstrap=jax.tree.map(lambda x: join(at_ends(x)), bootstrap),
        carry=first.carry,
        last=runner.ts,
        last_carry=runner.carry,
    )
    return runner, batch, tally


def _play(
    algo: Algorithm, env: Environment, runner: Runner, keys: tuple[Array, Array]
) -> tuple[Runner, dict[str, Array], dict[str, Any]]:
    """L steps without restarts: the runner, events summed [E, A], the trace [L, E, ...].

    `keys` are the players' [L] and the games' [L, E], for each step.
    """

    def step(now: tuple, keys: tuple[Array, Array]) -> tuple[tuple, dict[str, Any]]:
        (state, ts, carry, events), (act_key, env_keys) = now, keys
        action, carry, extras = algo.act(env, runner.learner, carry, ts, act_key)
        state, new = jax.vmap(env.step)(env_keys, state, clip_to_space(env.action_space, action))
        terminated = new.terminated
        if new.seat_terminated is not None:
            terminated = terminated[:, None] | new.seat_terminated
        trace = {
            "obs": ts.obs,
            "action_mask": ts.action_mask,
            "action": action,
            "reward": new.reward,
            "terminated": terminated,
            "done": new.done,
            "extras": extras,
            "events": {name: new.events[name] for name in algo.reads},
        }
        events = jax.tree.map(jnp.add, events, new.events)
        # what no policy reads stays as it was, so that it is not copied at every step
        mask = ts.action_mask if env.all_legal else new.action_mask
        ts = ts.replace(obs=new.obs, action_mask=mask)
        return (state, ts, carry, events), trace

    nothing = jax.tree.map(jnp.zeros_like, runner.ts.events)
    now = (runner.state, runner.ts, runner.carry, nothing)
    # two steps in one turn of the loop halve the copies of what it carries
    unroll = 2 if keys[0].shape[0] % 2 == 0 else 1
    (state, ts, carry, events), trace = jax.lax.scan(step, now, keys, unroll=unroll)
    return runner.replace(state=state, ts=ts, carry=carry), events, trace


def _restart(
    algo: Algorithm, env: Environment, runner: Runner, tally: Tally, done: Array, key: Array, time: Array
) -> tuple[Runner, Tally, Any]:
    """Restart the games that are `done` [E]; also returns what `algo` remembers of their last states.

    Games that can end only every so many steps restart in a branch that other steps do not pay for. In
    all others a fresh game is made at every step and taken where the old one is done.
    """
    learner = runner.learner
    runner = runner.replace(learner=())

    def remember(runner: Runner) -> Any:
        return algo.bootstrap(env, learner, runner.carry, runner.ts)

    def finish(runner: Runner, tally: Tally) -> tuple[Runner, Tally]:
        tally = tally.finish(done, runner.episode_return, runner.episode_length)
        state, ts = jax.vmap(env.reset)(_game_keys(key, done.shape[0], algo.group_size))
        fresh = Runner(
            learner=(),
            state=state,
            ts=ts,
            carry=jax.tree.map(jnp.zeros_like, runner.carry),
            episode_return=jnp.zeros_like(runner.episode_return),
            episode_length=jnp.zeros_like(runner.episode_length),
        )
        choose = lambda new, old: jnp.where(done.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
        return jax.tree.map(choose, fresh, runner), tally

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(remember, runner))
    if env.ends_every:
        runner, tally, bootstrap = jax.lax.cond(
            time % env.ends_every == 0,
            lambda runner, tally: (*finish(runner, tally), remember(runner)),
            lambda runner, tally: (runner, tally, nothing),
            runner,
            tally,
        )
    else:
        bootstrap = remember(runner) if env.can_truncate else nothing
        runner, tally = finish(runner, tally)
    return runner.replace(learner=learner), tally, bootstrap


def _game_keys(key: Array, num_envs: int, group_size: int) -> Array:
    """[E] keys of the games, equal for the neighbouring games of a group."""
    keys = jax.random.split(key, num_envs // group_size)
    return keys if group_size == 1 else jnp.repeat(keys, group_size, axis=0)
