"""Allelopathic Harvest: a colour of berries ripens faster the more there is of it; tastes differ.

**Sources**: Koster et al. 2020 (arXiv 2010.09054), in the versions of Leibo et al. 2021 (arXiv 2107.06857,
"mp1") and Agapiou et al. 2022 (arXiv 2211.13746, "mp2"), Melting Pot's substrate allelopathic_harvest__open,
whose rules and numbers were read in its code. The map is our own with the described counts.

One step: who was condemned in the last step is removed; berries that did not change for `berry_rest` steps
ripen with probability ripen_linear * n + ripen_cubic * n^3, n the berries of their colour, ripe or not;
avatars move and turn, who enters the cell of a ripe berry eats it, and may turn grey (with probability 1 -
the share of the commonest colour); beams are fired. A planting beam ends at the first berry or avatar,
and recolours an unripe berry of another colour there, which paints the body of who planted. A zap freezes and
marks its victim, and one of who is marked costs and condemns it (`envs.graduated_zap_game`); who was
removed appears grey. Who is frozen can plant.

Deviations and doubts: those of the graduated zap; of several who plant on a berry in one step all are
painted, and the last in the step's random order decides its colour; a berry under an avatar can be
planted; the preferred colour, which the sources show by the reward alone, is part of the observation.
Axes: A seats, N berries, C cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from envs.graduated_zap_game import GraduatedZapGame, Sanctioned
from envs.grid import (
    ZAP,
    Avatars,
    at_site,
    counted,
    draw,
    goals,
    happens,
    is_first,
    moved,
    occupied,
    ranks,
    rays,
    turned,
)
from envs.zap_game import only_beams
from marl.environment import TimeStep
from marl.render import BLUE, GREEN, RED

COLOUR_NAMES = ("red", "green", "blue")
PLANT = ZAP + 1  # first of three actions
PREFERENCES = ("halves", "alternating", *COLOUR_NAMES)
UNRIPE, RIPE = 1, 4  # item codes of the first colour


class Berries(struct.PyTreeNode):
    """The berries."""

    colour: Array  # [N] uint8, number in COLOUR_NAMES
    ripe: Array  # [N] bool
    rest: Array  # [N] uint8, steps until it can ripen


class State(Sanctioned):
    """A game under way."""

    plant_cooldown: Array  # [A] int32, as `Zaps.cooldown`
    body: Array  # [A] int32, 0 grey, 1 + number in COLOUR_NAMES
    berries: Berries
    time: Array  # [] int32 steps played


class AllelopathicHarvest(GraduatedZapGame):
    """Berries of three colours on a torus, planting, and sanctions that mark before they remove.

    obs["vector"]: how ready the zapping and the planting beam are, 0 to 1, and the preferred colour as
    one of three. The status layer is body + 4 * marked + 8 * (1 zapped in the last step, 2 planted).
    Events: `ate`, `ate_preferred`, `planted`, `monoculture` (the commonest colour's share of all berries),
    `red_share` .. `blue_share` (each colour's), `hit_grey` .. `hit_blue` (zaps received with a body of that
    colour), and those of `envs.graduated_zap_game`.
    """

    berry_reward: Any  # [] reward units of a berry
    preferred_reward: Any  # [] reward units of a berry of the preferred colour
    ripen_linear: Any  # [] probability of ripening, a step, for each berry of the colour
    ripen_cubic: Any  # [] the same for the third power of their number
    preference: str = struct.field(pytree_node=False)  # one of PREFERENCES
    berry_rest: int = struct.field(pytree_node=False)  # steps after a change in which a berry cannot ripen
    plant_length: int = struct.field(pytree_node=False)  # cells of the planting beam
    plant_cooldown: int = struct.field(pytree_node=False)  # as `cooldown`

    TORUS = True
    WALLS = ""
    ORDER = "rgb."
    STARTS = "."
    NUM_ACTIONS = PLANT + 3
    ITEMS = 7
    STATUS = 24
    FOOD = (RIPE, RIPE + 1, RIPE + 2)
    CHORE = ((UNRIPE + 1, UNRIPE + 2), (UNRIPE, *FOOD), PLANT, 3, 1)  # red everywhere
    COLOURS = {
        code + i: (kind, colour)
        for code, kind in ((UNRIPE, "ring"), (RIPE, "apple"))
        for i, colour in enumerate((RED, GREEN, BLUE))
    }

    @property
    def preferred(self) -> np.ndarray:
        """[A] int32, number in COLOUR_NAMES that each seat prefers."""
        seat = np.arange(self.num_players)
        if self.preference in COLOUR_NAMES:
            return np.full(self.num_players, COLOUR_NAMES.index(self.preference), np.int32)
        return (seat % 2 if self.preference == "alternating" else 2 * seat // self.num_players).astype(
            np.int32
        )

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        super().check()
        if self.preference not in PREFERENCES:
            allowed = ", ".join(PREFERENCES)
            raise ValueError(f"env.preference={self.preference}: must be one of {allowed}")
        if not 0 <= self.berry_rest <= 255:
            raise ValueError(f"env.berry_rest={self.berry_rest}: must lie in 0 .. 255")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """All berries are unripe and as the map says, all bodies grey."""
        num, letters = self.num_players, self.board.letters[self.board.sites("rgb")]
        avatars, none = self.start(*draw(key, (2, num))), jnp.zeros(num, jnp.int32)
        berries = Berries(
            jnp.asarray(["rgb".index(letter) for letter in letters], jnp.uint8),
            jnp.zeros(len(letters), bool),
            jnp.full(len(letters), self.berry_rest, jnp.uint8),
        )
        over = jnp.bool_(False), jnp.bool_(False)
        state = State(
            avatars=avatars,
            plant_cooldown=none,
            body=none,
            berries=berries,
            time=jnp.int32(0),
            **self.unsanctioned(),
        )
        nothing = dict.fromkeys(("ate", "ate_preferred", "planted"), none)
        return state, self._look(state, none, nothing, none, over)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Remove, ripen, move, eat, fire, plant, appear; `action` is [A] int."""
        board, num, sites = self.board, self.num_players, self.board.sites("rgb")
        shapes = (num,), (2, num), state.berries.ripe.shape, (num,), ()
        order, places, ripening, paling, end = draw(key, *shapes)
        rank = ranks(order)
        state = self.banish(state)
        free, count = self.free(state), _counts(state.berries.colour)
        berries = self._ripened(ripening, state.berries, count)
        act = only_beams(action, free)
        cell = moved(state.avatars.cell, goals(board, state.avatars, act), rank)
        ate = (cell != state.avatars.cell) & at_site(berries.ripe, sites, cell)
        preferred = ate & (at_site(berries.colour, sites, cell) == self.preferred)
        berries = self._changed(berries, occupied(jnp.where(ate, cell, board.nowhere), sites), berries.colour)
        body = jnp.where(ate & ~happens(paling, count.max() / count.sum()), 0, state.body)
        avatars = turned(state.avatars, act).replace(cell=cell)
        fires, zaps = self.zap(avatars, state.zaps, act, free)
        plants = avatars.present(board) & (state.plant_cooldown <= 1) & (act >= PLANT)
        berries, planted = self._planted(berries, avatars, act - PLANT, plants, rank)
        state = state.replace(
            avatars=avatars,
            zaps=zaps,
            plant_cooldown=counted(state.plant_cooldown, plants, self.plant_cooldown + 1),
            body=jnp.where(planted, act - PLANT + 1, body),
            berries=berries,
            time=state.time + 1,
        )
        state, fine = self.punish(places, state)
        did = jnp.where(fires, 1, jnp.where(plants, 2, 0))
        gained = self.berry_reward * (ate & ~preferred) + self.preferred_reward * preferred
        reward = gained - self.zap_cost * fires - fine
        events = {"ate": ate, "ate_preferred": preferred, "planted": planted}
        return state, self._look(state, did, events, reward, self.over(end, state.time))

    def banish(self, state: State) -> State:
        """As in other games of graduated zaps; who leaves will be grey."""
        return super().banish(state).replace(body=state.body * ~state.condemned)

    def _ripened(self, bits: Array, berries: Berries, count: Array) -> Berries:
        """The berries after some ripened; bits [N] uint32, `count` [3] of each colour."""
        prob = self.ripen_linear * count + self.ripen_cubic * count.astype(jnp.float32) ** 3
        rest = jnp.maximum(berries.rest, 1) - 1
        chance = jnp.where(berries.colour == 0, prob[0], jnp.where(berries.colour == 1, prob[1], prob[2]))
        return berries.replace(rest=rest, ripe=berries.ripe | (rest == 0) & happens(bits, chance))

    def _changed(self, berries: Berries, which: Array, colour: Array) -> Berries:
        """The berries after `which` [N] became unripe ones of `colour` [N]."""
        rest = jnp.where(which, jnp.uint8(self.berry_rest), berries.rest)
        return Berries(jnp.where(which, colour, berries.colour), berries.ripe & ~which, rest)

    def _planted(
        self, berries: Berries, avatars: Avatars, colour: Array, plants: Array, rank: Array
    ) -> tuple[Berries, Array]:
        """The berries after `plants` [A] fired beams of `colour` [A], and who planted [A] bool."""
        num_berries = berries.ripe.shape[0]
        cells = rays(self.beam_of(self.plant_length, 0), avatars)[:, 0]  # [A, L]
        seats = (cells[..., None] == avatars.cell).any(-1)
        reached = is_first(seats | (cells < num_berries)) & (cells < num_berries)
        site = jnp.where(reached, cells, num_berries).min(-1)
        every = slice(0, num_berries)
        other = at_site(berries.colour, every, site) != colour
        planted = plants & (site < num_berries) & ~at_site(berries.ripe, every, site) & other
        last = jnp.zeros(num_berries + 1, jnp.int32)
        last = last.at[jnp.where(planted, site, num_berries)].max(rank * 4 + colour + 1)[:-1]
        new = (last % 4 - 1).astype(jnp.uint8)
        return self._changed(berries, last > 0, new), planted

    def fired(self, state: State) -> Iterable[tuple[Array, np.ndarray]]:
        """The zaps and the planting beams of the last step."""
        plants = state.plant_cooldown == self.plant_cooldown + 1
        return [*super().fired(state), (plants, self.beam_of(self.plant_length, 0))]

    def items(self, state: State) -> Array:
        """[C] uint8 floor, unripe and ripe berries."""
        code = state.berries.colour + jnp.where(state.berries.ripe, jnp.uint8(RIPE), jnp.uint8(UNRIPE))
        return jnp.concatenate([code, np.zeros(self.board.nowhere - code.shape[0], np.uint8)])

    def _look(self, state: State, did: Array, events: dict, reward: Array, over: tuple) -> TimeStep:
        num, avatars = self.num_players, state.avatars
        vector = jnp.concatenate(
            [
                self.readiness(avatars, state.zaps.cooldown, self.cooldown),
                self.readiness(avatars, state.plant_cooldown, self.plant_cooldown),
                np.eye(3, dtype=np.float32)[self.preferred] * avatars.present(self.board)[:, None],
            ],
            axis=1,
        )
        count = _counts(state.berries.colour)
        events = events | self.zap_events(state)
        events["monoculture"] = jnp.broadcast_to(count.max() / count.sum(), (num,))
        for k, name in enumerate(COLOUR_NAMES):
            events[f"{name}_share"] = jnp.broadcast_to(count[k] / count.sum(), (num,))
        for k, name in enumerate(("grey", *COLOUR_NAMES)):
            events[f"hit_{name}"] = events["was_zapped"] * (state.body == k)
        status = state.body + 4 * (state.mark > 0) + 8 * did
        return self.observe(self.items(state), avatars, status, vector, reward, over, events)


def _counts(colour: Array) -> Array:
    """[3] int32 berries of each colour, from [N] uint8."""
    return jnp.stack([(colour == k).sum(dtype=jnp.int32) for k in range(3)])
