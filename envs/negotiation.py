"""The negotiation game: two seats with opposed values say how much of three items they want.

**Source**: the "high contrast" exchange game of Duque et al. 2025, "Advantage Alignment Algorithms"
(arXiv 2406.14662), rules read in the authors' code. Every step is one complete negotiation of one
simultaneous proposal each: seat 1 gets p1 / max(5, p1 + p2) of an item, and the points are divided
by 15 = 5 * 3. The observation of 15 numbers is theirs.

Deviations: proposals outside the bounds are cut by the loop, where the authors squash them by
tanh. Of the rule `proportion`, p1 / (p1 + p2), which their code has too, 0 / 0 is not told: here an
item that nobody asks for is lost. The events follow no paper. Axes: A = 2 seats, I = 3 items.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from envs.item_division import NUM_ITEMS, ItemDivision


class Negotiation(ItemDivision):
    """Each item is of high value to one seat and of low value to the other, by a fair coin."""

    def draw_high(self, key: Array) -> Array:
        """[2, 3] bool, which items each seat values high: all 8 draws are equally likely."""
        first = (jax.random.bits(key) >> np.arange(NUM_ITEMS, dtype=np.uint32)) & 1
        return jnp.stack([first == 1, first == 0])
