"""Parallel games as a Gymnasium VectorEnv; made by `marl.adapters.to_gymnasium`."""

from __future__ import annotations

import copy
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jax import Array

from marl import batched
from marl.algorithm import Algorithm
from marl.environment import Environment, TimeStep
from marl.spaces import checked_action, mask_name, observation_space, render_modes


class Play(struct.PyTreeNode):
    """E games with players in some seats, between two steps."""

    games: batched.Games
    ts: TimeStep  # leaves [E, ...], what the next action answers to
    learner: Any  # of the players
    carry: Any  # of the players, leaves [E, A - 1, ...]


def _others(env: Environment, ts: TimeStep) -> TimeStep:
    return ts.take(range(1, env.num_agents), axis=1)


def _start(env: Environment, players: Algorithm | None, key: Array, num_envs: int) -> Play:
    key, own_key = jax.random.split(key)
    games, ts = batched.start(env, key, num_envs)
    if players is None:
        return Play(games, ts, (), ())
    seen = _others(env, ts)
    return Play(games, ts, players.init(own_key, env, seen), players.initial_carry(env, seen))


def _step(
    env: Environment, players: Algorithm | None, play: Play, action: Array
) -> tuple[Play, TimeStep, TimeStep]:
    """`action` is [E, 1, ...] with players, [E, A, ...] without; returns as `batched.step`."""
    games, carry = play.games, play.carry
    if players is not None:
        key, act_key = jax.random.split(games.key)
        games = games.replace(key=key)
        theirs, carry, _ = players.act(env, play.learner, carry, _others(env, play.ts), act_key)
        action = jnp.concatenate([action, theirs.astype(action.dtype)], axis=1)
    games, ts, final = batched.step(env, games, action)
    keep = lambda x: jnp.where(final.done.reshape(-1, *(1,) * (x.ndim - 1)), jnp.zeros_like(x), x)
    return Play(games, ts, play.learner, jax.tree.map(keep, carry)), ts, final


_jit_start = jax.jit(_start, static_argnums=3)
_jit_step = jax.jit(_step)


class GymnasiumGames(VectorEnv):
    """Parallel games, each seat an environment of its own; see `to_gymnasium`.

    A game that ends restarts in the same step: the observation is that of the new game, and
    info["final_obs"] and info["final_info"] tell of the old one, as Gymnasium's SyncVectorEnv
    does. The info of every step holds `action_mask` (or `component_mask`) [num_envs, N] int8 and
    `events`, each [num_envs], the facts of this step, also where it was the last of a game.
    """

    def __init__(
        self, env: Environment, num_envs: int, seed: int, players: Algorithm | None, render_mode: str | None
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: must be at least 1")
        if players is not None:
            players.check(env)
        self._env, self._players, self._num_games = env, players, num_envs
        self._seats = env.num_agents if players is None else 1
        self.num_envs = num_envs * self._seats
        modes = render_modes(env, render_mode)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": modes}
        self.render_mode = render_mode
        self.single_observation_space = observation_space(env)
        self.single_action_space = copy.deepcopy(env.action_space)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._key = jax.random.key(seed)
        self._play: Play | None = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start all games: with a seed always the same, without one the next of the stream.

        Raises:
            ValueError: for the option reset_mask, since games restart by themselves.
        """
        if options and "reset_mask" in options:
            raise ValueError("options reset_mask: games restart by themselves; reset starts all of them")
        super().reset(seed=seed)
        if seed is not None:
            self._key = jax.random.key(operator.index(seed))
        self._key, key = jax.random.split(self._key)
        self._play = _jit_start(self._env, self._players, key, self._num_games)
        ts = self._own(self._play.ts)
        return ts.obs, self._info(ts, np.ones(self.num_envs, bool))

    def step(self, actions: Any) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray, dict]:
        """One step of all games; `actions` is [num_envs, ...].

        Raises:
            ValueError: before the first reset, or if an action is not in its space.
        """
        if self._play is None:
            raise ValueError("call reset before step")
        space = self._env.action_space
        action = checked_action(space, actions, self.num_envs)
        action = action.reshape(-1, self._seats, *action.shape[1:])
        self._play, ts, final = _jit_step(self._env, self._players, self._play, action)
        ts = self._own(ts)
        info = self._info(ts, np.ones(self.num_envs, bool))
        if ts.done.any():
            info |= self._final(self._own(final), ts.done)
        return ts.obs, ts.reward.astype(np.float64), ts.terminated, ts.truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture of its game for every environment, each [H, W, 3] uint8, if render_mode is rgb_array."""
        if self._play is None or self.render_mode is None:
            return None
        states = jax.device_get(self._play.games.state)
        games = [jax.tree.map(lambda x, e=e: x[e], states) for e in range(self._num_games)]
        return tuple(picture for game in games for picture in [self._env.picture(game)] * self._seats)

    def _own(self, ts: TimeStep) -> TimeStep:
        """The TimeStep of the learning seats, flat: numpy leaves [num_envs, ...]."""
        ts = jax.device_get(ts)
        flat = lambda x: x[:, : self._seats].reshape(self.num_envs, *x.shape[2:]).copy()
        per_game = lambda x: np.repeat(x, self._seats)
        return TimeStep(
            obs=jax.tree.map(flat, ts.obs),
            reward=flat(ts.reward),
            terminated=per_game(ts.terminated),
            truncated=per_game(ts.truncated),
            action_mask=flat(ts.action_mask),
            events=jax.tree.map(flat, ts.events),
        )

    def _info(self, ts: TimeStep, has: np.ndarray) -> dict[str, Any]:
        """Mask and events with Gymnasium's `_key` masks `has` [num_envs]; zero where not `has`."""
        name = mask_name(self._env.action_space)
        mask = ts.action_mask.astype(np.int8) * has[:, None].astype(np.int8)
        events = {k: np.where(has, v, np.float32(0)) for k, v in ts.events.items()}
        events |= {f"_{k}": has.copy() for k in ts.events}
        return {name: mask, f"_{name}": has.copy(), "events": events, "_events": has.copy()}

    def _final(self, final: TimeStep, done: np.ndarray) -> dict[str, Any]:
        obs = np.full(self.num_envs, None, object)
        for i in np.flatnonzero(done):
            obs[i] = {key: x[i].copy() for key, x in final.obs.items()}
        info = {"final_obs": obs, "final_info": self._info(final, done)}
        return info | {f"_{key}": done.copy() for key in info}
