"""Grid games of avatars that look somewhere, move, turn and fire beams: fields and parts they share.

**Source**: as `envs.grid`. An episode lasts `horizon` steps, or, with `end_prob` above 0, ends from then on
with that probability every `end_every` steps, at the latest after `max_steps`. A beam with a cooldown of c
steps that is fired at step t can be fired again at t + c + 1. Axes: A seats, C cells.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from envs.board import Board, load_board, sprites
from envs.grid import MAX_SEATS, Avatars, placed, uniform, view
from marl.environment import Environment, TimeStep
from marl.render import PALETTE, Thing, board


class AvatarGame(Environment):
    """What games of avatars have in common; subclasses say what is on the board and what beams do.

    obs["grid"] is uint8 [A, ahead + behind + 1, 2 * side + 1, 4], see `envs.grid.view`, and
    obs["vector"] what a game tells beside it. Who is away sees zeros.
    """

    end_prob: Any  # [] probability of the end every `end_every` steps from `horizon` on; 0: at `horizon`
    layout: str = struct.field(pytree_node=False)  # a map of envs/layouts, or the path of a .txt file
    num_players: int = struct.field(pytree_node=False)  # A
    horizon: int = struct.field(pytree_node=False)  # steps of an episode, see above
    end_every: int = struct.field(pytree_node=False)  # steps; 0: every episode ends at `horizon`
    max_steps: int = struct.field(pytree_node=False)  # steps of the longest episode
    ahead: int = struct.field(pytree_node=False)  # rows seen ahead
    behind: int = struct.field(pytree_node=False)  # rows seen behind
    side: int = struct.field(pytree_node=False)  # columns seen to each side

    WALLS = "W"  # letters of the map
    ORDER = ""  # letters whose cells are numbered first
    STARTS = "P"  # letters of cells where seats appear
    TORUS = False
    NUM_ACTIONS = 8
    ITEMS = 1  # codes of the first layer
    STATUS = 1  # codes of the last layer
    COLOURS = {}  # item code: kind of sprite and its colour
    # facts for scripted players, see `algos.foragers`
    FOOD = ()  # item codes that are eaten by entering their cell
    BLOCKS = ()  # item codes that nobody enters
    CHORE = ()  # or (item codes that want it, those that end its beam, action, cells, place in obs["vector"])

    all_legal = True

    @property
    def num_agents(self) -> int:
        """The players."""
        return self.num_players

    @property
    def action_space(self) -> spaces.Space:
        """Nothing, four moves, two turns, then beams."""
        return spaces.Discrete(self.NUM_ACTIONS)

    @property
    def grid_codes(self) -> tuple[int, ...]:
        """Codes of the layers item, seat, facing and status."""
        return (self.ITEMS, self.num_players + 1, 5, self.STATUS)

    @property
    def fixed_horizon(self) -> int | None:
        """The horizon, if every episode ends there."""
        return None if self.end_every else self.horizon

    @property
    def ends_every(self) -> int:
        """Steps; episodes end at multiples of them."""
        return self.end_every or self.horizon

    @property
    def board(self) -> Board:
        """The numbered cells."""
        return load_board(self.layout, self.WALLS, self.TORUS, self.ORDER)

    @property
    def window(self) -> np.ndarray:
        """The table of what is seen from where."""
        return _window(self.board, self.ahead, self.behind, self.side)

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        missing = [letter for letter in self.ORDER[:1] if not self.board.count(letter)]
        if missing:
            raise ValueError(f"env.layout={self.layout}: the map has no cell {missing[0]}")
        starts = self.board.count(self.STARTS)
        most = min(starts, MAX_SEATS - 1)
        if not 1 <= self.num_players <= most:
            where = f"env.layout={self.layout} has {starts} cells to start from"
            raise ValueError(f"env.num_players={self.num_players}: must lie in 1 .. {most}; {where}")
        for name in ("ahead", "behind", "side"):
            if getattr(self, name) < 0:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least 0")
        if self.horizon < 1:
            raise ValueError(f"env.horizon={self.horizon}: must be at least 1")
        if self.end_every and (self.horizon % self.end_every or self.max_steps % self.end_every):
            raise ValueError(
                f"env.end_every={self.end_every}: env.horizon={self.horizon} and "
                f"env.max_steps={self.max_steps} must be multiples of it"
            )

    def start(self, bits: Array) -> Avatars:
        """All seats on different random cells to start from, looking anywhere; bits [2, A] uint32."""
        nowhere = jnp.full(self.num_players, self.board.nowhere, jnp.int32)
        return self.appear(bits, Avatars(nowhere, jnp.zeros_like(nowhere)), nowhere == nowhere)

    def appear(self, bits: Array, avatars: Avatars, who: Array) -> Avatars:
        """`who` [A] appears on random free cells to start from, looking anywhere; bits [2, A] uint32."""
        starts = self.board.sites(self.STARTS)
        num_sites = starts.stop - starts.start
        inside = (avatars.cell >= starts.start) & (avatars.cell < starts.stop)
        site = jnp.where(inside, avatars.cell - starts.start, num_sites)
        found = placed(bits[0], site, who, num_sites) + starts.start
        facing = (uniform(bits[1]) * 4).astype(jnp.int32)
        return Avatars(jnp.where(who, found, avatars.cell), jnp.where(who, facing, avatars.facing))

    def over(self, bits: Array, time: Array) -> tuple[Array, Array]:
        """(terminated [], truncated []) after `time` steps; bits [] uint32."""
        if not self.end_every:
            return jnp.bool_(False), time >= self.horizon
        due = (time >= self.horizon) & (time % self.end_every == 0)
        cut = time >= self.max_steps
        return due & (uniform(bits) < self.end_prob) & ~cut, cut

    def beam_of(self, length: int, radius: int) -> np.ndarray:
        """The table of a beam."""
        return _beam(self.board, length, radius)

    def readiness(self, avatars: Avatars, cooldown: Array, steps: int) -> Array:
        """[A, 1] how far a beam with a cooldown of `steps` is ready, 0 to 1; 0 for who is away."""
        ready = jnp.clip(1 - (cooldown - 1) / max(steps, 1), 0, 1)
        return jnp.where(avatars.present(self.board), ready, 0)[:, None]

    def observe(
        self,
        item: Array,
        avatars: Avatars,
        status: Array,
        vector: Array,
        reward: Array,
        over: Any,
        events: Any,
    ) -> TimeStep:
        """The TimeStep of item codes [C], avatars, their status [A] and numbers [A, F]."""
        grid = view(self.board, self.window, item, avatars, status, (self.ahead, self.behind, self.side))
        return TimeStep(
            obs={"grid": grid, "vector": vector.astype(jnp.float32)},
            reward=jnp.asarray(reward, jnp.float32),
            terminated=over[0],
            truncated=over[1],
            action_mask=jnp.ones((self.num_players, self.NUM_ACTIONS), bool),
            events={name: jnp.asarray(count, jnp.float32) for name, count in events.items()},
        )

    def items(self, state: Any) -> Array:
        """[C] uint8 item code of each cell."""
        raise NotImplementedError("a game says what lies where")

    def fired(self, state: Any) -> Iterable[tuple[Array, np.ndarray]]:
        """For each kind of beam, who fired it in the last step [A] bool, and its table; for pictures."""
        return ()

    def picture(self, state: Any) -> np.ndarray:
        """The board with sprites; seats have eyes, and their last beams shade the ground in their colours.

        A beam is shown as far as walls let it go, also behind what it hit; that of who was removed is not.
        """
        rows, columns = self.board.row_column
        poses = np.asarray(state.avatars.cell) * 4 + np.asarray(state.avatars.facing)
        tints = [
            (rows[cell], columns[cell], PALETTE[seat % len(PALETTE)])
            for fires, table in self.fired(state)
            for seat in np.flatnonzero(np.asarray(fires))
            for cell in table[poses[seat]].ravel()
            if cell < self.board.nowhere
        ]
        things = sprites(self.board, self.items(state), self.COLOURS)
        seats = zip(np.asarray(state.avatars.cell), np.asarray(state.avatars.facing), strict=True)
        for seat, (cell, facing) in enumerate(seats):
            if cell < self.board.nowhere:
                colour = PALETTE[seat % len(PALETTE)]
                things.append(Thing(rows[cell], columns[cell], colour, f"avatar_{'nesw'[facing]}"))
        return board(*self.board.shape, things, tints)


@functools.lru_cache
def _window(board: Board, ahead: int, behind: int, side: int) -> np.ndarray:
    return board.window(ahead, behind, side)


@functools.lru_cache
def _beam(board: Board, length: int, radius: int) -> np.ndarray:
    return board.beam(length, radius)
