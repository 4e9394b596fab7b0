"""Torsos: MLP, grid CNN and others, with or without a GRU or S5; `marl.heads` puts heads on them.

Every network is applied as `net.apply(params, carry, obs, start)` with time first: obs leaves
[T, B, ...], start [T, B] bool (True where an episode begins: the carry is zeroed before that
step), carry [B, H] for recurrent torsos and () otherwise. Acting is the case T = 1. This, `marl.heads` and
`marl.relation_networks` are the only modules that import flax.linen.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from marl import gru, s5
from marl.initializers import orthogonal

Carry = Any  # () or [B, H] float32
ORTHOGONAL_GAIN = 2**0.5
MAX_ROWS = 1024  # of a table
ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu, "elu": nn.elu, "silu": nn.silu, "leaky_relu": nn.leaky_relu}
CORES = ("gru", "s5")


def dense(width: int, gain: float = ORTHOGONAL_GAIN, name: str | None = None, bias: bool = True) -> nn.Dense:
    """A linear layer with orthogonal weights of the given gain and zero bias, or none."""
    return nn.Dense(width, use_bias=bias, kernel_init=orthogonal(gain), name=name)


def expand_codes(grid: Array, codes: tuple[int, ...]) -> Array:
    """Compact codes to planes: [..., H, W, L] uint8 -> [..., H, W, sum(codes - 1)] float32.

    Layer l holds codes 0 .. codes[l] - 1; code 0 is "nothing" and has no plane.
    """
    if len(codes) == grid.shape[-1] and all(n == 2 for n in codes):
        return grid.astype(jnp.float32)
    planes = [jax.nn.one_hot(grid[..., i] - 1, n - 1) for i, n in enumerate(codes)]
    return jnp.concatenate(planes, axis=-1)


class Torso(nn.Module):
    """Encodes the observation, applies dense layers, then perhaps a memory: a GRU, or layers of S5.

    Fields: hidden, widths of the dense layers; activation, one of ACTIVATIONS; core, numbers that the
    memory (each of its layers) keeps, 0 for none; grid_codes, codes of each layer of obs["grid"];
    core_kind, one of CORES: a GRU puts out its memory, layers of S5 as many features as they are given;
    core_layers, of S5, and core_steps, its least and largest first step sizes (see `marl.s5`);
    head_hidden, widths of dense layers in each head on it.
    """

    hidden: tuple[int, ...]
    activation: str
    core: int
    grid_codes: tuple[int, ...] = ()
    core_kind: str = "gru"  # the only one in run folders that do not name it, and likewise:
    core_layers: int = 1
    core_steps: tuple[float, float] = (0.001, 0.1)
    head_hidden: tuple[int, ...] = ()

    needs_grid = False
    head_bias = True  # whether the heads on it have a bias

    @property
    def carry_size(self) -> int:
        """Width of the recurrent state, 0 if there is none."""
        return self.core * (self.core_layers if self.core_kind == "s5" else 1)

    @nn.compact
    def __call__(self, carry: Carry, obs: dict[str, Array], start: Array) -> tuple[Carry, Array]:
        """Returns (carry, features [T, B, F]).

        Raises:
            ValueError: if a network for grids is given a game without one.
        """
        if self.needs_grid and "grid" not in obs:
            raise ValueError("network: this game has no grid to convolve; use network=mlp or network=gru")
        parts = [self.encode_grid(expand_codes(obs["grid"], self.grid_codes))] if "grid" in obs else []
        parts += [self.encode_vector(obs["vector"])] if "vector" in obs else []
        x = jnp.concatenate(parts, axis=-1)
        for width in self.hidden:
            x = ACTIVATIONS[self.activation](dense(width)(x))
        return self._remember(carry, x, start) if self.core else (carry, x)

    def _remember(self, carry: Array, x: Array, start: Array) -> tuple[Array, Array]:
        if self.core_kind not in CORES:
            raise ValueError(f"network.core_kind={self.core_kind}: must be {' or '.join(CORES)}")
        if self.core_kind == "gru":
            return _recur(self.core, carry, x, start)
        sizes = self.core_layers, x.shape[-1], self.core, self.core_steps
        return s5.apply_all(self.param("core", s5.init_all, *sizes), carry, x, start)

    def encode_grid(self, planes: Array) -> Array:
        """[T, B, H, W, L] planes -> [T, B, F]."""
        raise NotImplementedError("a torso says how it reads a grid")

    def encode_vector(self, vector: Array) -> Array:
        """[T, B, F] as it is."""
        return vector


class Table(Torso):
    """One feature for each combination of the entries of a vector of zeros and ones.

    The heads on it have no bias: without hidden layers they are tables.
    """

    head_bias = False

    def encode_grid(self, planes: Array) -> Array:
        """Refuses grids.

        Raises:
            ValueError: always.
        """
        raise ValueError("network: a table reads only vectors; use network=mlp or network=cnn")

    def encode_vector(self, vector: Array) -> Array:
        """[T, B, F] -> [T, B, 2^F], a one at the row number whose binary digits are the entries.

        Raises:
            ValueError: if there would be more than MAX_ROWS rows.
        """
        size = vector.shape[-1]
        if 2**size > MAX_ROWS:
            raise ValueError(f"network: a table of {size} entries has 2^{size} rows, more than {MAX_ROWS}")
        row = ((vector > 0.5) * 2 ** np.arange(size)).sum(-1)
        return jax.nn.one_hot(row, 2**size)


class MLP(Torso):
    """Flattens the planes of the grid."""

    def encode_grid(self, planes: Array) -> Array:
        """[T, B, H, W, L] -> [T, B, H * W * L]."""
        return planes.reshape(*planes.shape[:2], -1)


class Cells(Torso, kw_only=True):
    """Applies dense layers of widths `features` (1x1 convolutions), with `grid_activation`, to every cell."""

    features: tuple[int, ...]
    grid_activation: str

    needs_grid = True

    def encode_grid(self, planes: Array) -> Array:
        """[T, B, H, W, L] planes -> [T, B, H * W * features[-1]]."""
        for i, width in enumerate(self.features):
            planes = ACTIVATIONS[self.grid_activation](dense(width, name=f"Cell_{i}")(planes))
        return planes.reshape(*planes.shape[:2], -1)


class Convolution(nn.Module):
    """A 3x3 convolution of stride 1 and the same size, [B, H, W, C] -> [B, H, W, features].

    On a CPU the gradient of XLA's convolution inside a loop, as over minibatches, takes about seven times as
    long as outside; matrix products take as long in both places (docs/performance.md). Here one product of
    all cells with three columns each gives what each row of the kernel adds, which is half the time of nine
    products where there are few channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The convolution, zeros beyond the edges."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", orthogonal(ORTHOGONAL_GAIN), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if jax.default_backend() != "cpu":
            names = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names) + bias
        height, width = x.shape[1:3]
        around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        near = jnp.concatenate([around[:, :, j : j + width] for j in range(3)], axis=-1)  # [B, H + 2, W, 3C]
        rows = near.reshape(-1, near.shape[-1]) @ kernel.transpose(1, 2, 0, 3).reshape(near.shape[-1], -1)
        rows = rows.reshape(*near.shape[:3], 3, self.features)
        return sum(rows[:, i : i + height, :, i] for i in range(3)) + bias


