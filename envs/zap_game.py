"""Grid games in which avatars zap each other: the beam, its cooldown, and being sent away for a while.

**Source**: as `envs.grid`. A shot at step t makes the next possible at t + cooldown + 1. Who is removed at
step t is not seen after the steps t .. t + removal - 1 and appears at the end of step t + removal.
Axes: A seats.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from envs.avatar_game import AvatarGame
from envs.grid import ZAP, Avatars, bits_of, counted, hits, rays, seats_of


class Zaps(struct.PyTreeNode):
    """What is remembered of zapping; bit j of a word stands for seat j."""

    cooldown: Array  # [A] int32 steps until the beam can be fired again, 0 or 1: at the next
    away: Array  # [A] int32 steps until a removed seat appears, 0: it is there
    in_range: Array  # [A] uint32, whom a beam of each seat would hit where all stand
    could_zap: Array  # [A] uint32, whom each seat had in range before the last step, its beam being ready
    zapped: Array  # [A] uint32, whom it hit in the last step, after all moved

    @classmethod
    def none(cls, num: int) -> Zaps:
        """Before the first step; num is A."""
        zero, nobody = jnp.zeros(num, jnp.int32), jnp.zeros(num, jnp.uint32)
        return cls(zero, zero, nobody, nobody, nobody)


class ZapGame(AvatarGame):
    """A game of avatars with a beam that sends others away, or fines them.

    Events: `zapped` and `was_zapped`, numbers of hits; `could_zap`, 1 if the seat saw somebody in range and
    its beam was ready; `away`, 1 while removed. `Zaps` in the state says who and whom. In the first step of an
    episode nobody is known to be in range.
    """

    zap_cost: Any  # [] reward units lost by who fires
    zap_penalty: Any  # [] reward units lost by who is hit, a hit
    beam_length: int = struct.field(pytree_node=False)  # cells; 0: a beam hits nobody
    beam_radius: int = struct.field(pytree_node=False)  # rays to each side
    cooldown: int = struct.field(pytree_node=False)  # steps between two shots in which none can be fired
    removal: int = struct.field(pytree_node=False)  # steps that who is hit is away; 0: stays

    @property
    def beam(self) -> np.ndarray:
        """The table of cells that a zap covers."""
        return self.beam_of(self.beam_length, self.beam_radius)

    def zap(
        self, avatars: Avatars, zaps: Zaps, action: Array, can: Array | bool = True
    ) -> tuple[Array, Zaps]:
        """Who fires [A] and the Zaps after it; of the avatars after the moves, those who `can` [A]."""
        here = avatars.present(self.board)
        ready = here & (zaps.cooldown <= 1) & can
        fires = ready & (action == ZAP)
        reach = hits(self.board, rays(self.beam, avatars), avatars)
        return fires, zaps.replace(
            cooldown=counted(zaps.cooldown, fires, self.cooldown + 1),
            in_range=reach,
            could_zap=jnp.where(ready, zaps.in_range & bits_of(here), 0),
            zapped=jnp.where(fires, reach, 0),
        )

    def send_away(self, bits: Array, avatars: Avatars, zaps: Zaps, who: Array) -> tuple[Avatars, Zaps]:
        """`who` [A] is removed, and those whose time is over appear; bits [2, A] uint32."""
        back = zaps.away == 1
        away = counted(zaps.away, who, self.removal)
        gone = avatars.replace(cell=jnp.where(who, self.board.nowhere, avatars.cell))
        return self.appear(bits, gone, back), zaps.replace(away=away)

    def fired(self, state: Any) -> Iterable[tuple[Array, np.ndarray]]:
        """The zaps of the last step."""
        return [(state.zaps.cooldown == self.cooldown + 1, self.beam)]

    def zap_events(self, zaps: Zaps) -> dict[str, Array]:
        """The events of zapping, each [A]."""
        return {
            "zapped": jax.lax.population_count(zaps.zapped),
            "was_zapped": seats_of(zaps.zapped).sum(0),
            "could_zap": zaps.could_zap > 0,
            "away": zaps.away > 0,
        }
