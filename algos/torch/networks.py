"""The networks of `marl.networks` in PyTorch, for P learners side by side.

Every parameter has a leading axis P and the name and layout that it has in flax, so that all
learners compute in one batched product and parameters pass from JAX to PyTorch and back
unchanged: see `load_flax` and `to_flax`. Networks are called as `net(carry, obs, start)` with
obs leaves [P, T, B, ...], start [P, T, B] bool (True where an episode begins: the carry is zeroed
before that step) and carry [P, B, H] for recurrent torsos, else (). Acting is the case T = 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from marl.environment import Environment
from marl.networks import CNN, MLP, ORTHOGONAL_GAIN

Carry = Any  # () or [P, B, H] float32
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "elu": functional.elu, "silu": functional.silu}
ACTIVATIONS |= {"leaky_relu": functional.leaky_relu}


class Dense(nn.Module):
    """P linear layers. Fields: kernel [P, in, out], bias [P, out] or None."""

    def __init__(self, num: int, inputs: int, outputs: int, gain: float | None, bias: bool = True):
        """Orthogonal weights of the given gain (None: normal with variance 1 / inputs), zero bias."""
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(num, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(num, outputs)) if bias else None
        with torch.no_grad():
            for kernel in self.kernel:
                if gain is None:
                    std = inputs**-0.5 / 0.87962566  # of a normal cut at two standard deviations
                    nn.init.trunc_normal_(kernel, 0.0, std, -2 * std, 2 * std)
                else:
                    nn.init.orthogonal_(kernel, gain)

    def forward(self, x: Tensor) -> Tensor:
        """[P, ..., in] -> [P, ..., out]."""
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        y = torch.bmm(flat, self.kernel) if self.bias is None else _affine(flat, self.kernel, self.bias)
        return y.reshape(*x.shape[:-1], -1)


class Conv(nn.Module):
    """P 3x3 convolutions, stride 1, same size. Fields: kernel [P, 3, 3, in, out], bias [P, out]."""

    def __init__(self, num: int, inputs: int, outputs: int):
        """Orthogonal weights, zero bias."""
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(num, 3, 3, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(num, outputs))
        with torch.no_grad():
            for kernel in self.kernel:
                nn.init.orthogonal_(kernel.view(-1, outputs), ORTHOGONAL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """[P, N, H, W, in] -> [P, N, H, W, out]; learners are groups of one convolution."""
        num, batch, height, width, inputs = x.shape
        x = x.permute(1, 0, 4, 2, 3).reshape(batch, num * inputs, height, width)
        weight = self.kernel.permute(0, 4, 3, 1, 2).reshape(-1, inputs, 3, 3)
        y = functional.conv2d(x, weight, self.bias.flatten(), padding=1, groups=num)
        return y.reshape(batch, num, -1, height, width).permute(1, 0, 3, 4, 2)


class GRUCell(nn.Module):
    """P gated recurrent units with flax's gates.

    r = sigmoid(ir x + hr h), z = sigmoid(iz x + hz h), n = tanh(in x + r (hn h)),
    h' = (1 - z) n + z h; hr and hz have no bias, hn has one.
    """

    def __init__(self, num: int, inputs: int, width: int):
        """Normal input weights, orthogonal recurrent ones."""
        super().__init__()
        self.gates = nn.ModuleDict({f"i{g}": Dense(num, inputs, width, None) for g in "rzn"})
        self.gates.update({f"h{g}": Dense(num, width, width, 1.0, bias=g == "n") for g in "rzn"})

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """[P, B, H] and [P, B, F] -> [P, B, H]."""
        gates = self.gates
        r = torch.sigmoid(gates["ir"](x) + gates["hr"](h))
        z = torch.sigmoid(gates["iz"](x) + gates["hz"](h))
        n = torch.tanh(gates["in"](x) + r * gates["hn"](h))
        return (1 - z) * n + z * h


class Torso(nn.Module):
    """Encodes the observation as `marl.networks.MLP` or CNN does, then dense layers and perhaps a GRU."""

    def __init__(self, network: Any, env: Environment, num: int):
        """Build P = `num` copies of `network` (of marl.networks) for the observations of `env`.

        Raises:
            ValueError: for a network that has no twin here, layers before heads, or a CNN without a grid.
        """
        super().__init__()
        if not isinstance(network, (MLP, CNN)):
            raise ValueError(f"network={type(network).__name__}: PyTorch has twins of MLP and CNN only")
        if network.core_kind != "gru" or network.head_hidden:
            what = f"core_kind={network.core_kind}, head_hidden={list(network.head_hidden)}"
            raise ValueError(f"network: PyTorch has core_kind=gru and head_hidden=[] only, not {what}")
        shapes = {k: v.shape[1:] for k, v in jax.eval_shape(env.reset, jax.random.key(0))[1].obs.items()}
        self.codes, self.activation = tuple(env.grid_codes), ACTIVATIONS[network.activation]
        self.layers, self.carry_size = nn.ModuleDict(), network.core
        features = network.features if isinstance(network, CNN) else ()
        if features and "grid" not in shapes:
            raise ValueError("network: this game has no grid to convolve; use network=mlp or network=gru")
        inputs = math.prod(shapes.get("vector", (0,)))
        if "grid" in shapes:
            *cells, layers = shapes["grid"]
            planes = num_planes(self.codes, layers)
            for i, channels in enumerate(features):
                self.layers[f"Conv_{i}"] = Conv(num, planes, channels)
                planes = channels
            inputs += math.prod(cells) * planes
        for i, width in enumerate(network.hidden):
            self.layers[f"Dense_{i}"] = Dense(num, inputs, width, ORTHOGONAL_GAIN)
            inputs = width
        if network.core:
            self.layers["core"] = GRUCell(num, inputs, network.core)
        self.num_features = network.core or inputs

    def forward(self, carry: Carry, obs: dict[str, Tensor], start: Tensor | None) -> tuple[Carry, Tensor]:
        """Returns (carry, features [P, T, B, F]); `start` may be None without a GRU."""
        parts = []
        layers = dict(self.layers)
        core = layers.pop("core", None)
        if "grid" in obs:
            x = expand_codes(obs["grid"], self.codes)
            lead = x.shape[:3]
            x = x.reshape(lead[0], -1, *x.shape[3:])
            for name in [name for name in layers if name.startswith("Conv")]:
                x = self.activation(layers.pop(name)(x))
            parts.append(x.reshape(*lead, -1))
        if "vector" in obs:
            parts.append(obs["vector"])
        x = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
        for layer in layers.values():
            x = self.activation(layer(x))
        return (carry, x) if core is None or start is None else _recur(core, carry, x, start)


class ActorCritic(nn.Module):
    """Parameters of the action distribution and the state value, for P learners."""

    def __init__(self, network: Any, env: Environment, num: int, num_params: int, separate_critic: bool):
        """`num_params` outputs of the policy; the critic may have a torso of its own."""
        super().__init__()
        self.torso = Torso(network, env, num)
        self.critic_torso = Torso(network, env, num) if separate_critic else None
        self.actor = Dense(num, self.torso.num_features, num_params, 0.01)
        self.critic = Dense(num, self.torso.num_features, 1, 1.0)

    @property
    def carry_size(self) -> int:
        """Width of the recurrent state of the whole network."""
        return self.torso.carry_size * (2 if self.critic_torso else 1)

    def forward(self, carry: Carry, obs: dict[str, Tensor], start: Tensor) -> tuple[Carry, Tensor, Tensor]:
        """Returns (carry, distribution parameters [P, T, B, num_params], value [P, T, B])."""
        if self.critic_torso is None:
            carry, x = self.torso(carry, obs, start)
            y = x
        else:
            own, other = carry.chunk(2, -1) if self.carry_size else (carry, carry)
            own, x = self.torso(own, obs, start)
            other, y = self.critic_torso(other, obs, start)
            carry = torch.cat([own, other], -1) if self.carry_size else ()
        return carry, self.actor(x), self.critic(y)[..., 0]


class QNetwork(nn.Module):
    """The values of all actions, for P learners; feed-forward."""

    def __init__(self, network: Any, env: Environment, num: int, num_actions: int, dueling: bool):
        """`dueling` splits the head into the state's value and what each action adds, with mean 0."""
        super().__init__()
        self.torso = Torso(network, env, num)
        self.actions = Dense(num, self.torso.num_features, num_actions, 1.0)
        self.state = Dense(num, self.torso.num_features, 1, 1.0) if dueling else None

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Values [P, B, N]; obs leaves [P, B, ...]."""
        x = self.torso((), {k: v[:, None] for k, v in obs.items()}, None)[1][:, 0]
        q = self.actions(x)
        return q if self.state is None else q - q.mean(-1, keepdim=True) + self.state(x)


def num_planes(codes: tuple[int, ...], layers: int) -> int:
    """Number of planes that `expand_codes` makes of a grid of that many layers."""
    return layers if len(codes) == layers and all(n == 2 for n in codes) else sum(n - 1 for n in codes)


def expand_codes(grid: Tensor, codes: tuple[int, ...]) -> Tensor:
    """Compact codes to planes: [..., H, W, L] uint8 -> [..., H, W, sum(codes - 1)] float32."""
    if len(codes) == grid.shape[-1] and all(n == 2 for n in codes):
        return grid.float()
    layer, code = _planes(codes, grid.device)
    return (grid[..., layer] == code).float()


@functools.lru_cache
def _planes(codes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The grid layer and the code that each plane shows."""
    layer = np.repeat(np.arange(len(codes)), np.array(codes) - 1)
    code = np.concatenate([np.arange(1, n) for n in codes]).astype(np.uint8)
    return torch.tensor(layer, device=device), torch.tensor(code, device=device)


