"""Advantage Alignment: a credit that rewards what helps those who were good to one, and hurts the others.

**Source**: Duque, Aghajohari, Cooijmans, Ciuca, Zhang, Gidel, Courville 2025, "Advantage alignment
algorithms" (arXiv 2406.14662). For two players the README of their code states
A*_t = A_t + beta gamma (sum_(k<t) gamma^(t-k) A_k) B_t with B the other's advantage (`discounted`);
with more players, and in all their proximal runs, the code has
A*_t = A_t + beta (mean_(k<t) A_k) (sum of the others' A_t) without gamma (`mean`). As there,
advantages are normalised before the product and not again after it (`algos.ppo` does so).
Their Coin Game code is the loss of LOQA, whose gradient has no gamma before the sum, a
`past_decay` of 0.9, one-step errors as one's own advantages (`algo.gae_lambda=0`) and Monte-Carlo
returns as the others' (`others_lambda` 1). Deviation: where a batch begins inside an episode
the past begins there too. Axes: T steps, E games, A seats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from marl.node import Node
from marl.returns import align

FORMS = ("discounted", "mean")
OTHERS = ("sum", "mean")
# Signs of (sum of one's own past advantages, the others' advantage now).
QUADRANTS = {"cooperative": (1, 1), "empathetic": (1, -1), "vengeful": (-1, 1), "spiteful": (-1, -1)}


class AdvantageAlignment(Node):
    """Own advantage plus beta times the product of one's own past and the others' present advantages."""

    beta: Any  # [] weight of the shaping term, 0 = none
    past_decay: Any  # [] `discounted`: further discount of one's own past a step, 1 = none
    others_lambda: Any  # [] gae_lambda of the others' advantages; None: as one's own
    form: str = struct.field(pytree_node=False)  # one of FORMS: how one's own past is summed
    extra_gamma: bool = struct.field(pytree_node=False)  # `discounted`: one more gamma before the sum
    others: str = struct.field(pytree_node=False)  # one of OTHERS: over all seats but one's own
    removed: tuple[str, ...] = struct.field(pytree_node=False)  # QUADRANTS without shaping term

    def check(self, num_seats: int) -> None:
        """Raise ValueError for an unknown choice, or if there are no others among `num_seats`."""
        for key, allowed in (("form", FORMS), ("others", OTHERS)):
            if getattr(self, key) not in allowed:
                wrong = f"algo.credit.{key}={getattr(self, key)}"
                raise ValueError(f"{wrong}: must be {' or '.join(allowed)}")
        unknown = [name for name in self.removed if name not in QUADRANTS]
        if unknown:
            raise ValueError(f"algo.credit.removed={unknown[0]}: must be among {', '.join(QUADRANTS)}")
        if num_seats < 2:
            raise ValueError("algo.credit: needs at least two learning seats; use credit: null for one")

    def __call__(
        self, advantage: Array, done: Array, *, gamma: float | Array, others: Array | None = None
    ) -> Array:
        """The aligned advantage.

        Args:
            advantage: [T, E, A] of each seat's own reward, normalised.
            done: [T, E] the episode ended with this step.
            gamma: discount.
            others: [T, E, A] the same by another estimator, for the place of the others'; None: `advantage`.

        Returns:
            [T, E, A] credit, constant for gradients.
        """
        others = advantage if others is None else others
        return jax.lax.stop_gradient(advantage + self.shaping(advantage, others, done, gamma=gamma))

    def shaping(self, advantage: Array, others: Array, done: Array, *, gamma: float | Array) -> Array:
        """[T, E, A] what is added to the advantage; arguments as of a call."""
        past = self.past(advantage, done, gamma=gamma)
        present = others.sum(-1, keepdims=True) - others
        if self.others == "mean":
            present = present / max(advantage.shape[-1] - 1, 1)
        keep = jnp.ones(advantage.shape, bool)
        for name in self.removed:
            first, second = QUADRANTS[name]
            keep &= (jnp.sign(past) != first) | (jnp.sign(present) != second)
        return jnp.where(keep, self.beta * past * present, 0.0)

    def past(self, advantage: Array, done: Array, *, gamma: float | Array) -> Array:
        """[T, E, A] each seat's own advantages earlier in the episode, summed or averaged; 0 at its start."""
        if self.form == "mean":
            count = _before(jnp.ones_like(advantage), done, 1.0)
            return _before(advantage, done, 1.0) / jnp.maximum(count, 1.0)
        past = _before(gamma * advantage, done, gamma * self.past_decay)
        return gamma * past if self.extra_gamma else past


def _before(x: Array, done: Array, decay: float | Array) -> Array:
    """[T, E, A]: y_t = (1 - done_(t-1)) (x_(t-1) + decay y_(t-1)), y_0 = 0; `done` is [T, E]."""

    def forward(y: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        x, goes_on = now
        return goes_on * (x + decay * y), y

    return jax.lax.scan(forward, jnp.zeros_like(x[0]), (x, 1 - align(done, x)), unroll=8)[1]
