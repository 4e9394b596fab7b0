"""What others think of a seat: points for what it did to others.

**Source**: Dasgupta and Musolesi 2023 (arXiv 2301.08278), increments as their code has them. Axes: N seats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.validation import require_choices

UPDATES = ("none", "play", "punishment", "both")
SCALES = ("sum", "mean")
STAGES = ("play", "punishment")


class Scores(struct.PyTreeNode):
    """Row i is what seat i thinks of all seats."""

    points: Array  # [N, N] float32
    acts: Array  # [N] float32 acts of a seat behind them

    @classmethod
    def none(cls, num_players: int) -> Scores:
        """Before anybody acted."""
        return cls(jnp.zeros((num_players, num_players)), jnp.zeros(num_players))


class Reputation(struct.PyTreeNode):
    """Which acts give how many points, whose views they change, and who sees them.

    Without `individual` all views are the same and a seat sees its own reputation too. With it, each seat has
    views of the others, in which two more things count: being punished, and being avenged.
    """

    cooperated: Any  # [] points
    defected: Any  # []
    just: Any  # [] for punishing a defector
    unjust: Any  # [] for punishing a cooperator
    persecutor: Any  # [] in the victim's view of a punisher (individual)
    avenger: Any  # [] in the victim's opponent's view of who punishes a defector (individual)
    updated_by: str = struct.field(pytree_node=False)  # one of UPDATES
    individual: bool = struct.field(pytree_node=False)
    seen_in: tuple[str, ...] = struct.field(pytree_node=False)  # of STAGES, besides the selection
    scale: str = struct.field(pytree_node=False)  # shown are sums of points, or means over acts

    def check(self) -> None:
        """Raise ValueError for an unknown choice."""
        require_choices(self, "env.reputation", {"updated_by": UPDATES, "scale": SCALES})
        unknown = [stage for stage in self.seen_in if stage not in STAGES]
        if unknown:
            raise ValueError(f"env.reputation.seen_in: {unknown[0]} is none of {', '.join(STAGES)}")

    def sees(self, stage: str) -> bool:
        """Whether reputations are seen in `stage`, one of STAGES."""
        return stage in self.seen_in

    def after_play(self, scores: Scores, cooperated: Array, defected: Array) -> Scores:
        """Count moves, [N] bool each."""
        if self.updated_by not in ("play", "both"):
            return scores
        points = self.cooperated * cooperated + self.defected * defected
        return self._add(scores, points, cooperated | defected)

    def after_judgement(
        self, scores: Scores, justly: Array, unjustly: Array, victim: Array, rival: Array
    ) -> Scores:
        """Count punishments [N] bool, just and unjust, of `victim` [], whose opponent is `rival` []."""
        if self.updated_by not in ("punishment", "both"):
            return scores
        acts, seats = justly | unjustly, np.arange(justly.shape[0])[:, None]
        scores = self._add(scores, self.just * justly + self.unjust * unjustly, acts)
        if not self.individual:
            return scores
        single = self.persecutor * (seats == victim) * acts + self.avenger * (seats == rival) * justly
        return scores.replace(points=scores.points + single)

    def _add(self, scores: Scores, points: Array, acts: Array) -> Scores:
        num = points.shape[0]
        views = 1 - np.eye(num, dtype=np.float32) if self.individual else np.ones((num, num), np.float32)
        return Scores(scores.points + views * points, scores.acts + acts)

    def shown(self, scores: Scores) -> Array:
        """[N, N] what seat i sees of all seats."""
        return scores.points if self.scale == "sum" else scores.points / jnp.maximum(scores.acts, 1)
