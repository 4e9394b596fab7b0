"""Layers of simplified state spaces (S5) over time, as pure functions of a dict of parameters.

**Source**: Smith, Warrington, Linderman 2023 (arXiv 2208.04933), one block, zero-order hold; forgetting where
an episode begins as Lu et al. 2023 (arXiv 2303.03982), and their setting without norm and dropout; sizes and
gate as Cook et al. 2024 (arXiv 2406.00392, appendix E) and their code. A layer is

    h_t = exp(L D) h_{t-1} + (exp(L D) - 1) / L * B x_t,   y_t = 2 Re(C h_t) + d x_t,
    out_t = x_t + z * sigmoid(W z + b),   z = gelu(y_t)

with L the upper half of the eigenvalues of the normal part of HiPPO-LegS, each for itself and its conjugate,
and step sizes D at first log-uniform. Deviations: where an episode begins exp(L D) is taken as 0, which is
the published operator with its flag; B and C are drawn with variance one over the number of what they sum;
the real parts of L are kept below MAX_REAL, so that learning cannot make a state grow for ever. On a CPU the
states are made one after the other, elsewhere by an associative scan.

Axes: T steps, B games, H features, N state numbers, M = N / 2 complex states.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

MAX_REAL = -1e-4  # of an eigenvalue
Params = dict[str, Array]


@functools.lru_cache
def hippo(state: int) -> tuple[np.ndarray, np.ndarray]:
    """Half of the eigenvalues [M] and eigenvectors [N, M] of the normal part of HiPPO-LegS, N = `state`.

    With p_n = sqrt(n + 1/2) the matrix -p_n p_k * (2 below the diagonal, 0 above), its diagonal -(n + 1),
    plus the outer product of p is -1/2 on the diagonal and else antisymmetric.
    """
    p = np.sqrt(np.arange(state) + 0.5)
    outer = p[:, None] * p
    rest = np.triu(outer, 1) - np.tril(outer, -1)  # antisymmetric
    frequency, vectors = np.linalg.eigh(-1j * rest)
    upper = slice(state // 2, None)  # ascending: the positive ones
    return -0.5 + 1j * frequency[upper], vectors[:, upper]


def init(key: Array, width: int, state: int, step_range: tuple[float, float]) -> Params:
    """The parameters of a layer of H = `width` features with N = `state` numbers of memory.

    Args:
        key: random key.
        width: of input and output.
        state: N, even.
        step_range: least and largest step size D at the start.

    Raises:
        ValueError: if N is odd.
    """
    if state % 2:
        raise ValueError(f"network.core={state}: must be even with core_kind=s5")
    values, vectors = hippo(state)
    keys = jax.random.split(key, 5)
    inward = jax.random.normal(keys[0], (state, width)) / np.sqrt(width)
    real, imaginary = jax.random.normal(keys[1], (2, width, state)) / np.sqrt(state)
    low, high = np.log(step_range)
    parts = lambda x: jnp.stack([x.real, x.imag], axis=-1).astype(jnp.float32)
    return {
        "eigenvalue": parts(jnp.asarray(values)),  # [M, 2] real and imaginary part of L
        "log_step": jax.random.uniform(keys[2], (state // 2,), minval=low, maxval=high),  # [M] log D
        "inward": parts(jnp.asarray(vectors.conj().T) @ inward),  # [M, H, 2] B
        "outward": parts((real + 1j * imaginary) @ jnp.asarray(vectors)),  # [H, M, 2] C
        "skip": jax.random.normal(keys[3], (width,)),  # [H] d
        "gate": jax.random.normal(keys[4], (width, width)) / np.sqrt(width),  # [H, H] W
        "gate_bias": jnp.zeros(width),  # [H] b
    }


def apply(params: Params, carry: Array, x: Array, start: Array) -> tuple[Array, Array]:
    """A layer over time.

    Args:
        params: as made by `init`.
        carry: [B, N] real parts of the states, then imaginary ones.
        x: [T, B, H].
        start: [T, B] bool, the state is forgotten before this step.

    Returns:
        the carry after the last step [B, N], and [T, B, H].
    """
    value = params["eigenvalue"]
    value = jax.lax.complex(jnp.minimum(value[:, 0], MAX_REAL), value[:, 1])
    decay = jnp.exp(value * jnp.exp(params["log_step"]))  # [M]
    inward = jax.lax.complex(params["inward"][..., 0], params["inward"][..., 1])
    inward = inward * ((decay - 1) / value)[:, None]
    inputs = _whole(x @ jnp.concatenate([inward.real, inward.imag]).T)  # real products take half the time
    states = (in_turn if jax.default_backend() == "cpu" else at_once)(decay, inputs, _whole(carry), start)
    outward = 2 * jnp.concatenate([params["outward"][..., 0], -params["outward"][..., 1]], axis=-1)  # [H, N]
    y = jnp.concatenate([states.real, states.imag], axis=-1) @ outward.T + params["skip"] * x
    z = jax.nn.gelu(y)
    last = states[-1]
    out = x + z * jax.nn.sigmoid(z @ params["gate"] + params["gate_bias"])
    return jnp.concatenate([last.real, last.imag], axis=-1), out


def init_all(key: Array, num: int, width: int, state: int, step_range: tuple[float, float]) -> Params:
    """The parameters of `num` layers, as `init` with a leading axis."""
    return jax.vmap(lambda key: init(key, width, state, step_range))(jax.random.split(key, num))


def apply_all(params: Params, carry: Array, x: Array, start: Array) -> tuple[Array, Array]:
    """Layers one on the other, as `apply`, compiled once; params as of `init_all`, carry [B, layers * N]."""
    num = len(params["skip"])

    def one(x: Array, layer: tuple[Params, Array]) -> tuple[Array, Array]:
        own, memory = layer
        memory, x = apply(own, memory, x, start)
        return x, memory

    x, memories = jax.lax.scan(one, x, (params, jnp.stack(jnp.split(carry, num, axis=-1))))
    return jnp.concatenate(list(memories), axis=-1), x


def at_once(decay: Array, inputs: Array, state: Array, start: Array) -> Array:
    """All states by an associative scan, in about 2 log2(T) steps, each of many products.

    Args:
        decay: [M] complex, exp(L D).
        inputs: [T, B, M] complex, what each step adds.
        state: [B, M] complex, before the first.
        start: [T, B] bool, the state is forgotten before this step.

    Returns:
        [T, B, M] h_t = decay h_{t-1} + inputs_t, without the first term where `start`.
    """
    decay = jnp.where(start[..., None], 0, decay)
    inputs = inputs.at[0].add(decay[0] * state)

    def join(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
        return later[0] * earlier[0], later[0] * earlier[1] + later[1]

    return jax.lax.associative_scan(join, (decay, inputs))[1]


def in_turn(decay: Array, inputs: Array, state: Array, start: Array) -> Array:
    """[T, B, M] as `at_once`, one step after the other: less work, where little is done at a time."""

    def step(state: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        inputs, start = now
        state = decay * jnp.where(start[:, None], 0, state) + inputs
        return state, state

    return jax.lax.scan(step, state, (inputs, start))[1]


def _whole(parts: Array) -> Array:
    """[..., M] complex numbers of [..., 2 M] real parts, then imaginary ones."""
    return jax.lax.complex(*jnp.split(parts, 2, axis=-1))
