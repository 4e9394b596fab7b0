"""Orthogonal first weights, for many learners at once without a standstill.

On a CPU, QR factorizations of a batch wait, in a thread of XLA's pool, for others of the same pool: several
such batches in one program can wait for each other for ever on few cores (jaxlib 0.10.2). Here matrices under
`vmap` are factorized one after another on a CPU; the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def orthogonal(gain: float = 1.0) -> Callable[..., Array]:
    """An initializer (key, shape, dtype) of matrices with orthonormal rows or columns, times `gain`."""
    init = jax.nn.initializers.orthogonal(gain)

    def one_by_one(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        factorized = lambda key: init(key, shape, dtype)
        if jax.default_backend() == "cpu":
            factorized = jax.custom_batching.sequential_vmap(factorized)
        return factorized(key)

    return one_by_one