def load_flax(module: nn.Module, params: Any) -> None:
    """Copy flax parameters into a module of this file.

    Args:
        module: a network of P learners.
        params: the tree of the same network in flax, leaves [P, ...].

    Raises:
        ValueError: naming a parameter that only one side has, or whose shapes differ.
    """
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in flax_values(own, params).items():
            own[name].copy_(value)


def flax_values(own: Mapping[str, Tensor], tree: Any) -> dict[str, Tensor]:
    """The leaves of a flax tree by the names of a module's parameters `own`, as copies beside them.

    Raises:
        ValueError: naming a parameter that only one side has, or whose shapes differ.
    """
    given = _flat(tree.get("params", tree))
    names = {_flax_name(name): name for name in own}
    wrong = given.keys() ^ names.keys()
    wrong |= {k for k in given.keys() & names.keys() if given[k].shape != own[names[k]].shape}
    if wrong:
        raise ValueError(f"load_flax: the networks differ in {', '.join(sorted(wrong)[:3])}")
    return {name: own[name].new_tensor(given[key]) for key, name in names.items()}


def to_flax(own: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tensors by the names of a module's parameters as the flax tree; numpy leaves [P, ...], copied."""
    tree: dict[str, Any] = {}
    for name, value in own.items():
        *path, last = _flax_name(name).split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = value.detach().cpu().numpy().copy()
    return {"params": tree}


def _flax_name(name: str) -> str:
    return name.replace("layers.", "").replace("gates.", "")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    if not isinstance(tree, Mapping):
        return {prefix: np.asarray(tree)}
    parts = (_flat(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items())
    return {key: value for part in parts for key, value in part.items()}


def _affine(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias[:, None], x, kernel)


def _recur(cell: GRUCell, carry: Tensor, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """[P, B, H], [P, T, B, F], [P, T, B] -> carry and states [P, T, B, H]; forgets where `start`."""
    states = []
    for t in range(x.shape[1]):
        carry = cell(torch.where(start[:, t, :, None], 0.0, carry), x[:, t])
        states.append(carry)
    return carry, torch.stack(states, 1)
