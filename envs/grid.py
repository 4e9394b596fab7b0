"""What grid games share: turns, moves, beams, places to appear, and what each seat sees.

**Source**: the rules of the engine of Melting Pot 2 (Agapiou et al. 2022, arXiv 2211.13746), read in its
code: in a random order, one after another, avatars move (an occupied cell or a wall blocks) or turn; then
all beams are traced on the board after the moves, so two can hit each other; then who was away
long enough appears on a random free cell to start from, looking anywhere. Here each game says the order
by calling functions, all of them pure and of one game; vmap adds games. Axes: A seats, C cells (number
C is outside the board), W cells of a view, R rays of a beam, L cells of a ray.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from envs.board import Board

NOOP, FORWARD, BACKWARD, LEFT, RIGHT, TURN_LEFT, TURN_RIGHT, ZAP = range(8)  # actions; a game may add some
STAYS = 4  # row of Board.moves
MAX_SEATS = 32


class Avatars(struct.PyTreeNode):
    """Where the seats are."""

    cell: Array  # [A] int32, C for who is away
    facing: Array  # [A] int32, 0 north, 1 east, 2 south, 3 west

    def present(self, board: Board) -> Array:
        """[A] bool, who is on the board."""
        return self.cell < board.nowhere


def draw(key: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Independent random words of several shapes: [*shape] uint32 each.

    They are `words_of` the key, made once.
    """
    sizes = [int(np.prod(shape)) for shape in shapes]
    words = words_of(key, sum(sizes))
    # a reduction, which XLA on a CPU computes once: the hash alone it computes again for each cell seen
    words = jnp.stack([words, jnp.zeros_like(words)]).max(0)
    parts = jnp.split(words, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def words_of(key: Array, num: int) -> Array:
    """[num] uint32 random words, all different.

    The first and the last word of `key` seed a hash of the numbers 0, 1, ... (twice the 32-bit finaliser
    with the multipliers 0x21f0aaad and 0x735a2d97), which takes a tenth of the time of as many
    words of `jax.random.bits`.
    """
    seed = jax.random.key_data(key)
    number = np.arange(num, dtype=np.uint32) * np.uint32(0x9E3779B9)
    return _mix(_mix(seed[0] + number) + seed[-1])


def _mix(x: Array) -> Array:
    """A permutation of the 32-bit words in which every bit depends on every other."""
    x = (x ^ x >> 16) * np.uint32(0x21F0AAAD)
    x = (x ^ x >> 15) * np.uint32(0x735A2D97)
    return x ^ x >> 15


def uniform(bits: Array) -> Array:
    """[...] float32 in [0, 1) from [...] uint32, of 24 bits."""
    return (bits >> 8).astype(jnp.float32) * np.float32(2**-24)


def happens(bits: Array, prob: Any) -> Array:
    """[...] bool, True with probability `prob` [...] from 0 to 1, from [...] uint32; exact to 2^-24."""
    return uniform(bits) < prob


def ranks(bits: Array) -> Array:
    """[A] int32 each seat's place in a random order, from [A] uint32; equal ones (p < A^2 / 2^33) by seat."""
    seat = np.arange(bits.shape[0])
    before = (bits[None] < bits[:, None]) | ((bits[None] == bits[:, None]) & (seat[None] < seat[:, None]))
    return before.sum(-1, dtype=jnp.int32)


def turned(avatars: Avatars, action: Array) -> Avatars:
    """The avatars after those with a turning `action` [A] turned."""
    turn = (action == TURN_RIGHT).astype(jnp.int32) - (action == TURN_LEFT)
    return avatars.replace(facing=(avatars.facing + turn) % 4)


def goals(board: Board, avatars: Avatars, action: Array) -> Array:
    """[A] int32 the cells that `action` [A] leads to, the own one behind walls and for other actions."""
    side = jnp.asarray(np.array([STAYS, 0, 2, 3, 1, STAYS], np.int32))[jnp.minimum(action, TURN_LEFT)]
    direction = jnp.where(side == STAYS, STAYS, (avatars.facing + side) % 4)
    return jnp.asarray(board.moves)[direction * (board.nowhere + 1) + avatars.cell]


def moved(cell: Array, goal: Array, rank: Array) -> Array:
    """[A] cells after all, in the order of `rank` [A], went from `cell` [A] to `goal` [A] if it was free."""
    for turn in range(cell.shape[0]):
        mine = rank == turn
        target = jnp.where(mine, goal, 0).sum()
        free = (cell != target).all()
        cell = jnp.where(mine & free, target, cell)
    return cell


def rays(beam: np.ndarray, avatars: Avatars) -> Array:
    """[A, R, L] int32 cells of everyone's beam, of `Board.beam`."""
    return jnp.asarray(beam)[avatars.cell * 4 + avatars.facing]


def hits(board: Board, cells: Array, avatars: Avatars, stopped: Array | None = None) -> Array:
    """[A] uint32, whom everyone's beam would hit, the first avatar on each ray; bit j stands for seat j.

    Args:
        board: of the game.
        cells: [A, R, L] of `rays`.
        avatars: after the moves.
        stopped: [A, R, L] bool, cells where something else ends the ray; None: nothing does.
    """
    num = avatars.cell.shape[0]
    seat = jnp.where(avatars.present(board), np.arange(1, num + 1, dtype=np.uint8), 0)
    who = jnp.zeros(board.nowhere + 2, jnp.uint8).at[avatars.cell].set(seat)
    found = who.at[cells].get(mode="promise_in_bounds").astype(jnp.int32)
    target = firsts(found if stopped is None else jnp.where(stopped & (found == 0), num + 1, found))
    bits = jnp.where((target > 0) & (target <= num), jnp.uint32(1) << (target - 1).astype(jnp.uint32), 0)
    return bits.sum(-1, dtype=jnp.uint32)


def seats_of(bits: Array) -> Array:
    """[A, A] bool, True at (i, j) where bit j of the word i of `bits` [A] is set."""
    return (bits[:, None] >> np.arange(bits.shape[0], dtype=np.uint32) & 1) > 0


def bits_of(which: Array) -> Array:
    """[] uint32 with bit j set where `which` [A] bool is True."""
    num = which.shape[0]
    return jnp.where(which, np.uint32(1) << np.arange(num, dtype=np.uint32), 0).sum(dtype=jnp.uint32)


def firsts(marks: Array) -> Array:
    """[A, R] the first number on each ray of `marks` [A, R, L] that is not 0; 0 without one."""
    first = marks[..., -1]
    for step in range(marks.shape[-1] - 2, -1, -1):
        first = jnp.where(marks[..., step] != 0, marks[..., step], first)
    return first


def is_first(marked: Array) -> Array:
    """[A, R, L] bool, True at the first True of each ray of `marked` [A, R, L]."""
    before = [jnp.zeros_like(marked[..., 0])]
    for step in range(marked.shape[-1] - 1):
        before.append(before[-1] | marked[..., step])
    return marked & ~jnp.stack(before, axis=-1)


def nth_true(there: Array, bits: Array) -> Array:
    """[] int32 a uniform one of the True entries of `there` [N], from [] uint32; N or more without one."""
    words = _words(there)
    count = jax.lax.population_count(words).astype(jnp.int32)
    upto = jnp.stack(list(itertools.accumulate(count[k] for k in range(count.shape[0]))))
    nth = (uniform(bits) * upto[-1]).astype(jnp.int32)
    word = (upto <= nth).sum(dtype=jnp.int32)
    nth = nth - jnp.where(np.arange(len(upto)) == word - 1, upto, 0).sum()
    chosen = jnp.where(np.arange(len(upto)) == word, words, 0).sum(dtype=jnp.uint32)
    up_to_bit = np.array([(2 << bit) - 1 for bit in range(32)], np.uint32)
    before = jax.lax.population_count(chosen & up_to_bit).astype(jnp.int32) <= nth
    return 32 * word + before.sum(dtype=jnp.int32)


def placed(bits: Array, site: Array, wants: Array, num_sites: int) -> Array:
    """[A] int32 sites: those who want one get, by seat, a uniform one of those still free.

    The number of the free site is drawn, and the taken ones that come before it are skipped.

    Args:
        bits: [A] uint32.
        site: [A] int32 where seats are now; `num_sites` or more for those on no site.
        wants: [A] bool.
        num_sites: of which at least A.

    Returns:
        [A] int32, `site` for those who want none.
    """
    num, far = site.shape[0], 2 * num_sites + site.shape[0]
    held = jnp.where(wants | (site >= num_sites), far, site)
    before = (held[None] < held[:, None]).sum(-1, dtype=jnp.int32)  # taken sites below each
    free = num_sites - (held < num_sites).sum(dtype=jnp.int32)

    def one(now: tuple, seat: tuple) -> tuple[tuple, Array]:
        (held, before, free), (i, draw, wanted) = now, seat
        nth = (draw * free).astype(jnp.int32)
        skipped = (held - before <= nth).sum(dtype=jnp.int32)
        spot, mine = nth + skipped, wanted & (np.arange(num) == i)
        before = jnp.where(mine, skipped, before + (wanted & (held > spot)))
        return (jnp.where(mine, spot, held), before, free - wanted), spot

    seats = np.arange(num), uniform(bits), wants
    spot = jax.lax.scan(one, (held, before, free), seats)[1]
    return jnp.where(wants, spot, site)


def count_near(near: np.ndarray, there: Array) -> Array:
    """[N] int32 how many of the things that are `there` [N] bool are near each; `near` as of `near_masks`."""
    words = _words(there)
    count = [jax.lax.population_count(words[k] & near[:, k]) for k in range(near.shape[1])]
    return sum(count).astype(jnp.int32)


def counted(left: Array, begins: Array, steps: int) -> Array:
    """[...] int32 steps that are left: `steps` where something `begins`, else one less than before."""
    return jnp.where(begins, steps, jnp.maximum(left - 1, 0))


def occupied(cell: Array, sites: slice) -> Array:
    """[N] bool, sites on which one of `cell` [A] stands."""
    return (cell[:, None] == np.arange(sites.start, sites.stop)).any(0)


def at_site(values: Array, sites: slice, cell: Array) -> Array:
    """[...] value of the site at `cell` [...]; zero off the sites; values [N]."""
    return values.at[cell - sites.start].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def _words(there: Array) -> Array:
    """[M] uint32, the entries of `there` [N] as bits, 32 a word."""
    bits = jnp.pad(there, (0, -there.shape[0] % 32)).reshape(-1, 32).astype(jnp.uint32)
    return (bits << np.arange(32, dtype=np.uint32)).sum(-1, dtype=jnp.uint32)


def view(
    board: Board,
    window: np.ndarray,
    item: Array,
    avatars: Avatars,
    status: Array,
    extent: tuple[int, int, int],
) -> Array:
    """[A, rows, columns, 4] uint8, what each seat sees; zeros for who is away.

    Layers: the item of the cell; 1 for oneself, then the others by seat, counted from oneself; where
    they look as seen from oneself, 1 ahead, 2 right, 3 towards oneself, 4 left; their status.

    Args:
        board: of the game.
        window: [(C + 1) * 4, W] uint16 table of `Board.window`.
        item: [C] uint8 codes of the cells.
        avatars: on the board.
        status: [A] uint8 codes.
        extent: (ahead, behind, side) of the view.
    """
    (ahead, behind, side), num = extent, avatars.cell.shape[0]
    seat = np.arange(num, dtype=np.uint32)
    looks = avatars.facing.astype(jnp.uint32)
    word = seat + 1 << 8 | looks << 16 | status.astype(jnp.uint32) << 24
    plane = jnp.append(item.astype(jnp.uint32), jnp.uint32(0))
    plane = plane.at[avatars.cell].add(jnp.where(avatars.present(board), word, 0))
    pose = made(avatars.cell * 4 + avatars.facing, avatars.cell)
    cells = jnp.asarray(window)[pose]  # [A, W]
    seen = plane.at[cells].get(mode="promise_in_bounds")
    who, own = seen >> 8 & 0xFF, (seat + 1)[:, None]
    number = jnp.where(who >= own, who - own, who + num - own) + 1
    turn = ((seen >> 16) - looks[:, None] & 3) + 1
    seen = jnp.where(who > 0, number << 8 | turn << 16 | seen & jnp.uint32(0xFF0000FF), seen)
    seen = made(seen, avatars.cell)
    shape = ahead + behind + 1, 2 * side + 1
    return made(jax.lax.bitcast_convert_type(seen, jnp.uint8), avatars.cell).reshape(num, *shape, 4)


def made(x: Array, cell: Array) -> Array:
    """`x` [A, W, ...] as it is, made apart from what reads it; `cell` [A] int32, none below 0.

    Nothing is added to it by a scatter, into which a CPU fuses neither what comes before nor what comes
    after; else it would gather anew for each of the four bytes of a cell.
    """
    nothing = (cell < 0).astype(x.dtype)
    return x.at[(np.arange(len(x)), *(0,) * (x.ndim - 1))].add(nothing)