class CNN(Torso, kw_only=True):
    """Applies 3x3 convolutions (stride 1, same size) with `features` channels to the planes."""

    features: tuple[int, ...]

    needs_grid = True

    def encode_grid(self, planes: Array) -> Array:
        """[T, B, H, W, L] -> [T, B, H * W * features[-1]]."""
        time, batch = planes.shape[:2]
        x = planes.reshape(time * batch, *planes.shape[2:])
        for i, channels in enumerate(self.features):
            x = ACTIVATIONS[self.activation](Convolution(channels, name=f"Conv_{i}")(x))
        return x.reshape(time, batch, -1)


class MeanCNN(Torso, kw_only=True):
    """3x3 convolutions within the planes, each two rows and columns smaller, then the mean over the cells.

    Weights are normal with variance 2 / (9 channels out). The products are those of whole rows, with the
    batch as last axis: on a CPU half the time of shifted products of single cells.
    """

    features: tuple[int, ...]

    needs_grid = True

    def encode_grid(self, planes: Array) -> Array:
        """[T, B, H, W, L] -> [T, B, features[-1]].

        Raises:
            ValueError: if nothing of the planes is left.
        """
        time, batch, *size, channels = planes.shape
        if min(size) <= 2 * len(self.features):
            most = (min(size) - 1) // 2
            raise ValueError(f"network.features={list(self.features)}: at most {most} layers fit in {size}")
        x = planes.reshape(-1, *size, channels).transpose(3, 1, 2, 0)  # [C, H, W, T*B]
        for i, out in enumerate(self.features):
            normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
            kernel = self.param(f"kernel_{i}", normal, (3, 3, len(x), out))
            bias = self.param(f"bias_{i}", nn.initializers.zeros, (out,))
            height, width = x.shape[1], x.shape[2] - 2
            near = jnp.concatenate([x[:, :, j : j + width] for j in range(3)])  # [3C, H, W - 2, T*B]
            weights = kernel.transpose(0, 3, 1, 2).reshape(3 * out, -1)
            rows = (weights @ near.reshape(len(near), -1)).reshape(3, out, *near.shape[1:])
            y = sum(rows[k, :, k : k + height - 2] for k in range(3))
            x = ACTIVATIONS[self.activation](y + bias[:, None, None, None])
        return x.mean((1, 2)).T.reshape(time, batch, -1)


def _recur(width: int, carry: Carry, x: Array, start: Array) -> tuple[Carry, Array]:
    """A GRU over time that forgets where `start`."""
    cell = nn.GRUCell(width, recurrent_kernel_init=orthogonal(), name="core")
    cell(carry, x[0])  # makes its parameters; what it returns is not computed
    return gru.apply(cell.variables["params"], carry, x, start)
