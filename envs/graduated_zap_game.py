"""Grid games of zaps with graduated sanctions: a first hit freezes and marks, a second removes.

**Source**: the sanctions of Melting Pot's substrate allelopathic_harvest (Leibo et al. 2021, arXiv
2107.06857; Agapiou et al. 2022, arXiv 2211.13746), whose rules were read in its code. A zap freezes and marks
its victim: no move, turn or zap for `freeze` steps, while beams that a game adds can be fired; a mark fades
after `mark_steps`. A zap of who is marked costs it `zap_penalty` and condemns it: in the next step it is
removed, and it appears unmarked. Deviation: hits of one step count as one. Axes: A seats.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax.numpy as jnp
from flax import struct
from jax import Array

from envs.grid import Avatars, counted
from envs.zap_game import ZapGame, Zaps, num_hits


class Sanctioned(struct.PyTreeNode):
    """What the state of such a game holds, beside what a game adds."""

    avatars: Avatars
    zaps: Zaps
    frozen: Array  # [A] int32, steps without move, turn or zap that are to come
    mark: Array  # [A] int32, steps until the mark fades, 0: unmarked
    condemned: Array  # [A] bool, removed in the next step


S = TypeVar("S", bound=Sanctioned)


class GraduatedZapGame(ZapGame):
    """A game of zaps whose second hit counts; its steps begin with `banish`.

    Events, beside those of `envs.zap_game`: `frozen`, 1 while it lasts, and `condemned`.
    """

    freeze: int = struct.field(pytree_node=False)  # steps
    mark_steps: int = struct.field(pytree_node=False)  # steps

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        super().check()
        for name in ("freeze", "mark_steps"):
            if not 0 <= getattr(self, name) <= 255:
                raise ValueError(f"env.{name}={getattr(self, name)}: must lie in 0 .. 255")
        if self.removal < 1:
            raise ValueError(f"env.removal={self.removal}: must be at least 1")

    def unsanctioned(self) -> dict[str, Any]:
        """The fields of the state that concern zaps, before the first step."""
        none = jnp.zeros(self.num_players, jnp.int32)
        return {
            "zaps": Zaps.none(self.num_players),
            "frozen": none,
            "mark": none,
            "condemned": none > 0,
        }

    def banish(self, state: S) -> S:
        """The state after those who are condemned left the board, which `punish` still counts as such."""
        keep = ~state.condemned
        cell = jnp.where(keep, state.avatars.cell, self.board.nowhere)
        return state.replace(
            avatars=state.avatars.replace(cell=cell), frozen=state.frozen * keep, mark=state.mark * keep
        )

    def free(self, state: Sanctioned) -> Array:
        """[A] bool, who is not frozen."""
        return state.frozen == 0

    def punish(self, bits: Array, state: S) -> tuple[S, Array]:
        """Who was hit is frozen and marked, or condemned and fined; the banished appear in their time."""
        hit = num_hits(state.zaps) > 0
        condemned, marked = hit & (state.mark > 0), hit & (state.mark == 0)
        avatars, zaps = self.send_away(bits, state.avatars, state.zaps, state.condemned)
        state = state.replace(
            avatars=avatars,
            zaps=zaps,
            frozen=counted(state.frozen, marked, self.freeze),
            mark=counted(state.mark, marked, self.mark_steps),
            condemned=condemned,
        )
        return state, self.zap_penalty * condemned

    def zap_events(self, state: Sanctioned) -> dict[str, Array]:
        """The events of zapping and of its sanctions, each [A]."""
        sanctions = {"frozen": state.frozen > 0, "condemned": state.condemned}
        return super().zap_events(state) | sanctions
