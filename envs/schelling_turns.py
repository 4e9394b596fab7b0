"""The turns of a step of `envs.schelling`: one after another, or all that can be at once.

Both give `Turns`. At once a step costs a few passes over all seats, however many: whoever is first, in the
random order of turns, among all who touch a cell where it stands or wants to go, takes its turn in the
same pass, which ends as one turn after the other would. Deviations of the variant: windows are those
after all turns, and who enters does so after all turns, the first in the order where two would enter the same
cell; of the decisions of random players .041 bump into the own kind, .042 in turn. Axes: A seats, C cells
(number C is nowhere), W cells of a window.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

MOVES = ((-1, 0), (0, -1), (1, 0), (0, 1), (0, 0))  # rows down, columns right: up, left, down, right, still
STILL = 4
ABSENT, MOVED, KILLED, OCCLUDED, STAYED, EXPIRED, ENTERED = range(7)  # what a seat's turn was
FAR_WORD = np.uint32(2**32 - 1)


class Turns(struct.PyTreeNode):
    """Where everybody is after a step, and what happened."""

    who: Array  # [C + 1] int32, seat number + 1, 0 if empty; nobody is nowhere
    cell: Array  # [A] int32, C for the dead
    life: Array  # [A] float32 steps left
    age: Array  # [A] int32 steps since it appeared
    kind: Array  # [A] int32 what its turn was
    died: Array  # [A] float32 1 where it was killed
    window: Array  # [A, W] uint8, anything of the dead


def one_after_another(env: Any, state: Any, action: Array, draws: tuple[Array, Array, Array]) -> Turns:
    """All turns in a loop.

    Args:
        env: the game; state: before the step.
        action: [A].
        draws: words [A] for the order, who may enter [A] bool, and cells to try [A, TRIES].
    """
    bits, enters, spots = draws
    num, cells = env.num_agents, env.num_cells
    order = jnp.argsort(bits).astype(jnp.int32)
    now = state.who, jnp.append(state.cell, jnp.int32(cells)), state.life, state.age
    turns = order, action[order], enters, spots
    turn = lambda now, turn: _turn(env, now, turn)
    (who, cell, life, age), (kind, victim, window) = jax.lax.scan(turn, now, turns)
    to_seats = lambda x: jnp.zeros_like(x).at[order].set(x, unique_indices=True)
    died = jnp.zeros(num + 1).at[victim].add(1.0)[:num]
    return Turns(who, cell[:num], life, age, to_seats(kind), died, to_seats(window))


def _turn(env: Any, now: tuple, turn: tuple) -> tuple[tuple, tuple]:
    """One seat's turn: what it was [], who was killed [] (A: nobody), the window seen after it [W]."""
    (who, cell, life, age), (seat, action, enters, spots) = now, turn
    num, nowhere = env.num_agents, env.num_cells
    here = cell[seat]
    alive, left = here < nowhere, life[seat] - 1
    goal = _goal(env, here, action)
    there = who[goal]
    empty = who[spots] == 0
    spot = jnp.where(enters & empty.any(), spots[empty.argmax()], nowhere)
    acted = _acted(env, seat, there, action == STILL, left)
    kind = jnp.where(alive, acted, jnp.where(spot < nowhere, ENTERED, ABSENT))
    kills, enters = kind == KILLED, kind == ENTERED
    place = jnp.where((kind == MOVED) | kills, goal, jnp.where(kind == EXPIRED, nowhere, here))
    place = jnp.where(alive, place, spot)
    victim = jnp.where(kills, there - 1, num)
    who = who.at[here].set(0).at[place].set(jnp.where(place < nowhere, seat + 1, 0))
    cell = cell.at[victim].set(nowhere).at[seat].set(place)
    left = jnp.where(enters, env.max_age, left + kills * (1 + env.gain))
    life = life.at[seat].set(left.astype(jnp.float32))
    age = age.at[seat].set(jnp.where(alive, age[seat] + 1, 0))
    return (who, cell, life, age), (kind, victim, windows(env, who, place, seat))


