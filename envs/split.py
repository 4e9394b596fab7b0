"""Split without communication: two seats divide hats, books and balls of values that both know.

**Source**: the game "Split" (NoPress, values 10 and 1 with ties) of Piche et al. 2025, "Learning Robust
Social Strategies with LLMs" (arXiv 2511.19405), rules read in the authors' code. In every round each
kind of item is worth 1 or 10 points to each seat, drawn anew until the values of both seats have
the same sum and differ in at least one kind; here one of the 12 such draws is taken at once,
which is the same. Seat 1 gets 10 * p1 / max(10, p1 + p2) of a kind.

Deviations: proposals are numbers of a small action space, not text. Rewards are divided by
`reward_scale`, 100 as in the authors' learner (1 gives the points of their game). The last round's
values are shown, without which the last proposals say little; the authors' models read the whole
past. Axes: A = 2 seats, I = 3 kinds.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from envs.item_division import NUM_ITEMS, ItemDivision


def _admissible() -> np.ndarray:
    """[12, 2, 3] bool, all draws of equal sums that are not the same for both seats."""
    rows = list(itertools.product((False, True), repeat=NUM_ITEMS))
    return np.array([(a, b) for a in rows for b in rows if sum(a) == sum(b) and a != b])


DRAWS = _admissible()


class Split(ItemDivision):
    """Each round has one kind that is worth more to seat 0, one worth more to seat 1, and one tie.

    Further events: `asked_when_lower` and `asked_when_higher`, the proposal for the kind that is
    worth less (more) to the seat than to the other; their means per step are mean proposals.
    """

    def draw_high(self, key: Array) -> Array:
        """[2, 3] bool, which kinds each seat values high: one of the admissible draws (within 1e-6)."""
        number = (jax.random.uniform(key) * len(DRAWS)).astype(jnp.int32)
        return jnp.asarray(DRAWS)[number]

    def events(self, value: Array, proposal: Array, points: Array) -> dict[str, Array]:
        """What the seats did, each [2] float32; value and proposal [2, 3], points [2]."""
        other = value[::-1]
        asked = {
            "asked_when_lower": (proposal * (value < other)).sum(-1),
            "asked_when_higher": (proposal * (value > other)).sum(-1),
        }
        return super().events(value, proposal, points) | asked
