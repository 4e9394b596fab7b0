"""A gated recurrent unit over time, as a pure function of arrays, whose gradient does little in sequence.

**Source**: Cho et al. 2014 (arXiv 1406.1078), the reset gate behind the product as in flax's `GRUCell`, whose
parameters it takes:

    r = sigmoid(x W_r + b_r + h U_r),  z = sigmoid(x W_z + b_z + h U_z)
    n = tanh(x W_n + b_n + r (h U_n + c)),  h' = (1 - z) n + z h

What needs no state is done for all steps at once: the products with x before the loop over time, and those
that give the gradients of U and c after it. In sequence one product a step remains, forwards and backwards.

Axes: T steps, B games, F features, H numbers of memory; the gates r, z, n stand side by side in U.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Params = dict[str, dict[str, Array]]
GPU_UNROLL = 8  # steps in one turn of the loop on a GPU, where each turn waits: .62 of an update's time


def apply(params: Params, carry: Array, x: Array, start: Array) -> tuple[Array, Array]:
    """The memory over time.

    Args:
        params: {"ir", "iz", "in": {"kernel": [F, H], "bias": [H]}, "hr", "hz": {"kernel": [H, H]}, "hn":
            {"kernel": [H, H], "bias": [H]}}.
        carry: [B, H] memory.
        x: [T, B, F].
        start: [T, B] bool, the memory is zeroed before this step.

    Returns:
        the memory after the last step [B, H], and after each [T, B, H].
    """
    inward = [x @ params[name]["kernel"] + params[name]["bias"] for name in ("ir", "iz", "in")]
    kernel = jnp.concatenate([params[name]["kernel"] for name in ("hr", "hz", "hn")], axis=-1)
    memory = _unroll(inward, kernel, params["hn"]["bias"], carry, start)
    return memory[-1], memory


@jax.custom_vjp
def _unroll(inward: list[Array], kernel: Array, bias: Array, carry: Array, start: Array) -> Array:
    """[T, B, H] memory after each step.

    Args:
        inward: what x gives each gate, three of [T, B, H].
        kernel: [H, 3H] U.
        bias: [H] c.
        carry: [B, H] memory before.
        start: [T, B] bool.
    """

    def step(carry: Array, now: tuple[list[Array], Array]) -> tuple[Array, Array]:
        carry, _ = _step(carry, *now, kernel, bias)
        return carry, carry

    return _scan(step, carry, (inward, start))[1]


def _step(
    carry: Array, inward: list[Array], start: Array, kernel: Array, bias: Array
) -> tuple[Array, tuple[Array, ...]]:
    """The memory [B, H] after a step; the one before it, r, z, n and h U_n + c, each [B, H]."""
    before = jnp.where(start[:, None], 0.0, carry)
    r, z, candidate = jnp.split(before @ kernel, 3, axis=-1)
    r, z, candidate = jax.nn.sigmoid(inward[0] + r), jax.nn.sigmoid(inward[1] + z), candidate + bias
    n = jnp.tanh(inward[2] + r * candidate)
    return (1 - z) * n + z * before, (before, r, z, n, candidate)


def _forwards(
    inward: list[Array], kernel: Array, bias: Array, carry: Array, start: Array
) -> tuple[Array, tuple[Any, ...]]:
    """As `_unroll`, and what `_backwards` needs."""

    def step(carry: Array, now: tuple[list[Array], Array]) -> tuple[Array, tuple[Array, ...]]:
        carry, gates = _step(carry, *now, kernel, bias)
        return carry, (carry, *gates)

    memory, *gates = _scan(step, carry, (inward, start))[1]
    return memory, (gates, kernel, start)


def _backwards(kept: tuple[Any, ...], grad: Array) -> tuple[Any, ...]:
    """Gradients of the arguments of `_unroll`, of `grad` [T, B, H] of the memory."""
    (before, r, z, n, candidate), kernel, start = kept
    back = kernel.T

    def step(later: Array, now: tuple[Array, ...]) -> tuple[Array, list[Array]]:
        grad, before, r, z, n, candidate, start = now
        here = grad + later
        to_n = here * (1 - z) * (1 - n * n)
        to_z = here * (before - n) * z * (1 - z)
        to_r = to_n * candidate * r * (1 - r)
        own = jnp.concatenate([to_r, to_z, to_n * r], axis=-1)  # [B, 3H], of h U
        return jnp.where(start[:, None], 0.0, here * z + own @ back), [to_r, to_z, to_n]

    steps = (grad, before, r, z, n, candidate, start)
    carry, inward = _scan(step, jnp.zeros_like(grad[0]), steps, reverse=True)
    own_n = inward[2] * r
    of_kernel = [jnp.einsum("tbh,tbg->hg", before, x) for x in (inward[0], inward[1], own_n)]
    return inward, jnp.concatenate(of_kernel, axis=-1), own_n.sum((0, 1)), carry, None


_unroll.defvjp(_forwards, _backwards)


def _scan(step: Callable, carry: Array, steps: Any, reverse: bool = False) -> tuple[Array, Any]:
    """`jax.lax.scan`, with several steps in one turn of the loop on a GPU."""
    unroll = 1 if jax.default_backend() == "cpu" else GPU_UNROLL
    return jax.lax.scan(step, carry, steps, reverse=reverse, unroll=unroll)
