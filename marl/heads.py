"""The networks of learners: heads for policies and values on the torsos of `marl.networks`.

Applied as told there: time first, a carry, and where episodes begin.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from marl.networks import ACTIVATIONS, Carry, dense


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
