"""What the networks by which LASE judges others learn from (Kong et al. 2024, arXiv 2410.07863, eq. 4 and 5).

Axes: B samples, A seats, N actions; others of a seat by their offset d = 1 .. A-1, see
`marl.relation_networks`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from marl.relation_networks import Perspective, Planes, Relation


def relation_optimizer(policy: Any, value: Any, perspective: Any) -> optax.GradientTransformation:
    """Adam with the step sizes of a relation's policy, of its value and encoding, and of a perspective."""
    rates = {"policy": policy, "value": value, "perspective": perspective}
    return optax.multi_transform({name: optax.adam(rate) for name, rate in rates.items()}, _parts)


def expected_of(net: Relation, relation: Any, seen: Planes) -> Array:
    """[B, A-1, N] logits of what others do who see [B, A-1, ...]."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen)
    logits = net.apply(relation, flat, method="policy")
    return logits.reshape(*jax.tree.leaves(seen)[0].shape[:2], -1)


def relation_loss(
    net: Relation, guess: Perspective | None, params: Any, part: dict, *, ent_coef: Any, likeness: Any
) -> tuple[Array, dict]:
    """The sum of the losses of one learner on a minibatch, and each of them.

    Args:
        net: policy and value; guess: of what others see, None where nothing is guessed.
        params: {"relation", "perspective"}.
        part: planes, joint [B, A], and error, target, counts, log_prob, each [B].
        ent_coef, likeness: as the fields of LASE.
    """
    planes, joint, counts = part["planes"], part["joint"], part["counts"]
    logits, value = net.apply(params["relation"], planes, joint)
    log_pi = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_pi, joint[:, :1], axis=1)[:, 0]
    mean = lambda x: (x * counts).sum() / jnp.maximum(counts.sum(), 1)
    ratio = jax.lax.stop_gradient(jnp.minimum(jnp.exp(chosen - part["log_prob"]), 1.0))
    entropy = -(jnp.exp(log_pi) * log_pi).sum(-1).mean()
    found = {
        "relation_policy": -mean(ratio * part["error"] * chosen) - ent_coef * entropy,
        "relation_value": mean(0.5 * jnp.square(part["target"] - value)),
    }
    if guess is not None:
        guessed = guess.apply(params["perspective"], planes)
        expected = jax.nn.log_softmax(expected_of(net, jax.lax.stop_gradient(params["relation"]), guessed))
        act = -jnp.take_along_axis(expected, joint[:, 1:, None], axis=2).sum((1, 2)).mean()
        far = [jnp.abs(guessed[name] - planes[name][:, None]) for name in planes]
        far = sum(x.reshape(len(x), -1).sum(-1).mean() for x in far)
        found["perspective"] = (1 - likeness) * act + likeness * far
    return sum(found.values()), found


def _parts(params: Any) -> Any:
    """Which optimiser each parameter of {"relation", "perspective"} has."""

    def label(path: tuple, _: Any) -> str:
        names = [getattr(entry, "key", "") for entry in path]
        if names[0] == "perspective":
            return "perspective"
        return "policy" if names[2].startswith("policy") else "value"

    return jax.tree_util.tree_map_with_path(label, params)
