"""The Coin Game: two seats, red and blue, collect coins of their own colour and may take the other's.

**Sources**: Lerer and Peysakhovich 2017 (arXiv 1707.01068) in the versions of LOLA (Foerster et al.
2018, arXiv 1709.04326), M-FOS (Lu et al. 2022, arXiv 2205.01447), pax, POLA (Zhao et al. 2022, arXiv
2210.10125), LOQA (Aghajohari et al. 2024, arXiv 2405.01035), MATE (Phan et al. 2022) and LASE (Kong et
al. 2024, arXiv 2410.07863). Their rules were read in their code, those of LASE in the paper.
Presets: `coin_game` (LOQA's rules, also those of Advantage Alignment) and `coin_game_NAME`.

One step: both seats move at once and may share a cell. A seat on a coin takes it: a coin of its
own colour pays `own_coin_reward`, one of the other's pays `other_coin_reward` and costs the
other seat `theft_cost`. A coin that was taken is replaced at once.

Rules told differently elsewhere that come to the same here: M-FOS redraws a coin whenever a seat
stands on it, which is exactly when it was taken; MATE moves its agents one after another, but
both are paid if both reach the coin.

Deviations: pax and M-FOS lose the last step of an inner episode of 16 (its reward is zeroed, and
the next game begins in it), here all `horizon` steps count; M-FOS also shows rewards and the end
as planes, which is left out; the order of the actions differs between the sources and does not
matter. Of LASE's version the sources do not tell the rule of the start, nor whether a coin may
appear under a seat: here both are `anywhere`. Its crop shows own colours first, its networks being
unshared. Axes: A = 2 seats (0 red, 1 blue; coin k has the colour of seat k), N = size * size cells.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from envs import grid
from marl.environment import Environment, TimeStep
from marl.render import BLUE, RED, Thing, board

# (row, column) steps of the actions left, right, up, down, stay
MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0), (0, 0))
CHOICES = {
    "num_coins": (1, 2),
    "colour_rule": ("alternate", "random", "fixed"),
    "spawn_rule": ("free", "anywhere", "elsewhere"),
    "tie_rule": ("both", "first_seat", "random"),
    "obs_mode": ("absolute", "swapped", "egocentric"),
}
MAX_SIZE = 14  # keeps the bias of a draw below 1e-7, see `_digit`


class State(struct.PyTreeNode):
    """A game under way; cells are numbered row * size + column."""

    seat_cell: Array  # [2] int32
    coin_cell: Array  # [2] int32, cell of the coin of each seat's colour; N where there is none
    time: Array  # [] int32, steps played


class CoinGame(Environment):
    """Coins of two colours on a square board, taken by walking onto them.

    obs["grid"] is uint8 [2, size, size, L] of planes that are 1 where something is, by `obs_mode`:
        absolute: red seat, blue seat, red coin, blue coin; both seats see the same.
        swapped: own seat, other seat, own coin, other's coin.
        egocentric: as swapped, shifted so that the own seat is at the centre. On a board without
            wrap this is a crop of size * size cells that may overrun the border, and a fifth
            plane is 1 outside the board.
    Events: `cooperated` (took the coin of the own colour) and `defected` (took the other's).
    """

    own_coin_reward: Any  # [] reward units, for taking a coin of the own colour
    other_coin_reward: Any  # [] reward units, for taking a coin of the other's colour
    theft_cost: Any  # [] reward units that a seat loses when the other takes its coin
    size: int = struct.field(pytree_node=False)  # cells of a row and of a column
    wrap: bool = struct.field(pytree_node=False)  # whether the board is a torus, else it has walls
    num_coins: int = struct.field(pytree_node=False)  # coins at once
    colour_rule: str = struct.field(pytree_node=False)  # colour of a new coin
    spawn_rule: str = struct.field(pytree_node=False)  # cell of a new coin
    apart_at_start: bool = struct.field(pytree_node=False)  # the seats never start on one cell
    tie_rule: str = struct.field(pytree_node=False)  # who takes a coin that both reach
    stay_action: bool = struct.field(pytree_node=False)  # whether there is a fifth action, to stay
    obs_mode: str = struct.field(pytree_node=False)  # what the seats see
    horizon: int = struct.field(pytree_node=False)  # steps of an episode

    num_agents = 2
    all_legal = True

    @property
    def moves(self) -> tuple[tuple[int, int], ...]:
        """(row, column) step of each action: left, right, up, down and perhaps stay."""
        return MOVES if self.stay_action else MOVES[:-1]

    @property
    def action_space(self) -> spaces.Space:
        """One action a move."""
        return spaces.Discrete(len(self.moves))

    @property
    def grid_codes(self) -> tuple[int, ...]:
        """Two codes a plane, absent and present."""
        return (2,) * (5 if self._is_crop else 4)

    @property
    def fixed_horizon(self) -> int:
        """All episodes are cut at the horizon."""
        return self.horizon

    @property
    def _is_crop(self) -> bool:
        return self.obs_mode == "egocentric" and not self.wrap

    def check(self) -> None:
        """Raise ValueError for an unknown rule, a bad size or horizon, or rules that do not fit."""
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                allowed = ", ".join(map(str, known))
                raise ValueError(f"env.{name}={getattr(self, name)}: must be one of {allowed}")
        if not 2 <= self.size <= MAX_SIZE:
            raise ValueError(f"env.size={self.size}: must lie in 2 .. {MAX_SIZE}")
        if self.horizon < 1:
            raise ValueError(f"env.horizon={self.horizon}: must be at least 1")
        if (self.num_coins == 2) != (self.colour_rule == "fixed"):
            raise ValueError(
                f"env.colour_rule={self.colour_rule} does not fit env.num_coins={self.num_coins}: two "
                "coins are one of each colour (fixed), a single coin is alternate or random"
            )
        if self.obs_mode == "egocentric" and self.size % 2 == 0:
            raise ValueError(
                f"env.obs_mode=egocentric needs an odd env.size, which has a centre, not {self.size}"
            )

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Seats and coins on random cells; a single coin has a random colour."""
        num_cells = self.size**2
        seat_draw, coin_draw = grid.draw(key, (), ())
        red, seat_draw = _digit(seat_draw, num_cells)
        blue, _ = _digit(seat_draw, num_cells - self.apart_at_start)
        if self.apart_at_start:
            blue = blue + (blue >= red)
        seat_cell = jnp.stack([red, blue])
        colour, coin_draw = _digit(coin_draw, 2)
        avoid = None if self.spawn_rule == "anywhere" else (red, blue)
        cell, coin_draw = self._free_cell(coin_draw, avoid)
        if self.num_coins == 2:
            coin_cell = jnp.stack([cell, self._free_cell(coin_draw, avoid)[0]])
        else:
            coin_cell = jnp.where(jnp.arange(2) == colour, cell, num_cells)
        none = jnp.zeros(2, bool)
        return self._look(State(seat_cell, coin_cell, jnp.int32(0)), none, none)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Both move, coins are taken and replaced; `action` is [2] int."""
        (bits,) = grid.draw(key, ())
        moved = jnp.asarray(_next_cell(self.size, self.wrap, self.moves))
        seat_cell = moved.at[action * self.size**2 + state.seat_cell].get(mode="clip")
        own = seat_cell == state.coin_cell  # [2] by seat, and also by coin: coin k has colour k
        other = seat_cell == state.coin_cell[::-1]  # [2] by seat
        reached = own | other[::-1]  # [2] by coin
        if self.tie_rule != "both":
            winner, bits = _digit(bits, 2) if self.tie_rule == "random" else (0, bits)
            beaten = (seat_cell[0] == seat_cell[1]) & (np.arange(2) != winner)  # [2] by seat
            own, other = own & ~beaten, other & ~beaten
        coin_cell = self._replace_coins(bits, reached, seat_cell, state.coin_cell)
        return self._look(State(seat_cell, coin_cell, state.time + 1), own, other)

    def picture(self, state: State) -> np.ndarray:
        """The board: seats are discs, coins rings, red those of seat 0 and blue those of seat 1."""
        cells = [*np.asarray(state.seat_cell), *np.asarray(state.coin_cell)]
        looks = [(RED, "disc"), (BLUE, "disc"), (RED, "ring"), (BLUE, "ring")]
        there = [(cell, look) for cell, look in zip(cells, looks, strict=True) if cell < self.size**2]
        things = [Thing(*divmod(int(cell), self.size), *look) for cell, look in there]
        return board(self.size, self.size, things)

    def _replace_coins(self, draw: Array, reached: Array, seat_cell: Array, coin_cell: Array) -> Array:
        """[2] cells of the coins after those that were `reached` [2] have been replaced."""
        nowhere, red_cell, blue_cell = self.size**2, coin_cell[0], coin_cell[1]
        if self.num_coins == 2:
            red, draw = self._free_cell(draw, self._avoid(seat_cell, red_cell))
            blue, _ = self._free_cell(draw, self._avoid(seat_cell, blue_cell))
            return jnp.where(reached, jnp.stack([red, blue]), coin_cell)
        if self.colour_rule == "alternate":
            is_new = coin_cell == nowhere
        else:
            colour, draw = _digit(draw, 2)
            is_new = jnp.arange(2) == colour
        cell, _ = self._free_cell(draw, self._avoid(seat_cell, jnp.minimum(red_cell, blue_cell)))
        return jnp.where(reached[0] | reached[1], jnp.where(is_new, cell, nowhere), coin_cell)

    def _avoid(self, seat_cell: Array, old_cell: Array) -> tuple[Array, Array] | None:
        """The cells [] where the successor of a coin at `old_cell` must not appear."""
        rules = {"free": (seat_cell[0], seat_cell[1]), "anywhere": None, "elsewhere": (old_cell, old_cell)}
        return rules[self.spawn_rule]

    def _free_cell(self, draw: Array, avoid: tuple[Array, Array] | None) -> tuple[Array, Array]:
        """A uniform cell [] other than those in `avoid`, and what is left of the draw."""
        num_cells = self.size**2
        if avoid is None:
            return _digit(draw, num_cells)
        low, high = jnp.minimum(*avoid), jnp.maximum(*avoid)
        differ = low != high
        cell, draw = _digit(draw, num_cells - 1 - differ)
        cell = cell + (cell >= low)
        return cell + (differ & (cell >= high)), draw

    def _look(self, state: State, own: Array, other: Array) -> tuple[State, TimeStep]:
        """The state and its TimeStep, after seats took their `own` [2] or the `other`'s coin [2]."""
        cooperated, defected = own.astype(jnp.float32), other.astype(jnp.float32)
        gained = self.own_coin_reward * cooperated + self.other_coin_reward * defected
        return state, TimeStep(
            obs={"grid": self._observe(state.seat_cell, state.coin_cell)},
            reward=gained - self.theft_cost * defected[::-1],
            terminated=jnp.bool_(False),
            truncated=state.time >= self.horizon,
            action_mask=jnp.ones((2, len(self.moves)), bool),
            events={"cooperated": cooperated, "defected": defected},
        )

    def _observe(self, seat_cell: Array, coin_cell: Array) -> Array:
        """[2, size, size, L] uint8 planes."""
        if self.obs_mode == "absolute":
            at = jnp.broadcast_to(jnp.concatenate([seat_cell, coin_cell]), (2, 4))
        else:
            at = jnp.stack([seat_cell, seat_cell[::-1], coin_cell, coin_cell[::-1]], axis=1)
        shown = np.arange(self.size**2, dtype=np.int32)[None]  # [1 or 2, N] cell at each place of the view
        if self.obs_mode == "egocentric":
            shown = jnp.asarray(_view(self.size, self.wrap))[seat_cell]
        planes = shown[:, :, None] == at[:, None, :]  # [2, N, 4]
        if self._is_crop:
            planes = jnp.concatenate([planes, shown[:, :, None] < 0], axis=-1)
        return planes.astype(jnp.uint8).reshape(2, self.size, self.size, -1)


def _digit(draw: Array, base: Array | int) -> tuple[Array, Array]:
    """First digit of the fraction draw / 2^32 in `base`, and the fraction that remains.

    So one draw of 32 bits serves for several uniform numbers. The probability of a digit is off by
    at most (product of the bases before it) / 2^32, here 2 * MAX_SIZE^2 / 2^32 < 1e-7.

    Args:
        draw: [] uint32.
        base: [] number of values, at most 2^16.

    Returns:
        [] int32 in [0, base), [] uint32.
    """
    base = jnp.asarray(base, jnp.uint32)
    high, low = draw >> 16, draw & 0xFFFF
    digit = (high * base + (low * base >> 16)) >> 16
    return digit.astype(jnp.int32), draw * base


@functools.lru_cache
def _next_cell(size: int, wrap: bool, moves: tuple[tuple[int, int], ...]) -> np.ndarray:
    """[actions * N] int32 cell that an action leads to: entry action * N + cell."""
    row, column = np.divmod(np.arange(size**2), size)
    bound = (lambda x: x % size) if wrap else (lambda x: np.clip(x, 0, size - 1))
    cells = [bound(row + down) * size + bound(column + right) for down, right in moves]
    return np.concatenate(cells).astype(np.int32)


@functools.lru_cache
def _view(size: int, wrap: bool) -> np.ndarray:
    """[N, N] int32 cell at each place of the view of a seat at the first cell, -1 outside the board."""
    row, column = np.divmod(np.arange(size**2), size)
    seen_row, seen_column = (x[:, None] + x[None] - size // 2 for x in (row, column))
    if wrap:
        seen_row, seen_column = seen_row % size, seen_column % size
    inside = (seen_row >= 0) & (seen_row < size) & (seen_column >= 0) & (seen_column < size)
    return np.where(inside, seen_row * size + seen_column, -1).astype(np.int32)