def at_once(env: Any, state: Any, action: Array, draws: tuple[Array, Array, Array]) -> Turns:
    """Passes over all seats until all had a turn; `action` [A] and `draws` as of `one_after_another`."""
    bits, enters, spots = draws
    num, nowhere = env.num_agents, env.num_cells
    seat = jnp.arange(num, dtype=jnp.int32)
    low = int(num).bit_length()
    order = (bits >> low << low) | seat.astype(jnp.uint32)  # no two alike

    def one_pass(now: tuple) -> tuple:
        who, cell, kind, died, gained, waits = now
        goal = jnp.where(waits, _goal(env, cell, action), nowhere)
        here = jnp.where(waits, cell, nowhere)
        first = jnp.full(nowhere + 1, FAR_WORD).at[here].min(order).at[goal].min(order)
        goes = waits & (first[here] == order) & (first[goal] == order)
        there = who[goal]
        acted = _acted(env, seat, there, action == STILL, state.life - 1)
        acted = jnp.where(goes, acted, ABSENT)
        moves, kills = (acted == MOVED) | (acted == KILLED), acted == KILLED
        victim = jnp.where(kills, there - 1, num)
        died = died.at[victim].set(1.0, mode="drop")
        who = who.at[jnp.where(moves | (acted == EXPIRED), here, nowhere)].set(0)
        who = who.at[jnp.where(moves, goal, nowhere)].set(seat + 1).at[nowhere].set(0)
        cell = jnp.where(acted == EXPIRED, nowhere, jnp.where(moves, goal, cell))
        cell = cell.at[victim].set(nowhere, mode="drop")
        waits = (waits & ~goes).at[victim].set(False, mode="drop")
        return who, cell, jnp.where(goes, acted, kind), died, gained | kills, waits

    alive, nobody = state.cell < nowhere, jnp.zeros(num, bool)
    start = state.who, state.cell, jnp.full(num, ABSENT), jnp.zeros(num), nobody, alive
    now = jax.lax.while_loop(lambda now: now[-1].any(), one_pass, start)
    who, cell, kind, died, gained, _ = now
    empty = who[spots] == 0
    spot = jnp.take_along_axis(spots, empty.argmax(1)[:, None], 1)[:, 0]
    tries = enters & (kind == ABSENT) & empty.any(1)  # who was dead when its turn came
    first = jnp.full(nowhere + 1, FAR_WORD).at[jnp.where(tries, spot, nowhere)].min(order)
    enters = tries & (first[spot] == order)
    who = who.at[jnp.where(enters, spot, nowhere)].set(seat + 1).at[nowhere].set(0)
    cell, kind = jnp.where(enters, spot, cell), jnp.where(enters, ENTERED, kind)
    took_turn = (kind != ABSENT) & ~enters
    life = state.life - took_turn + gained * (1 + env.gain)
    life = jnp.where(enters, env.max_age, life).astype(jnp.float32)
    age = jnp.where(took_turn, state.age + 1, 0)
    return Turns(who, cell, life, age, kind, died, windows(env, who, cell, seat))


def _acted(env: Any, seat: Array, there: Array, stays: Array, left: Array) -> Array:
    """What a seat does that is alive, by who is `there` (seat + 1 or 0) and the life that is `left` [...]."""
    same = is_first(env, there - 1) == is_first(env, seat)
    acted = jnp.where(there == 0, MOVED, jnp.where(same, OCCLUDED, KILLED))
    return jnp.where(left <= 0, EXPIRED, jnp.where(stays, STAYED, acted))


def is_first(env: Any, seat: Array) -> Array:
    """Whether seats [...] are of the first kind."""
    return seat < env.num_per_kind


def windows(env: Any, who: Array, cell: Array, seat: Array) -> Array:
    """[..., W] uint8 codes around cells [...], as the seats [...] see them; anything nowhere."""
    offset = jnp.arange(-env.radius, env.radius + 1)
    row = (cell[..., None] // env.width + offset) % env.height
    column = (cell[..., None] % env.width + offset) % env.width
    found = who[(row[..., None] * env.width + column[..., None, :]).reshape(*cell.shape, -1)]
    same = is_first(env, found - 1) == is_first(env, seat[..., None])
    return jnp.where(found == 0, 0, jnp.where(same, 1, 2)).astype(jnp.uint8)


def _goal(env: Any, cell: Array, action: Array) -> Array:
    """[...] int32 the cell to which an action [...] leads from a cell [...] that is not nowhere."""
    move = jnp.array(MOVES, jnp.int32)[action]
    row = (cell // env.width + move[..., 0]) % env.height
    return row * env.width + (cell % env.width + move[..., 1]) % env.width
