"""One game as a PettingZoo ParallelEnv; made by `marl.adapters.to_pettingzoo`."""

from __future__ import annotations

import copy
import operator
from typing import Any

import jax
import numpy as np
from gymnasium import spaces
from jax import Array
from pettingzoo import ParallelEnv

from marl.environment import Environment, TimeStep, clip_to_space
from marl.spaces import checked_action, mask_name, name_of, observation_space, render_modes


@jax.jit
def _reset_one(env: Environment, key: Array) -> tuple[Array, Any, TimeStep]:
    key, now = jax.random.split(key)
    return key, *env.reset(now)


@jax.jit
def _step_one(env: Environment, key: Array, state: Any, action: Array) -> tuple[Array, Any, TimeStep]:
    key, now = jax.random.split(key)
    return key, *env.step(now, state, clip_to_space(env.action_space, action))


class PettingZooGame(ParallelEnv):
    """One game; see `to_pettingzoo`. All agents live to the end of the episode.

    Infos hold `action_mask` (or `component_mask`), int8 in the form that `space.sample` takes, and
    `events`, {name: number}, what the agent did in this step.
    """

    def __init__(self, env: Environment, seed: int, max_steps: int | None, render_mode: str | None):
        modes = render_modes(env, render_mode)
        self.metadata = {"name": name_of(env), "render_modes": modes, "is_parallelizable": True}
        self.render_mode = render_mode
        self.possible_agents = [f"agent_{i}" for i in range(env.num_agents)]
        self.agents = []
        space = observation_space(env)
        self.observation_spaces = {agent: copy.deepcopy(space) for agent in self.possible_agents}
        self.action_spaces = {agent: copy.deepcopy(env.action_space) for agent in self.possible_agents}
        size = sum(int(np.prod(box.shape)) for box in space.values()) * env.num_agents
        self.state_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self._env, self._max_steps = env, max_steps
        self._key = jax.random.key(seed)
        self._state: Any = None
        self._seen: dict[str, np.ndarray] = {}
        self._time = 0

    def observation_space(self, agent: str) -> spaces.Space:
        """What an agent sees, always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """What an agent can do, always the same object."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode: with a seed always the same, without one the next of the stream.

        There are no options.
        """
        if seed is not None:
            self._key = jax.random.key(operator.index(seed))
        self._key, self._state, ts = _reset_one(self._env, self._key)
        self.agents, self._time = self.possible_agents[:], 0
        ts = jax.device_get(ts)
        return self._observe(ts), self._infos(ts)

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """All agents move at once; after the end nothing happens any more.

        Raises:
            ValueError: if an agent's action is missing or not in its space.
        """
        if not self.agents:
            return {}, {}, {}, {}, {}
        missing = [agent for agent in self.agents if agent not in actions]
        if missing:
            raise ValueError(f"no action of {', '.join(missing)}: every agent moves at every step")
        space = self._env.action_space
        action = np.stack([checked_action(space, actions[agent]) for agent in self.agents])
        self._key, self._state, ts = _step_one(self._env, self._key, self._state, action)
        ts, self._time = jax.device_get(ts), self._time + 1
        terminated = bool(ts.terminated)
        truncated = bool(ts.truncated) or (self._time == self._max_steps and not terminated)
        moved = self.agents
        self.agents = [] if terminated or truncated else moved
        rewards = {agent: float(r) for agent, r in zip(moved, ts.reward, strict=True)}
        ends = dict.fromkeys(moved, terminated), dict.fromkeys(moved, truncated)
        return self._observe(ts), rewards, *ends, self._infos(ts)

    def state(self) -> np.ndarray:
        """[F] float32, what all agents see, agent by agent, for critics that see everything."""
        parts = [x.reshape(len(x), -1).astype(np.float32) for x in self._seen.values()]
        return np.concatenate(parts, axis=1).reshape(-1)

    def render(self) -> np.ndarray | None:
        """[H, W, 3] uint8, a picture of the game, if render_mode is rgb_array."""
        return self._env.picture(jax.device_get(self._state)) if self.render_mode else None

    def _observe(self, ts: TimeStep) -> dict[str, dict[str, np.ndarray]]:
        self._seen = ts.obs
        view = lambda i: {key: np.array(x[i]) for key, x in ts.obs.items()}
        return {agent: view(i) for i, agent in enumerate(self.possible_agents)}

    def _infos(self, ts: TimeStep) -> dict[str, dict[str, Any]]:
        events = lambda i: {"events": {name: float(x[i]) for name, x in ts.events.items()}}
        mask = lambda i: {mask_name(self._env.action_space): self._mask(ts.action_mask[i])}
        return {agent: mask(i) | events(i) for i, agent in enumerate(self.possible_agents)}

    def _mask(self, mask: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """[N] bool mask of one seat as `space.sample` takes it."""
        space, mask = self._env.action_space, mask.astype(np.int8)
        if isinstance(space, spaces.MultiDiscrete):
            return tuple(np.split(mask, np.cumsum(space.nvec)[:-1]))
        return mask
