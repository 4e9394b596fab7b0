"""Clean Up: apples grow only while somebody cleans the river, which pays nothing.

**Sources**: Hughes et al. 2018 (arXiv 1803.08884, "ssd") in the open-source code of its games; Leibo et
al. 2021 (arXiv 2107.06857, "mp1"); Agapiou et al. 2022 (arXiv 2211.13746, "mp2"), Melting Pot's substrate
clean_up. Rules and numbers were read in their code, maps are our own with the described regions and counts.

One step: bare orchard cells grow an apple each with probability apple_prob * min(1, (t - f) / (t - r)) at a
share f of dirty river cells, t the `depletion` and r the `restoration` threshold, none at f >= t;
dirt appears on one clean river cell; avatars move and turn, who enters the cell of an apple
eats it; beams are fired, and each ray of a cleaning beam cleans the first dirty cell; who was away
long enough appears. Two beams can clean the same cell at once, and both count. Dirt may be of several kinds
with a cleaning action each: `envs.clean_up_startup`.

Deviations: where the step's new apples and dirt read the river, they read it as it was before
the step; ssd tries clean cells in random order, each with probability p, until one succeeds, which is
one event with probability 1 - (1 - p)^n here.
Axes: A seats, D river cells, N orchard cells, K kinds of dirt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

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
    nth_true,
    occupied,
    ranks,
    rays,
    turned,
    uniform,
)
from envs.zap_game import ZapGame, Zaps, only_beams
from marl.environment import TimeStep

FLOOR, WALL, APPLE, WATER, DIRT = range(5)  # item codes
CLEAN = ZAP + 1
DIRT_RULES = ("one", "until_success")


class State(struct.PyTreeNode):
    """A game under way."""

    avatars: Avatars
    zaps: Zaps
    clean_cooldown: Array  # [A] int32, as `Zaps.cooldown`
    dirt: Array  # [D] bool, or uint8 where there are several kinds: 0 clean, 1 .. K
    apples: Array  # [N] bool
    time: Array  # [] int32 steps played


class CleanUp(ZapGame):
    """A river that gets dirty, an orchard that depends on it, and beams that clean and zap.

    obs["vector"]: how ready the zapping and the cleaning beam are, 0 to 1, and how many others cleaned in
    the last step. Events: `ate`, `cleaned` (cells), and those of `envs.zap_game`.
    """

    apple_reward: Any  # [] reward units of an apple
    apple_prob: Any  # [] of a bare orchard cell to grow one, a step, without dirt
    depletion: Any  # [] share of dirty cells from which on nothing grows
    restoration: Any  # [] share of dirty cells up to which apples grow at the full rate
    dirt_prob: Any  # [] that dirt appears, a step
    dirt_limit: Any  # [] share of dirty cells (of one kind) from which on no more dirt (of it) appears
    dirt_delay: int = struct.field(pytree_node=False)  # first steps without new dirt
    dirt_rule: str = struct.field(pytree_node=False)  # one of DIRT_RULES
    grows_under_avatars: bool = struct.field(pytree_node=False)
    clean_length: int = struct.field(pytree_node=False)  # cells of the cleaning beam
    clean_radius: int = struct.field(pytree_node=False)  # its rays to each side
    clean_cooldown: int = struct.field(pytree_node=False)  # as `cooldown`

    KINDS = 1  # of dirt
    ORDER = "DdAP"
    NUM_ACTIONS = 9
    ITEMS = 5
    FOOD = (APPLE,)
    BLOCKS = (WALL,)
    CHORE = ((DIRT,), (), CLEAN, 3, 1)
    STATUS = 3  # 1: zapped in the last step, 2: cleaned
    COLOURS = {
        WALL: ("wall", (96, 92, 88)),
        APPLE: ("apple", (46, 139, 87)),
        WATER: ("water", (140, 190, 230)),
        DIRT: ("dirt", (140, 105, 60)),
    }

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        super().check()
        if self.dirt_rule not in DIRT_RULES:
            raise ValueError(f"env.dirt_rule={self.dirt_rule}: must be {' or '.join(DIRT_RULES)}")
        if not 0 <= self.restoration < self.depletion:
            wrong = f"env.restoration={self.restoration}: must lie in 0 .."
            raise ValueError(f"{wrong} env.depletion={self.depletion}, below it")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """The map's dirt (letter D), no apples."""
        state, none = self.first(key), jnp.zeros(self.num_players, jnp.int32)
        over = jnp.bool_(False), jnp.bool_(False)
        return state, self._look(state, none, none, none, jnp.zeros(self.num_players), over)

    def first(self, key: Array) -> State:
        """The state before the first step."""
        num, board = self.num_players, self.board
        dirt = jnp.asarray((board.letters == "D")[board.sites("Dd")])
        avatars, none = self.start(*draw(key, (2, num))), jnp.zeros(num, jnp.int32)
        return State(avatars, Zaps.none(num), none, dirt, jnp.zeros(board.count("A"), bool), jnp.int32(0))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Grow, get dirty, move, eat, fire, clean, appear; `action` is [A] int."""
        board, num, orchard = self.board, self.num_players, self.board.sites("A")
        sizes = (num,), (2, num), state.apples.shape, (1 + self.KINDS,), ()
        order, places, growth, soiling, end = draw(key, *sizes)
        free = self.free(state)
        act = only_beams(action, free)
        apples = state.apples | self._grown(growth, state)
        dirt = state.dirt | self._soiled(soiling, state)
        cell = moved(state.avatars.cell, goals(board, state.avatars, act), ranks(order))
        ate = (cell != state.avatars.cell) & at_site(apples, orchard, cell)
        apples &= ~occupied(jnp.where(ate, cell, board.nowhere), orchard)
        avatars = turned(state.avatars, act).replace(cell=cell)
        fires, zaps = self.zap(avatars, state.zaps, act, free)
        cleans = avatars.present(board) & (state.clean_cooldown <= 1) & (act >= CLEAN)
        state = state.replace(
            avatars=avatars,
            zaps=zaps,
            clean_cooldown=counted(state.clean_cooldown, cleans, self.clean_cooldown + 1),
            dirt=dirt,
            apples=apples,
            time=state.time + 1,
        )
        state, cleaned = self.clean(state, jnp.where(cleans, act - CLEAN + 1, 0))
        state, fine = self.punish(places, state)
        reward = self.apple_reward * ate - self.zap_cost * fires - fine
        did = jnp.where(cleans, act - CLEAN + 2, fires.astype(jnp.int32))
        return state, self._look(state, did, ate, cleaned, reward, self.over(end, state.time))

    def shares(self, state: State) -> Array:
        """[K] share of river cells with dirt of each kind."""
        return jnp.stack([(state.dirt == kind).mean() for kind in range(1, self.KINDS + 1)])

    def _grown(self, bits: Array, state: State) -> Array:
        """[N] bool, bare orchard cells that grow an apple."""
        free = (self.depletion - self.shares(state).min()) / (self.depletion - self.restoration)
        grows = ~state.apples & happens(bits, self.apple_prob * jnp.clip(free, 0, 1))
        if self.grows_under_avatars:
            return grows
        return grows & ~occupied(state.avatars.cell, self.board.sites("A"))

    def _soiled(self, bits: Array, state: State) -> Array:
        """[D] as `dirt`, what appears on a clean river cell, if anything; bits [1 + K] uint32."""
        clean, prob = state.dirt == 0, self.dirt_prob
        if self.dirt_rule == "until_success":
            prob = 1 - (1 - prob) ** clean.sum()
        number = (uniform(bits[2]) * self.KINDS).astype(jnp.int32) if self.KINDS > 1 else 0
        due = (state.time >= self.dirt_delay) & (self.shares(state)[number] < self.dirt_limit)
        appears = (np.arange(len(clean)) == nth_true(clean, bits[0])) & due & happens(bits[1], prob)
        return appears * jnp.asarray(number + 1, state.dirt.dtype)

    def clean(self, state: State, kind: Array) -> tuple[State, Array]:
        """The state after everyone cleaned dirt of `kind` [A], 0 for nobody's, and how many cells [A]."""
        river = self.board.sites("Dd")
        lanes = rays(self.beam_of(self.clean_length, self.clean_radius), state.avatars)
        wanted = kind[:, None, None]
        reached = is_first((at_site(state.dirt, river, lanes) == wanted) & (wanted > 0))
        freed = occupied(jnp.where(reached, lanes, self.board.nowhere).ravel(), river)
        return state.replace(dirt=state.dirt * ~freed), reached.sum((1, 2))

    def fired(self, state: State) -> Iterable[tuple[Array, np.ndarray]]:
        """The zaps and cleaning beams of the last step."""
        cleaning = self.beam_of(self.clean_length, self.clean_radius)
        return [*super().fired(state), (state.clean_cooldown == self.clean_cooldown + 1, cleaning)]

    def items(self, state: State) -> Array:
        """[C] uint8 floor, wall, apple, water or, from DIRT on, dirt."""
        letters = self.board.letters
        still = np.where(letters == "W", WALL, np.where(letters == "S", WATER, FLOOR)).astype(np.uint8)
        river = state.dirt.astype(jnp.uint8) + jnp.uint8(WATER)
        return jnp.concatenate(
            [river, state.apples.astype(jnp.uint8) * APPLE, still[self.board.sites("A").stop :]]
        )

    def _look(
        self, state: State, did: Array, ate: Array, cleaned: Array, reward: Array, over: tuple
    ) -> TimeStep:
        """What is seen; `did` [A]: 0 nothing, 1 zapped in the last step, 1 + k cleaned dirt of kind k."""
        here = state.avatars.present(self.board)
        helped = (cleaned > 0).astype(jnp.float32)
        vector = jnp.concatenate(
            [
                self.readiness(state.avatars, state.zaps.cooldown, self.cooldown),
                self.readiness(state.avatars, state.clean_cooldown, self.clean_cooldown),
                jnp.where(here, helped.sum() - helped, 0)[:, None],
            ],
            axis=1,
        )
        events = self.facts(state, did, ate, cleaned) | self.zap_events(state)
        status = self.status(state, did)
        return self.observe(self.items(state), state.avatars, status, vector, reward, over, events)

    def status(self, state: State, did: Array) -> Array:
        """[A] code of the last layer, from `did` [A] as of a look."""
        return did

    def facts(self, state: State, did: Array, ate: Array, cleaned: Array) -> dict[str, Array]:
        """The events but those of zapping, each [A]."""
        return {"ate": ate, "cleaned": cleaned}
