"""Tiny games for tests."""

import jax
import jax.numpy as jnp
from flax import struct
from gymnasium import spaces
from marl.environment import Environment, TimeStep

TAKE = 1


class CommonsState(struct.PyTreeNode):
    took: jax.Array  # [A] bool, took in the last step
    time: jax.Array  # [] int32


class Commons(Environment):
    """A seats leave (0), take (1) or watch (2); who took must rest once, and then may only leave.

    A taker earns 1 plus noise, and every seat that left shares `growth`. Has masks, random
    rewards and a terminal state by chance, but no "vector" unless `blind` is false.
    """

    growth: float  # reward units
    end_prob: float  # probability that a step is the last
    num_seats: int = struct.field(pytree_node=False)  # A
    horizon: int = struct.field(pytree_node=False)  # steps, 0 = none
    blind: bool = struct.field(pytree_node=False)

    action_space = spaces.Discrete(3)
    grid_codes = (3,)

    @property
    def num_agents(self):
        return self.num_seats

    @property
    def fixed_horizon(self):
        return self.horizon or None

    def reset(self, key):
        none = jnp.zeros(self.num_agents, bool)
        state = CommonsState(none, jnp.int32(0))
        return state, self._observe(state, jnp.zeros(self.num_agents), none, jnp.bool_(False))

    def step(self, key, state, action):
        noise_key, end_key = jax.random.split(key)
        took, left = action == TAKE, action == 0
        noise = 0.1 * jax.random.normal(noise_key, (self.num_agents,))
        reward = took * (1.0 + noise) + left * self.growth / jnp.maximum(left.sum(), 1)
        ended = jnp.bool_(False)
        if not self.horizon:
            ended = jax.random.bernoulli(end_key, self.end_prob)
        state = CommonsState(took, state.time + 1)
        return state, self._observe(state, reward, left, ended)

    def _observe(self, state, reward, left, ended):
        took = state.took
        truncated = state.time >= self.horizon if self.horizon else jnp.bool_(False)
        codes = (1 + took).astype(jnp.uint8)
        grid = jnp.broadcast_to(codes[None, :, None, None], (self.num_agents, self.num_agents, 1, 1))
        obs = {"grid": grid}
        if not self.blind:
            obs["vector"] = took[:, None].astype(jnp.float32)
        return TimeStep(
            obs=obs,
            reward=reward,
            terminated=ended,
            truncated=truncated,
            action_mask=jnp.ones((self.num_agents, 3), bool).at[:, 1:].set(~took[:, None]),
            events={"took": took.astype(jnp.float32), "left": left.astype(jnp.float32)},
        )
