"""Gifts of reward: shares by what others' actions are worth, and where learners that give them end.

**Source**: Kong, Huang, Zhu, Qi, Feng 2024 (arXiv 2410.07863), eq. 2, 3, 5 and appendix A. Axes: T steps,
E games, A seats, N actions, B samples; others of a seat by their offset d = 1 .. A-1.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def others_of(num: int) -> np.ndarray:
    """[A, A-1] seat of each other of each of `num` seats, by offset."""
    return (np.arange(num)[:, None] + np.arange(1, num)) % num


def by_pair(share: Array) -> Array:
    """[..., A, A-1] what seats give to others, by offset -> [..., A (giver), A (taker)], 0 to themselves."""
    others = others_of(share.shape[-2])
    to = jnp.asarray(others[..., None] == np.arange(len(others)), share.dtype)  # [A, A-1, A]
    return jnp.einsum("...id,idj->...ij", share, to)


def shares(value: Array, expected: Array, action: Array, *, flat: float | Array = 1e-6) -> Array:
    """The share of one's reward that each other gets (eq. 3).

    Args:
        value: [B, A-1, N] of the joint action with each other's action replaced by each of its actions.
        expected: [B, A-1, N] probabilities with which the others are expected to act.
        action: [B, A-1] what they did.
        flat: values that differ by less over an other's actions are the same, and nothing is given for them.
            The source has no such bound; without one errors of estimates are scaled up to whole shares.

    Returns:
        [B, A-1] in [0, 1 / (A-1)].
    """
    done = jnp.take_along_axis(value, action[..., None], axis=2)[..., 0]
    span = value.max(-1) - value.min(-1)
    more = done - (expected * value).sum(-1)
    share = more / jnp.maximum(span, flat) / value.shape[1]
    return jnp.where((span < flat) | (more <= 0), 0.0, share)


def given(reward: Array, weights: Array, *, gift_negative: bool) -> Array:
    """[T, E, A] rewards after gifts (eq. 2), of rewards [T, E, A] and weights [T, E, A (giver), A (taker)].

    Without `gift_negative` shares of losses are not passed on.
    """
    passed = reward if gift_negative else jnp.maximum(reward, 0.0)
    return reward - passed + jnp.einsum("teij,tei->tej", weights, passed)


def accounts(reward: Array, paid: Array) -> dict[str, Array]:
    """Metrics of a group: means over steps and games of what is earned, received and given.

    Args:
        reward: [T, E, A] the game's own.
        paid: [T, E, A (giver), A (taker)], 0 to oneself.

    Returns:
        `extrinsic`, `received` and `given`, means over seats, and NAME/seat_I; `incentive/seat_I_to_J`.
    """
    kinds = {"extrinsic": reward, "received": paid.sum(2), "given": paid.sum(3)}
    kinds = {name: x.mean((0, 1)) for name, x in kinds.items()}
    seats, pairs = range(reward.shape[2]), paid.mean((0, 1))
    found = {name: x.mean() for name, x in kinds.items()}
    found |= {f"{name}/seat_{i}": x[i] for name, x in kinds.items() for i in seats}
    return found | {f"incentive/seat_{i}_to_{j}": pairs[i, j] for i in seats for j in seats if i != j}


def td_errors(value: Array, reward: Array, over: Array, cut: Array, *, gamma: Any) -> tuple[Array, Array]:
    """Errors of the value of joint actions as played, and which count, [T, B] both (eq. 5).

    Args:
        value: [T, B] of what was done; reward: [T, B].
        over: [T, B] bool, the game ended by its rules with the step: nothing follows.
        cut: [T, B] bool, the episode ended with it. What would have been done next is not known then, nor
            after the last step: these do not count unless nothing follows.
    """
    follows = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
    known = jnp.concatenate([~cut[:-1], jnp.zeros_like(cut[:1])]) | over
    error = reward + gamma * jnp.where(over, 0.0, follows) - value
    return jnp.where(known, error, 0.0), known.astype(jnp.float32)


def one_shot_probabilities(
    start: Array, temptation: Array, sucker: Array, *, num_steps: int, learning_rate: float, gamma: float
) -> Array:
    """[..., 2] P(cooperate) of two learners that give, in a one-shot game with R=1 and P=0 (appendix A).

    Each is the policy gradient of its reward after gifts, with the other's action foreseen exactly, so the
    shares are 1 - P(the other cooperates) after it cooperates, and 0 after it defects. Stated for R > S and
    T > P.

    Args:
        start: [..., 2] first probabilities; temptation, sucker: T and S, [...].
        num_steps: steps of gradient ascent, each of learning_rate / (1 - gamma).
    """

    def slope(own: Array, other: Array) -> Array:
        against_cooperator = other + (1 - own) - other * temptation
        return against_cooperator * other + (sucker + (1 - own) * temptation) * (1 - other)

    def step(theta: Array, _: Any) -> tuple[Array, None]:
        first, second = theta[..., 0], theta[..., 1]
        rise = jnp.stack([slope(first, second), slope(second, first)], axis=-1)
        return jnp.clip(theta + learning_rate / (1 - gamma) * rise, 0.0, 1.0), None

    return jax.lax.scan(step, start, None, length=num_steps)[0]
