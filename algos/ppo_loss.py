"""The loss of proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347, eq. 7 and 9)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from marl.distributions import Distribution


def ppo_loss(
    pi: Distribution,
    value: Array,
    batch: dict[str, Array],
    *,
    clip_eps: float | Array,
    vf_coef: float | Array,
    ent_coef: float | Array,
    value_clip_eps: float | Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Clipped surrogate plus value and entropy terms (Schulman et al. 2017, eq. 9).

    Args:
        pi: current action distribution over [...], illegal actions masked.
        value: [...] current value.
        batch: `action`, `log_prob`, `credit` and `target`, each [...]; `value`, the old one, if values are
            clipped.
        clip_eps: bound of the ratio; vf_coef, ent_coef: weights of the terms.
        value_clip_eps: how far a value may leave the old one before its error counts as at least that of
            the value at the bound (the larger error of the two counts); None: any way.

    Returns:
        loss [], and scalar metrics.
    """
    log_prob = pi.log_prob(batch["action"])
    ratio = jnp.exp(log_prob - batch["log_prob"])
    clipped = jnp.clip(ratio, 1 - clip_eps, 1 + clip_eps)
    pi_loss = -jnp.minimum(ratio * batch["credit"], clipped * batch["credit"]).mean()
    error = jnp.square(value - batch["target"])
    if value_clip_eps is not None:
        near = batch["value"] + jnp.clip(value - batch["value"], -value_clip_eps, value_clip_eps)
        error = jnp.maximum(error, jnp.square(near - batch["target"]))
    vf_loss = 0.5 * error.mean()
    entropy = pi.entropy().mean()
    loss = pi_loss + vf_coef * vf_loss - ent_coef * entropy
    kl = (batch["log_prob"] - log_prob).mean()
    return loss, {"policy": pi_loss, "value_error": vf_loss, "entropy": entropy, "kl": kl}
