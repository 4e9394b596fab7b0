"""Action distributions for Discrete, MultiDiscrete and Box spaces behind one interface.

Masked actions get the lowest finite logit, never -inf: the entropy of a -inf logit is nan.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

LOG_STD_RANGE = (-5.0, 1.0)  # keeps a Gaussian's density finite


class Categorical(struct.PyTreeNode):
    """One choice among N; `logits` [..., N]."""

    logits: Array

    def sample(self, key: Array) -> Array:
        """[...] int32, by inversion: one uniform number a choice instead of N Gumbels.

        The running sum is written out over N: on a CPU jnp.cumsum takes twice as long.
        """
        pi = jax.nn.softmax(self.logits)
        cdf = list(itertools.accumulate(pi[..., i] for i in range(pi.shape[-1])))  # N times [...]
        u = jax.random.uniform(key, cdf[-1].shape) * cdf[-1]
        return sum((below <= u).astype(jnp.int32) for below in cdf)

    def mode(self) -> Array:
        """[...] int32, the likeliest choice."""
        return self.logits.argmax(-1).astype(jnp.int32)

    def log_prob(self, action: Array) -> Array:
        """[...] log-probability of `action` [...]."""
        log_pi = jax.nn.log_softmax(self.logits)
        chosen = jax.nn.one_hot(action, log_pi.shape[-1], dtype=bool)
        return jnp.where(chosen, log_pi, 0.0).sum(-1)

    def entropy(self) -> Array:
        """[...] in nats."""
        log_pi = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(log_pi) * log_pi).sum(-1)

    def mixed(self, share: Array, mask: Array | None) -> Categorical:
        """The choice that with probability `share` [] is among all allowed ones (mask [..., N]) alike."""
        alike = jnp.ones(self.logits.shape[-1]) if mask is None else mask.astype(jnp.float32)
        alike = alike / alike.sum(-1, keepdims=True)
        return Categorical(jnp.log((1 - share) * jax.nn.softmax(self.logits) + share * alike + 1e-9))


class MultiCategorical(struct.PyTreeNode):
    """Several independent choices; `parts` are Categoricals, one a component."""

    parts: tuple[Categorical, ...]

    def sample(self, key: Array) -> Array:
        """[..., M] int32."""
        keys = jax.random.split(key, len(self.parts))
        return jnp.stack([p.sample(k) for p, k in zip(self.parts, keys, strict=True)], axis=-1)

    def mode(self) -> Array:
        """[..., M] int32."""
        return jnp.stack([p.mode() for p in self.parts], axis=-1)

    def log_prob(self, action: Array) -> Array:
        """[...] joint log-probability of `action` [..., M]."""
        return sum(p.log_prob(action[..., i]) for i, p in enumerate(self.parts))

    def entropy(self) -> Array:
        """[...] in nats."""
        return sum(p.entropy() for p in self.parts)


class Gaussian(struct.PyTreeNode):
    """Independent normals; a component whose mask is False adds nothing to the density."""

    mean: Array  # [..., *shape] in the units of the space
    log_std: Array  # [..., *shape]
    mask: Array  # [..., *shape] bool
    num_axes: int = struct.field(pytree_node=False)  # length of `shape`

    def sample(self, key: Array) -> Array:
        """[..., *shape] float32; may lie outside the bounds (the loop clips what is played)."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def mode(self) -> Array:
        """[..., *shape] the mean."""
        return self.mean

    def log_prob(self, action: Array) -> Array:
        """[...] log-density of `action` [..., *shape]."""
        z = (action - self.mean) * jnp.exp(-self.log_std)
        log_prob = -0.5 * (z**2 + np.log(2 * np.pi)) - self.log_std
        return self._sum(log_prob)

    def entropy(self) -> Array:
        """[...] differential entropy in nats."""
        return self._sum(0.5 * np.log(2 * np.pi * np.e) + self.log_std)

    def _sum(self, x: Array) -> Array:
        return jnp.where(self.mask, x, 0.0).sum(tuple(range(-self.num_axes, 0)))


Distribution = Categorical | MultiCategorical | Gaussian


def num_params(space: spaces.Space) -> int:
    """Numbers a network must put out for a space: logits, or mean and log-std of a Box."""
    if isinstance(space, spaces.Box):
        return 2 * int(np.prod(space.shape))
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return int(space.n)


def distribution(space: spaces.Space, params: Array, mask: Array | None) -> Distribution:
    """The distribution that a network's output describes.

    Args:
        space: one seat's action space.
        params: [..., num_params(space)]. For a Box, mean and log standard deviation in
            units of half the range, relative to its centre; unbounded Boxes use [-1, 1].
        mask: [..., mask_size(space)] bool, True where allowed; None: everywhere.
    """
    if isinstance(space, spaces.Box):
        bounded = np.isfinite(space.low) & np.isfinite(space.high)
        low, high = np.where(bounded, space.low, -1.0), np.where(bounded, space.high, 1.0)
        centre, half = (low + high) / 2, (high - low) / 2
        mean, log_std = jnp.split(params, 2, axis=-1)
        shape = (*params.shape[:-1], *space.shape)
        log_std = jnp.clip(log_std, *LOG_STD_RANGE).reshape(shape) + np.log(half)
        mean = centre + half * mean.reshape(shape)
        mask = jnp.ones(shape, bool) if mask is None else mask.reshape(shape)
        return Gaussian(mean, log_std, mask, len(space.shape))
    logits = params if mask is None else jnp.where(mask, params, jnp.finfo(params.dtype).min)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical(
            tuple(Categorical(part) for part in jnp.split(logits, np.cumsum(space.nvec)[:-1], axis=-1))
        )
    return Categorical(logits)
