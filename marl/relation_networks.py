"""Networks by which a learner judges what others do, pays for it, and guesses what they see.

Observations are `planes`: leaves
[B, H, W, C] "grid" and [B, F] "vector", float32, what `as_planes` makes of a game's. Others are numbered by
their offset d = 1 .. A-1 from the seat i that judges: seat (i + d) mod A; joint actions stand in that order,
one's own first.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from marl.networks import ACTIVATIONS, Carry, Convolution, Torso, dense, expand_codes

Planes = dict[str, Array]


def as_planes(obs: dict[str, Array], codes: tuple[int, ...]) -> Planes:
    """Observations [..., H, W, L] "grid" and [..., F] "vector" with the grid's codes expanded."""
    return obs | ({"grid": expand_codes(obs["grid"], codes)} if "grid" in obs else {})


class JointActions(nn.Module):
    """What reads an observation and what all seats do.

    Fields: torso; width of the layer that reads features and actions; num_actions N; num_agents A.
    """

    torso: Torso
    width: int
    num_actions: int
    num_agents: int


class Relation(JointActions):
    """A policy for one's own reward, and the value of a joint action, on the same encoding.

    The torso has no memory, and its grid codes are all 2.
    """

    def setup(self):
        """Layers of both heads; the value's first layer reads encoding and joint action apart, and adds."""
        self.policy_layer, self.policy_head = dense(self.width), dense(self.num_actions, 0.01)
        self.value_layer, self.value_head = dense(self.width), dense(1, 1.0)
        self.action_layer = dense(self.width, bias=False)

    def __call__(self, planes: Planes, joint: Array) -> tuple[Array, Array]:
        """Returns (logits [B, N], value [B]); joint [B, A] int32."""
        return self.policy(planes), self.value(planes, joint)

    def policy(self, planes: Planes) -> Array:
        """[B, N] logits of what pays."""
        return self.policy_head(nn.relu(self.policy_layer(self._encoding(planes))))

    def value(self, planes: Planes, joint: Array) -> Array:
        """[B] value of the joint action [B, A]."""
        return self._head(self.value_layer(self._encoding(planes)) + self._actions(joint))

    def alternatives(self, planes: Planes, joint: Array) -> Array:
        """[B, A-1, N] value of the joint action if one other, by offset, did each of its actions instead.

        One encoding serves all of them: replacing an action moves the first layer by a difference of rows.
        """
        kernel = self.action_layer.variables["params"]["kernel"].reshape(
            self.num_agents, self.num_actions, -1
        )
        done = jnp.take_along_axis(kernel[None], joint[..., None, None], axis=2)  # [B, A, 1, width]
        instead = (kernel[None] - done)[:, 1:]  # [B, A-1, N, width]
        hidden = self.value_layer(self._encoding(planes)) + self._actions(joint)
        return self._head(hidden[:, None, None] + instead)

    def _encoding(self, planes: Planes) -> Array:
        start = jnp.zeros((1, len(jax.tree.leaves(planes)[0])), bool)
        return self.torso((), jax.tree.map(lambda x: x[None], planes), start)[1][0]

    def _actions(self, joint: Array) -> Array:
        flat = jax.nn.one_hot(joint, self.num_actions).reshape(*joint.shape[:-1], -1)
        return self.action_layer(flat)

    def _head(self, hidden: Array) -> Array:
        return self.value_head(nn.relu(hidden))[..., 0]


class Perspective(nn.Module):
    """What another may see, from what oneself sees (Kong et al. 2024, appendix C).

    Fields: channels of its one 3x3 convolution, 0 for none; widths of its dense layers, one at least;
    num_others A-1.
    """

    channels: int
    widths: tuple[int, ...]
    num_others: int

    @nn.compact
    def __call__(self, planes: Planes) -> Planes:
        """[B, A-1, ...] planes in [0, 1], by offset."""
        parts = []
        if "grid" in planes:
            grid = planes["grid"]
            grid = nn.relu(Convolution(self.channels)(grid)) if self.channels else grid
            parts.append(grid.reshape(len(grid), -1))
        parts += [planes["vector"]] if "vector" in planes else []
        x = jnp.concatenate(parts, axis=-1)
        first, *later = self.widths
        who = dense(first, bias=False)(jnp.eye(self.num_others))
        x = nn.relu(dense(first)(x)[:, None] + who)  # as of both side by side, but what is seen is read once
        for width in later:
            x = nn.relu(dense(width)(x))
        guessed = {}
        for name in sorted(planes):
            shape = planes[name].shape[1:]
            guessed[name] = nn.sigmoid(dense(math.prod(shape), 1.0, name)(x)).reshape(*x.shape[:-1], *shape)
        return guessed


class Incentive(nn.Module):
    """What a seat pays each other for what it just did, as shares of the most that it can pay.

    Fields: torso, without memory; widths of the dense layers on its features and what others did, with the
    torso's activation; num_others A-1.
    """

    torso: Torso
    widths: tuple[int, ...]
    num_others: int

    @nn.compact
    def __call__(self, obs: dict[str, Array], did: Array) -> Array:
        """[T, B, A-1] in [0, 1], by offset; obs leaves [T, B, ...], did [T, B, A-1, C] of the others."""
        _, x = self.torso((), obs, jnp.zeros(did.shape[:2], bool))
        x = jnp.concatenate([x, did.reshape(*did.shape[:2], -1)], axis=-1)
        for width in self.widths:
            x = ACTIVATIONS[self.torso.activation](dense(width)(x))
        return nn.sigmoid(dense(self.num_others, 0.01)(x))


class OthersModel(JointActions):
    """What others will do next, from what one sees and what all do now; the torso may have a memory."""

    def setup(self):
        """Layers; one's own and the others' actions are read apart from the features, and added."""
        self.feature_layer, self.head = (
            dense(self.width),
            dense((self.num_agents - 1) * self.num_actions, 0.01),
        )
        self.own_layer, self.others_layer = dense(self.width, bias=False), dense(self.width, bias=False)

    def __call__(self, carry: Carry, obs: dict[str, Array], start: Array, joint: Array) -> Array:
        """[T, B, A-1, N] logits, by offset; joint [T, B, A] int32, one's own action first."""
        own = self.own_layer(jax.nn.one_hot(joint[..., 0], self.num_actions))
        return self._predict(self._context(carry, obs, start, joint) + own)

    def alternatives(self, carry: Carry, obs: dict[str, Array], start: Array, joint: Array) -> Array:
        """[T, B, N, A-1, N] logits if one did each of one's own actions; arguments as of `__call__`."""
        own = self.own_layer(jnp.eye(self.num_actions))  # [N, width]
        return self._predict(self._context(carry, obs, start, joint)[..., None, :] + own)

    def _context(self, carry: Carry, obs: dict[str, Array], start: Array, joint: Array) -> Array:
        others = jax.nn.one_hot(joint[..., 1:], self.num_actions)
        features = self.feature_layer(self.torso(carry, obs, start)[1])
        return features + self.others_layer(others.reshape(*others.shape[:-2], -1))

    def _predict(self, hidden: Array) -> Array:
        logits = self.head(nn.relu(hidden))
        return logits.reshape(*logits.shape[:-1], self.num_agents - 1, self.num_actions)
