"""Who moves where on a board of residents and vacancies: the rules of Schelling's model, as pure functions.

**Sources**: Schelling 1971, "Dynamic models of segregation" (Journal of Mathematical Sociology 1); stored
judgements and moves to any vacancy as in mesa 3.3.1 (`mesa/examples/basic/schelling`). A board is `site`
[C] int32, a permutation of its cells: site[i] is the cell of resident i for i < A, the others are vacant.
So residents are never lost and never share a cell. Axes: C cells, A residents, V = C - A vacancies.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from envs.grid import words_of
from marl.segregation import neighbours
from marl.shuffle import shuffle

SLACK = 1e-4  # neighbours; a share that equals the threshold reaches it in spite of rounding
FAR = np.int32(2**31 - 1)
FAR_WORD = np.uint32(2**32 - 1)


def board(site: Array, num_residents: tuple[int, int], shape: tuple[int, int]) -> Array:
    """[H, W] int8, 0 vacant, 1 and 2 the types; the first residents are of type 1."""
    kind = jnp.asarray(np.repeat(np.array([1, 2], np.int8), num_residents))
    where = site[: sum(num_residents)]
    return jnp.zeros(site.shape, jnp.int8).at[where].set(kind, unique_indices=True).reshape(shape)


def at(values: Array, index: Array) -> Array:
    """[...] the values [N] at `index` [...], which is in range."""
    return values.at[index].get(mode="promise_in_bounds")


def satisfied(same: Array, both: Array, rule: Any) -> Array:
    """[...] bool, whether `same` neighbours of the own type among `both` [...] are enough.

    `rule` has the fields `threshold`, `criterion` and `isolated_content` of `envs.schelling_classic`.
    """
    needed = rule.threshold * both if rule.criterion == "share" else rule.threshold
    return jnp.where(
        both > 0, same >= needed - SLACK, jnp.asarray(rule.isolated_content) | (rule.threshold <= 0)
    )


def one_after_another(key: Array, site: Array, moves: Array) -> Array:
    """[C] the board after the residents who move [A] went, in random order, to uniform vacancies of then.

    Cells left by those before are vacant too. Each draws one of V places for vacancies at once; who draws
    the same takes what the one before left, so a turn of the loop is one move from every place. The turns
    are as many as the most that draw one place, about log A.
    """
    num, vacancies = len(moves), len(site) - len(moves)
    bits, order = jnp.split(words_of(key, 2 * num), 2)
    place = (bits % np.uint32(vacancies)).astype(jnp.int32)

    def turn(now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        cell, vacant, waits = now
        first = _lowest(order, jnp.where(waits, place, vacancies), vacancies)
        goes = waits & (at(first, place) == order)
        left = vacant.at[jnp.where(goes, place, vacancies)].set(cell, mode="drop")
        return jnp.where(goes, at(vacant, place), cell), left, waits & ~goes

    start = site[:num], site[num:], moves
    cell, vacant, _ = jax.lax.while_loop(lambda now: now[2].any(), turn, start)
    return jnp.concatenate([cell, vacant])


def all_at_once(key: Array, site: Array, moves: Array) -> Array:
    """[C] the board after the residents who move [A] went to different cells, all of them vacant before.

    If more would move than there are vacancies, as many do, each of them with the same probability.
    """
    num, vacancies = len(moves), len(site) - len(moves)
    bits = words_of(key, 3)
    many = jnp.maximum(moves.sum(dtype=jnp.int32), 1)
    offset = (bits[0] % many.astype(jnp.uint32)).astype(jnp.int32)
    rank = (jnp.cumsum(moves, dtype=jnp.int32) - 1 + offset) % many
    goes = moves & (rank < vacancies)
    place = at(permutation(jax.random.wrap_key_data(bits[1:]), vacancies), jnp.minimum(rank, vacancies - 1))
    cell, vacant = site[:num], site[num:]
    left = vacant.at[jnp.where(goes, place, vacancies)].set(cell, mode="drop", unique_indices=True)
    return jnp.concatenate([jnp.where(goes, at(vacant, place), cell), left])


def permutation(key: Array, num: int) -> Array:
    """[num] int32, the numbers 0 .. num - 1 in random order, without sorting."""
    rows = math.isqrt(num)
    drawn = shuffle(key, rows, -(-num // rows))
    kept = drawn < num
    place = jnp.where(kept, jnp.cumsum(kept, dtype=jnp.int32) - 1, num)
    return jnp.zeros(num, jnp.int32).at[place].set(drawn, mode="drop")


def proposals(key: Array, site: Array, moves: Array, grid: Array, rule: Any) -> Array:
    """[C] the board after all who move [A] proposed, at once, a uniform vacancy that satisfies them.

    Vacancies are judged before the moves. One of those who propose the same gets it, the others stay, and so
    does who finds none, or drew one beside its own cell that satisfies only while it stands there.
    """
    num, vacancies = len(moves), len(site) - len(moves)
    bits, order = jnp.split(words_of(key, 2 * num), 2)
    counts = [x.ravel()[site[num:]] for x in neighbours(grid, rule.radius, rule.torus)]
    chosen, found, first, both = [], [], rule.num_residents[0], sum(counts)
    near = _near(site[:num], (rule.rows, rule.columns), rule.radius, rule.torus)
    for same, seats in zip(counts, (slice(0, first), slice(first, num)), strict=True):
        good = satisfied(same, both, rule)
        listed = jnp.where(good, jnp.cumsum(good, dtype=jnp.int32) - 1, vacancies)
        listed = jnp.zeros(vacancies, jnp.int32).at[listed].set(jnp.arange(vacancies), mode="drop")
        many = good.sum(dtype=jnp.uint32)
        place = listed[bits[seats] % jnp.maximum(many, 1)]
        beside = (near[seats] == site[num:][place][:, None]).any(-1)
        chosen.append(place)
        found.append((many > 0) & satisfied(same[place] - beside, both[place] - beside, rule))
    place, asks = jnp.concatenate(chosen), moves & jnp.concatenate(found)
    best = _lowest(order, jnp.where(asks, place, vacancies), vacancies)
    goes = asks & (at(best, place) == order)
    cell, vacant = site[:num], site[num:]
    left = vacant.at[jnp.where(goes, place, vacancies)].set(cell, mode="drop", unique_indices=True)
    return jnp.concatenate([jnp.where(goes, at(vacant, place), cell), left])


def in_turn(key: Array, site: Array, wants: Array, rule: Any, *, anew: bool) -> Array:
    """[C] the board after the residents who want to [A] moved in random order, each by `rule.move`.

    Costs a look at every vacancy for every mover if they must satisfy; for boards of some thousand cells.

    Args:
        key: of all draws.
        site: [C].
        wants: [A] bool.
        rule: the game.
        anew: each is judged again when its turn comes, and moves only if it is discontent then.
    """
    num = len(wants)
    order = words_of(jax.random.fold_in(key, num), num) >> 1
    shape = rule.rows, rule.columns
    kinds = jnp.asarray(np.repeat(np.array([1, 2], np.int8), rule.num_residents))
    near = functools.partial(_near, shape=shape, radius=rule.radius, torus=rule.torus)
    plane = jnp.append(board(site, rule.num_residents, shape).ravel(), jnp.int8(0))

    def judged(plane: Array, cell: Array, kind: Array) -> Array:
        seen = plane[near(cell)]
        return satisfied((seen == kind).sum(-1), (seen > 0).sum(-1), rule)

    def turn(i: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        site, plane, waits = now
        who = jnp.where(waits, order, jnp.uint32(FAR)).argmin()
        kind, cell = kinds[who], site[who]
        goes = ~judged(plane, cell, kind) if anew else jnp.bool_(True)
        emptied, vacant = plane.at[cell].set(0), site[num:]
        bits = words_of(jax.random.fold_in(key, i), len(vacant)) >> 1
        if rule.move == "random_empty":
            place = bits.argmin()
        else:
            good = judged(emptied, vacant, kind)
            cost = _distance(cell, vacant, shape, rule.torus) if rule.move == "nearest_satisfying" else 0
            nearest = jnp.where(good, cost, FAR).min()
            place = jnp.where(good & (cost == nearest), bits, jnp.uint32(FAR)).argmin()
            goes &= good.any()
        goal = vacant[place]
        moved = site.at[who].set(goal).at[num + place].set(cell), emptied.at[goal].set(kind)
        site, plane = (jnp.where(goes, new, old) for new, old in zip(moved, now[:2], strict=True))
        return site, plane, waits.at[who].set(False)

    return jax.lax.fori_loop(0, wants.sum(), turn, (site, plane, wants))[0]


def _lowest(order: Array, place: Array, num: int) -> Array:
    """[num] uint32, the lowest word of `order` [A] among those at each `place` [A]; `num` is no place."""
    return jnp.full(num, FAR_WORD).at[place].min(order, mode="drop")


def _near(cell: Array, shape: tuple[int, int], radius: int, torus: bool) -> Array:
    """[..., K] int32 neighbours of the cells [...]; C for those beyond a border."""
    steps = np.arange(-radius, radius + 1)
    offsets = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    offsets = offsets[(offsets != 0).any(-1)].astype(np.int32)
    row = cell[..., None] // shape[1] + offsets[:, 0]
    column = cell[..., None] % shape[1] + offsets[:, 1]
    if torus:
        return row % shape[0] * shape[1] + column % shape[1]
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return jnp.where(inside, row * shape[1] + column, math.prod(shape))


def _distance(cell: Array, other: Array, shape: tuple[int, int], torus: bool) -> Array:
    """[...] int32 cells between them, along rows plus along columns."""
    along = jnp.abs(cell // shape[1] - other // shape[1]), jnp.abs(cell % shape[1] - other % shape[1])
    return sum(jnp.minimum(x, size - x) if torus else x for x, size in zip(along, shape, strict=True))
