"""What Q-learning computes with: exploration rates, one-step targets and losses.

**Sources**: Mnih et al. 2015 (Nature 518); double Q-learning of van Hasselt, Guez, Silver 2016 (arXiv
1509.06461, eq. 4). Axes: N actions, any axes before.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from marl.returns import align

CHOICES = {
    "loss": ("huber", "mse"),
    "epsilon_schedule": ("linear", "exponential"),
    "optimizer": ("adam", "sign"),
}


def epsilon_at(num_steps: Array, start: Any, end: Any, steps: Any, schedule: str) -> Array:
    """[...] probability of a random action after `num_steps` [] steps; start, end, steps [...].

    Linear: falls from `start` to `end` over `steps`, then stays. Exponential: end + (start - end)
    exp(-num_steps / steps).
    """
    start, end = jnp.asarray(start, jnp.float32), jnp.asarray(end, jnp.float32)
    over = num_steps / jnp.asarray(steps, jnp.float32)
    left = jnp.exp(-over) if schedule == "exponential" else jnp.maximum(1 - over, 0.0)
    return end + (start - end) * left


def q_optimizer(
    learning_rate: Any, max_grad_norm: Any, max_grad_value: Any, kind: str
) -> optax.GradientTransformation:
    """Gradients cut to a norm and, unless it is None, every number to a size; then `kind`, one of CHOICES.

    `sign` moves each parameter by the learning rate, as Adam does whose memory is lost after every step (so
    in effect the code of Sert et al. 2020, it seems); `adam` is what is recommended.
    """
    clips = [optax.clip_by_global_norm(max_grad_norm)]
    if max_grad_value is not None:
        clips.append(optax.clip(max_grad_value))
    rule = optax.adam(learning_rate) if kind == "adam" else optax.sign_sgd(learning_rate)
    return optax.chain(*clips, rule)


def q_target(
    chooser: Array,
    next_q: Array,
    mask: Array | None,
    reward: Array,
    terminated: Array,
    *,
    gamma: float | Array,
) -> Array:
    """One-step target r + gamma (1 - terminated) next_q[best legal action according to `chooser`].

    Args:
        chooser: [..., N] values that choose: the online network's for double Q-learning, else `next_q`.
        next_q: [..., N] values of the state reached, by the target network.
        mask: [..., N] bool, legal actions there; None: all.
        reward, terminated: [...]; gamma: discount.

    Returns:
        [...] targets.
    """
    legal = chooser if mask is None else jnp.where(mask, chooser, jnp.finfo(chooser.dtype).min)
    return reward + gamma * (1 - align(terminated, reward)) * value_of(next_q, legal.argmax(-1))


def q_loss(q: Array, action: Array, target: Array, *, kind: str) -> tuple[Array, dict[str, Array]]:
    """Mean loss of q [..., N] at action [...] against target [...], and scalar metrics.

    Kind huber: half the squared error up to 1, beyond that |error| - 1/2; mse: half the squared error.
    """
    value = value_of(q, action)
    error = target - value
    loss = optax.huber_loss(value, target) if kind == "huber" else 0.5 * jnp.square(error)
    return loss.mean(), {"td": loss.mean(), "td_error": jnp.abs(error).mean(), "q": value.mean()}


def value_of(q: Array, action: Array) -> Array:
    """[..., N] values and [...] actions -> [...] the values of the actions."""
    return jnp.where(jax.nn.one_hot(action, q.shape[-1], dtype=bool), q, 0.0).sum(-1)


def answer_prob(q: Array, action: Array, return_: Array, *, temperature: float | Array) -> Array:
    """Probability of the action taken by a softmax of what the actions are worth.

    Args:
        q: [..., N] values of the actions by a critic.
        action: [...] the action taken.
        return_: [...] what it turned out to be worth, in place of its value.
        temperature: of the softmax.

    Returns:
        [...] probabilities.
    """
    taken = jax.nn.one_hot(action, q.shape[-1], dtype=bool)
    return value_of(jax.nn.softmax(jnp.where(taken, return_[..., None], q) / temperature), action)
