"""Large batches a piece at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def mean_over(function: Callable[[Array], Any], pieces: Array) -> Any:
    """Mean of function(piece) over the leading axis of `pieces` [N, ...], one piece in memory at a time."""
    if len(pieces) == 1:
        return function(pieces[0])
    shapes = jax.eval_shape(function, pieces[0])
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    add = lambda total, piece: (jax.tree.map(jnp.add, total, function(piece)), None)
    total, _ = jax.lax.scan(add, zero, pieces)
    return jax.tree.map(lambda x: x / len(pieces), total)
