"""Tiny games for tests, and how to play given moves."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces

from envs.matrix_game import MatrixGame
from marl.environment import Environment, TimeStep

COOPERATE, DEFECT = 0, 1
LEAVE, TAKE, WATCH = 0, 1, 2


def dilemma(horizon=8):
    """A prisoner's dilemma: R 3, S 0, T 5, P 1."""
    payoff = np.array([[[3, 3], [0, 5]], [[5, 0], [1, 1]]], np.float32)
    return MatrixGame(payoff=payoff, continuation_prob=1.0, horizon=horizon, ends_by_chance=False)


def commons(num_seats=3, horizon=8, noise=0.0, end_prob=0.0, blind=False):
    """A Commons; without horizon it ends by chance."""
    return Commons(
        growth=2.0, noise=noise, end_prob=end_prob, num_seats=num_seats, horizon=horizon, blind=blind
    )


@jax.jit
def follow(env, key, actions):
    """Play `actions` [T, A] after a reset; step t draws from fold_in(key, t).

    Returns (first TimeStep, states and TimeSteps reached with leaves [T, ...]).
    """
    state, first = env.reset(key)

    def step(state, x):
        time, action = x
        state, ts = env.step(jax.random.fold_in(key, time), state, action)
        return state, (state, ts)

    actions = jnp.asarray(actions, jnp.int32)
    return first, *jax.lax.scan(step, state, (jnp.arange(len(actions)), actions))[1]


class CommonsState(struct.PyTreeNode):
    took: jax.Array  # [A] bool, took in the last step
    time: jax.Array  # [] int32


class Commons(Environment):
    """A seats leave (0), take (1) or watch (2); who took must rest once, and then may only leave.

    A taker earns 1 plus noise, a seat that watches nothing, and those that left share `growth`.
    Has masks, random rewards and an end by chance; "vector" is missing if `blind`.
    """

    growth: float  # reward units
    noise: float  # standard deviation of a taker's reward
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
        took, left = action == TAKE, action == LEAVE
        noise = self.noise * jax.random.normal(noise_key, (self.num_agents,))
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
