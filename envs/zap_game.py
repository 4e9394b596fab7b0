"""Grid games in which avatars zap each other: the beam, its cooldown, and being sent away for a while.

**Source**: as `envs.grid`. A shot at step t makes the next possible at t + cooldown + 1. Who is removed at
step t is not seen after the steps t .. t + removal - 1 and appears at the end of step t + removal. What a hit
does is `punish`; `envs.graduated_zap_game` has another rule. Axes: A seats.
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
from envs.grid import NOOP, ZAP, Avatars, bits_of, counted, hits, rays, seats_of


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
    its beam was ready (never in the first step of an episode); `away`, 1 while removed. `Zaps` in the state
    says who and whom.
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

    def free(self, state: Any) -> Array:
        """[A] bool, who can move, turn and zap: here all."""
        return jnp.ones(self.num_players, bool)

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

    def punish(self, bits: Array, state: Any) -> tuple[Any, Array]:
        """The state after who was hit is sent away and others are back, and what each seat loses [A].

        `state` is that after the beams; bits [2, A] uint32.
        """
        count = num_hits(state.zaps)
        gone = (count > 0) & (self.removal > 0)
        avatars, zaps = self.send_away(bits, state.avatars, state.zaps, gone)
        return state.replace(avatars=avatars, zaps=zaps), self.zap_penalty * count

    def fired(self, state: Any) -> Iterable[tuple[Array, np.ndarray]]:
        """The zaps of the last step."""
        return [(state.zaps.cooldown == self.cooldown + 1, self.beam)]

    def zap_events(self, state: Any) -> dict[str, Array]:
        """The events of zapping, each [A]."""
        zaps = state.zaps
        return {
            "zapped": jax.lax.population_count(zaps.zapped),
            "was_zapped": num_hits(zaps),
            "could_zap": zaps.could_zap > 0,
            "away": zaps.away > 0,
        }


def num_hits(zaps: Zaps) -> Array:
    """[A] int32, how many hit each seat in the last step."""
    return seats_of(zaps.zapped).sum(0)


def only_beams(action: Array, free: Array) -> Array:
    """[A] `action` [A] where `free` [A] bool or it is a beam that a game adds, else nothing."""
    return jnp.where(free | (action > ZAP), action, NOOP)
