"""A player that draws uniformly from its legal actions; it works in every game.

For Discrete and MultiDiscrete actions it draws one number u in [0, 1) a choice and takes the legal
action number floor(u * legal actions). Random bits are most of its cost, so where all of n
actions are legal u has log2(n) of them if n is a power of two, else 16 (each action then
has probability 1/n within 2^-16). A Box is drawn between its bounds, or in [-1, 1] where it has
none, whatever its mask. Axes: E games, A seats, N actions.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax import Array

from marl.algorithm import Algorithm
from marl.environment import Environment, mask_size


class RandomPlayer(Algorithm):
    """Draws every action anew; it has no parameters, memory or likeliest action."""

    def check(self, env: Environment) -> None:
        """Raise ValueError for an action space that is none of Discrete, MultiDiscrete, Box."""
        mask_size(env.action_space)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Uniform actions [E, A, ...]; `greedy` changes nothing."""
        space, mask = env.action_space, ts.action_mask
        if isinstance(space, spaces.Discrete) and env.all_legal:
            return _draw_any(key, ts.reward.shape, int(space.n)), carry, ()
        if isinstance(space, spaces.MultiDiscrete) and env.all_legal:
            return _draw_parts(key, ts.reward.shape, space.nvec), carry, ()
        return _draw(key, space, mask), carry, ()


def _draw(key: Array, space: spaces.Space, mask: Array) -> Array:
    """[E, A, ...] legal actions of a space; `mask` [E, A, N]."""
    seats = mask.shape[:-1]
    if isinstance(space, spaces.Box):
        bounded = np.isfinite(space.low) & np.isfinite(space.high)
        low, high = np.where(bounded, space.low, -1.0), np.where(bounded, space.high, 1.0)
        u = jax.random.uniform(key, (*seats, *space.shape))
        return (low + (high - low) * u).astype(jnp.float32)
    if isinstance(space, spaces.MultiDiscrete):
        parts = jnp.split(mask, np.cumsum(space.nvec)[:-1], axis=-1)
        u = jax.random.uniform(key, (*seats, len(parts)))
        return jnp.stack([pick(part, u[..., i]) for i, part in enumerate(parts)], axis=-1)
    return pick(mask, jax.random.uniform(key, seats))


def _draw_any(key: Array, shape: tuple[int, ...], num: int) -> Array:
    """[*shape] int32 in 0 .. num - 1."""
    u, bits = _short_uniform(key, shape, num)
    return ((u * np.uint32(num)) >> bits).astype(jnp.int32)


def _draw_parts(key: Array, seats: tuple[int, ...], nvec: np.ndarray) -> Array:
    """[*seats, M] int32, component i in 0 .. nvec[i] - 1."""
    if len(set(nvec.tolist())) == 1:
        return _draw_any(key, (*seats, len(nvec)), int(nvec[0]))
    keys = jax.random.split(key, len(nvec))
    parts = [_draw_any(k, seats, n) for k, n in zip(keys, nvec.tolist(), strict=True)]
    return jnp.stack(parts, axis=-1)


def _short_uniform(key: Array, shape: tuple[int, ...], num: int) -> tuple[Array, int]:
    """[*shape] uint32 numbers of just enough bits to choose among `num`, and how many bits.

    Several are cut from each random 32-bit word. With b bits floor(u * num / 2^b) is uniform if
    num divides 2^b, else within 2^-16 of it.
    """
    exact = num.bit_length() - 1
    bits = next(b for b in (1, 2, 4, 8, 16) if b >= exact) if num == 1 << exact else 16
    size, per_word = math.prod(shape), 32 // bits
    words = jax.random.bits(key, (-(-size // per_word),))
    # the long axis last: a CPU then works on whole vectors
    parts = words >> (bits * np.arange(per_word, dtype=np.uint32))[:, None]
    return (parts & np.uint32(2**bits - 1)).reshape(-1)[:size].reshape(shape), bits


def pick(mask: Array, u: Array) -> Array:
    """[...] int32, the True entry number floor(u * count) of `mask` [..., N]; `u` [...] in [0, 1).

    The running count is written out over N: on a CPU jnp.cumsum takes two to four times as long.
    """
    legal = [mask[..., i].astype(jnp.int32) for i in range(mask.shape[-1])]
    counts = list(itertools.accumulate(legal))  # N times [...], legal actions up to this one
    nth = (u * counts[-1]).astype(jnp.int32)
    return sum((count <= nth).astype(jnp.int32) for count in counts)
