"""Torsos (MLP, grid CNN, with or without a GRU or S5) and the networks that learners put on them.

Every network is applied as `net.apply(params, carry, obs, start)` with time first: obs leaves
[T, B, ...], start [T, B] bool (True where an episode begins: the carry is zeroed before that
step), carry [B, H] for recurrent torsos and () otherwise. Acting is the case T = 1. This is
the only module that imports flax.linen.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from marl import s5

Carry = Any  # () or [B, H] float32
ORTHOGONAL_GAIN = 2**0.5
MAX_ROWS = 1024  # of a table
ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu, "elu": nn.elu, "silu": nn.silu, "leaky_relu": nn.leaky_relu}
CORES = ("gru", "s5")


def dense(width: int, gain: float = ORTHOGONAL_GAIN, name: str | None = None, bias: bool = True) -> nn.Dense:
    """A linear layer with orthogonal weights of the given gain and zero bias, or none."""
    return nn.Dense(width, use_bias=bias, kernel_init=nn.initializers.orthogonal(gain), name=name)


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
    long as outside; nine shifted matrix products take as long in both places (docs/performance.md).
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The convolution, zeros beyond the edges."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.orthogonal(ORTHOGONAL_GAIN), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if jax.default_backend() != "cpu":
            names = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names) + bias
        height, width = x.shape[1:3]
        around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = lambda i, j: around[:, i : i + height, j : j + width]
        return sum(shifted(i, j) @ kernel[i, j] for i in range(3) for j in range(3)) + bias


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


class ActorCritic(nn.Module):
    """Parameters of the action distribution and the state value.

    Fields: torso, of the policy; critic_torso, None if the critic shares the policy's
    (recurrent torsos carry both states side by side); num_params, outputs of the policy head;
    actor_gain, size of that head's first weights.
    """

    torso: nn.Module
    critic_torso: nn.Module | None
    num_params: int
    actor_gain: float = 0.01

    @property
    def carry_size(self) -> int:
        """Width of the recurrent state of the whole network."""
        return self.torso.carry_size * (2 if self.critic_torso else 1)

    @nn.compact
    def __call__(self, carry: Carry, obs: dict[str, Array], start: Array) -> tuple[Carry, Array, Array]:
        """Returns (carry, distribution parameters [T, B, num_params], value [T, B])."""
        if self.critic_torso is None:
            carry, x = self.torso(carry, obs, start)
            y = x
        else:
            own, other = jnp.split(carry, 2, axis=-1) if self.carry_size else (carry, carry)
            own, x = self.torso(own, obs, start)
            other, y = self.critic_torso(other, obs, start)
            carry = jnp.concatenate([own, other], axis=-1) if self.carry_size else ()
        params = _head(self.torso, x, self.num_params, self.actor_gain, "actor")
        value = _head(self.torso, y, 1, 1.0, "critic")
        return carry, params, value[..., 0]


class PolicyNetwork(nn.Module):
    """Parameters of the action distribution.

    Fields: torso; num_params, outputs of the policy head.
    """

    torso: nn.Module
    num_params: int

    @property
    def carry_size(self) -> int:
        """Width of the recurrent state of the network."""
        return self.torso.carry_size

    @nn.compact
    def __call__(self, carry: Carry, obs: dict[str, Array], start: Array) -> tuple[Carry, Array]:
        """Returns (carry, distribution parameters [T, B, num_params])."""
        carry, x = self.torso(carry, obs, start)
        return carry, _head(self.torso, x, self.num_params, 0.01, "actor")


class QNetwork(nn.Module):
    """The values of all actions.

    Fields: torso; num_actions, N; dueling, whether the head is split into the value of the state
    and what each action adds to it, with mean 0 (Wang et al. 2016, arXiv 1511.06581, eq. 9).
    """

    torso: nn.Module
    num_actions: int
    dueling: bool

    @property
    def carry_size(self) -> int:
        """Width of the recurrent state of the network."""
        return self.torso.carry_size

    @nn.compact
    def __call__(self, carry: Carry, obs: dict[str, Array], start: Array) -> tuple[Carry, Array]:
        """Returns (carry after every step [T, B, H] or (), values [T, B, N]); raises ValueError for S5."""
        if self.torso.core_kind != "gru":
            raise ValueError(f"network.core_kind={self.torso.core_kind}: action values need core_kind=gru")
        _, x = self.torso(carry, obs, start)
        q = _head(self.torso, x, self.num_actions, 1.0, "actions")
        if self.dueling:
            q = q - q.mean(-1, keepdims=True) + _head(self.torso, x, 1, 1.0, "state")
        return (x if self.carry_size else ()), q  # a GRU puts out its state


def initial_carry(net: nn.Module, batch: tuple[int, ...]) -> Carry:
    """The carry of games that just began: zeros [*batch, H], or () for feed-forward nets."""
    return jnp.zeros((*batch, net.carry_size)) if net.carry_size else ()


def _head(torso: Any, x: Array, width: int, gain: float, name: str) -> Array:
    """[T, B, width] of features [T, B, F]: the torso's `head_hidden` layers, then a linear one called so."""
    for i, hidden in enumerate(torso.head_hidden):
        x = ACTIVATIONS[torso.activation](dense(hidden, name=f"{name}_{i}")(x))
    return dense(width, gain, name, torso.head_bias)(x)


def _recur(width: int, carry: Carry, x: Array, start: Array) -> tuple[Carry, Array]:
    """A GRU over time that forgets where `start`."""

    def step(cell: nn.GRUCell, carry: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        x, start = now
        return cell(jnp.where(start[:, None], 0.0, carry), x)

    scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
    return scan(nn.GRUCell(width, name="core"), carry, (x, start))
