"""Who may punish a move, and what it does.

**Source**: Dasgupta and Musolesi 2023 (arXiv 2301.08278), numbers as their code has them: who punishes
justly is paid, in the costly variant it pays. Axes: N seats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.validation import require_choices

KINDS = ("none", "direct", "third_party", "both")


class Punishment(struct.PyTreeNode):
    """By the other player, by a third seat, or by either."""

    fine: Any  # [] reward units that a victim loses a punisher
    just_reward: Any  # [] reward units of who punishes a defector
    unjust_reward: Any  # [] reward units of who punishes a cooperator
    kind: str = struct.field(pytree_node=False)  # one of KINDS

    def check(self) -> None:
        """Raise ValueError for an unknown kind."""
        require_choices(self, "env.punishment", {"kind": KINDS})

    @property
    def num_punishers(self) -> int:
        """Seats that may punish one move."""
        return {"none": 0, "both": 2}.get(self.kind, 1)

    def may(self, rival: Array, third: Array, num_players: int) -> Array:
        """[N] bool, who may punish a move against `rival` [], with the third party `third` []."""
        seats = np.arange(num_players)
        direct = (seats == rival) & (self.kind in ("direct", "both"))
        return direct | ((seats == third) & (self.kind in ("third_party", "both")))

    def reward(self, acts: Array, victim: Array, just: Array) -> Array:
        """[N] float32 of all seats, where `acts` [N] bool punish `victim` []; `just` []: it had defected."""
        loss = self.fine * acts.sum() * (np.arange(acts.shape[0]) == victim)
        return acts * jnp.where(just, self.just_reward, self.unjust_reward) - loss
