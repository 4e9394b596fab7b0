"""What seats did in an episode, and what a choice of partner says about it.

**Source**: the analysis code of Dasgupta and Musolesi 2023 (arXiv 2301.08278). Axes: N seats.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array


class Counts(struct.PyTreeNode):
    """Of one episode; [N] float32 each."""

    cooperated: Array
    defected: Array
    just: Array  # punishments of defectors
    unjust: Array

    @classmethod
    def none(cls, num_players: int) -> Counts:
        """Nothing yet."""
        return cls(*[jnp.zeros(num_players)] * 4)

    def add(self, **acts: Array) -> Counts:
        """Count acts [N] by name."""
        return self.replace(**{name: getattr(self, name) + act for name, act in acts.items()})


class Record(struct.PyTreeNode):
    """The episode under way, and the one before."""

    now: Counts
    before: Counts
    spared: Array  # [N] bool, the last decision whether to punish was no

    @classmethod
    def none(cls, num_players: int) -> Record:
        """Nothing yet; nobody has punished."""
        counts = Counts.none(num_players)
        return cls(counts, counts, jnp.ones(num_players, bool))

    def turned(self, begins: Array) -> Record:
        """The same, or where an episode `begins` [] a new page."""
        choose = lambda new, old: jax.tree.map(lambda x, y: jnp.where(begins, x, y), new, old)
        nothing = jax.tree.map(jnp.zeros_like, self.now)
        return self.replace(now=choose(nothing, self.now), before=choose(self.now, self.before))

    def of_partners(self, partner: Array) -> dict[str, Array]:
        """Events [N] bool of seats that chose `partner` [N]: what that partner did in the episode before.

        chose_cooperator: it cooperated as often as it defected, or more often; chose_punisher: it punished
        when it could last; chose_just_punisher: it punished, justly as often as not, or more often.
        """
        last = self.before
        punished = last.just + last.unjust > 0
        facts = {
            "chose_cooperator": last.cooperated >= last.defected,
            "chose_punisher": ~self.spared,
            "chose_just_punisher": punished & (last.just >= last.unjust),
        }
        return {"chose": jnp.ones(partner.shape[0], bool)} | {k: v[partner] for k, v in facts.items()}
