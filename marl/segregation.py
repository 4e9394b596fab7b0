"""How segregated two types on a grid are; knows no game.

**Sources**: same-type fraction as in Schelling 1971, "Dynamic models of segregation" (Journal of
Mathematical Sociology 1); the dissimilarity index of Duncan and Duncan 1955; the entropy (Theil) index;
Moran's I with queen weights among occupied cells. `multiscale_theil` and `multiscale_entropy` are ours:
the exact form of the multiscale entropy of Sert, Bar-Yam and Morales 2020 (Sci Rep 10:11771) is not known.

A grid is [..., H, W] int8: 0 empty, 1 and 2 the types. All functions are pure, need no equal numbers of the
types, and but for `isolation` give the same when the types are exchanged. Neighbours are those of the Moore
neighbourhood; with `torus` the grid has no border, else there is nothing beyond it. Blocks are squares that
tile the grid from its first cell; those at the end are cut where the side does not divide it. Pairs are
counted as whole numbers. Axes: B blocks, N shuffles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

BLOCKS = (5, 10, 25)  # sides of the multiscale measures, cells


def shifted(x: Array, offset: int, axis: int, torus: bool) -> Array:
    """[..., H, W] the value `offset` cells further along `axis` (-2 or -1); beyond a border 0."""
    if torus:
        return jnp.roll(x, -offset, axis)
    pad = [(0, 0)] * x.ndim
    pad[axis] = (max(-offset, 0), max(offset, 0))
    start = max(offset, 0)
    return jax.lax.slice_in_dim(jnp.pad(x, pad), start, start + x.shape[axis], axis=axis % x.ndim)


def window_sum(x: Array, radius: int, torus: bool) -> Array:
    """[..., H, W] int32 sum of `x` over the (2 radius + 1)^2 window around each cell, its own included.

    Windows along rows, then along columns; a CPU does not fuse them into a gather that reads them, which
    would compute them anew for everyone who reads.
    """
    x, batch = x.astype(jnp.int32), x.ndim - 2
    around = ((0, 0),) * batch + ((radius, radius),) * 2
    if torus:
        x, around = jnp.pad(x, around, mode="wrap"), ((0, 0),) * x.ndim
    for axis in (-2, -1):
        size, padding = [1] * x.ndim, [(0, 0)] * x.ndim
        size[axis], padding[axis] = 2 * radius + 1, around[axis]
        x = jax.lax.reduce_window(x, np.int32(0), jax.lax.add, size, [1] * x.ndim, padding)
    return x


def neighbours(grid: Array, radius: int, torus: bool) -> tuple[Array, Array]:
    """How many neighbours of each cell are of type 1 and of type 2, itself not counted.

    Args:
        grid: [..., H, W]; with a torus the window must fit into it.
        radius: cells.
        torus: whether the grid has no border.

    Returns:
        [..., H, W] int32 twice, of empty cells too.
    """
    return tuple(window_sum(grid == kind, radius, torus) - (grid == kind) for kind in (1, 2))


def same_fraction(grid: Array, radius: int, torus: bool) -> tuple[Array, Array]:
    """Mean share of the own type among a resident's neighbours; who has none is left out.

    Returns:
        [...] float32 the fraction (0 if nobody has a neighbour), and the share of the residents who
        have a neighbour.
    """
    first, second = neighbours(grid, radius, torus)
    same, both = jnp.where(grid == 1, first, second), first + second
    counts = (grid > 0) & (both > 0)
    fraction = jnp.where(counts, same / jnp.maximum(both, 1), 0)
    num, residents = (_total(x).astype(jnp.float32) for x in (counts, grid > 0))
    return _total(fraction) / jnp.maximum(num, 1), num / jnp.maximum(residents, 1)


def block_counts(grid: Array, block: int) -> tuple[Array, Array]:
    """[..., B] float32 residents of type 1 and of type 2 in the blocks of `block` x `block` cells."""
    *batch, height, width = grid.shape
    grid = jnp.pad(grid, [(0, 0)] * len(batch) + [(0, -height % block), (0, -width % block)])
    rows, columns = -(-height // block), -(-width // block)
    cells = grid.reshape(*batch, rows, block, columns, block)
    count = lambda kind: (cells == kind).sum((-3, -1), dtype=jnp.int32).reshape(*batch, rows * columns)
    return count(1).astype(jnp.float32), count(2).astype(jnp.float32)


def dissimilarity(grid: Array, block: int) -> Array:
    """[...] D = 1/2 sum_b |a_b / A - c_b / C|: the share of a type that must move to be even."""
    first, second = (x / jnp.maximum(x.sum(-1, keepdims=True), 1) for x in block_counts(grid, block))
    return jnp.abs(first - second).sum(-1) / 2


def isolation(grid: Array, block: int) -> Array:
    """[...] sum_b (a_b / A)(a_b / t_b), the share of type 1 in the block of a mean resident of type 1.

    One less this is their exposure to type 2. It is not the same for both types.
    """
    first, second = block_counts(grid, block)
    shares = first / jnp.maximum(first.sum(-1, keepdims=True), 1)
    return (shares * first / jnp.maximum(first + second, 1)).sum(-1)


def theil(grid: Array, block: int) -> Array:
    """[...] H = sum_b t_b (E - E_b) / (E T), 0 even to 1 separated; 0 where there is one type."""
    first, second = block_counts(grid, block)
    total = first + second
    whole = _entropy(first.sum(-1), second.sum(-1))
    within = (total * _entropy(first, second)).sum(-1) / jnp.maximum(total.sum(-1), 1)
    return jnp.where(whole > 0, 1 - within / jnp.where(whole > 0, whole, 1), 0)


def block_entropy(grid: Array, block: int) -> Array:
    """[...] nats, mean of E_b over the blocks with residents, each counted once."""
    first, second = block_counts(grid, block)
    return _entropy(first, second).sum(-1) / jnp.maximum((first + second > 0).sum(-1), 1)


def multiscale_theil(grid: Array, blocks: Sequence[int] = BLOCKS) -> Array:
    """[...] mean of `theil` over block sizes: 1 separated at all of them."""
    return sum(theil(grid, block) for block in blocks) / len(blocks)


def multiscale_entropy(grid: Array, blocks: Sequence[int] = BLOCKS) -> Array:
    """[...] nats, mean of `block_entropy` over block sizes: 0 separated, log 2 evenly mixed."""
    return sum(block_entropy(grid, block) for block in blocks) / len(blocks)


def interface_density(grid: Array, torus: bool) -> Array:
    """[...] share of unlike pairs among all pairs of neighbours (radius 1); 0 without a pair."""
    like_first, like_second, unlike = _pairs(grid, torus)
    return 2 * unlike / jnp.maximum(like_first + like_second + 2 * unlike, 1)


def morans_i(grid: Array, torus: bool) -> Array:
    """[...] Moran's I of x = -1, +1 on occupied cells, weights 1 between neighbours (radius 1).

    I = (n / W) sum_ij w_ij z_i z_j / sum_i z_i^2, z_i = x_i - mean x, n residents, W ordered pairs;
    0 where there is one type or no pair.
    """
    first, second = (_total(grid == kind).astype(jnp.float32) for kind in (1, 2))
    num = jnp.maximum(first + second, 1)
    mean = (second - first) / num
    low, high = -1 - mean, 1 - mean  # z of type 1 and of type 2
    like_first, like_second, unlike = _pairs(grid, torus)
    weights = like_first + like_second + 2 * unlike
    covariance = like_first * low**2 + like_second * high**2 + 2 * unlike * low * high
    spread = first * low**2 + second * high**2
    defined = (first > 0) & (second > 0) & (weights > 0)
    return jnp.where(defined, num * covariance / jnp.where(defined, weights * spread, 1), 0)


def cluster_labels(grid: Array, torus: bool) -> Array:
    """[H, W] int32, the first cell number of everyone's same-type cluster (radius 1), H W where empty.

    Labels flow to neighbours and to whom they name (pointer jumping), so that the rounds grow as the
    logarithm of a cluster's length. Of one grid; vmap adds batches.
    """
    height, width = grid.shape
    nowhere, occupied = height * width, grid > 0
    own = jnp.arange(nowhere, dtype=jnp.int32).reshape(height, width)
    around = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    at = lambda x, i, j: shifted(shifted(x, i, -2, torus), j, -1, torus)
    linked = [(at(grid, *where) == grid) & occupied for where in around]

    def turn(now: tuple[Array, Array]) -> tuple[Array, Array]:
        label = now[0]
        lowest = label
        for where, link in zip(around, linked, strict=True):
            lowest = jnp.where(link, jnp.minimum(lowest, at(label, *where)), lowest)
        flat = jnp.append(label.ravel(), nowhere).at[label.ravel()].min(lowest.ravel())
        flat = jnp.minimum(flat, jnp.append(lowest.ravel(), nowhere))
        flat = flat[flat]
        new = flat[flat][:-1].reshape(height, width)
        return new, (new != label).any()

    start = jnp.where(occupied, own, nowhere), jnp.asarray(True)
    return jax.lax.while_loop(lambda now: now[1], turn, start)[0]


def clusters(grid: Array, torus: bool) -> tuple[Array, Array]:
    """[] float32 number of same-type clusters of one grid [H, W], and their mean size in residents."""
    label = cluster_labels(grid, torus)
    own = jnp.arange(grid.size, dtype=jnp.int32).reshape(grid.shape)
    num = _total(label == own).astype(jnp.float32)
    return num, _total(grid > 0) / jnp.maximum(num, 1)


def shuffled(key: Array, grid: Array) -> Array:
    """[H, W] the grid with its types dealt anew over the occupied cells; their numbers stay."""
    flat = grid.ravel()
    first, both = (flat == 1).sum(), (flat > 0).sum()
    order = jax.random.permutation(key, flat.size)
    order = order[jnp.argsort(flat[order] == 0, stable=True)]  # occupied cells first, in random order
    place = jnp.arange(flat.size)
    kind = jnp.where(place < first, 1, jnp.where(place < both, 2, 0)).astype(grid.dtype)
    return jnp.zeros_like(flat).at[order].set(kind).reshape(grid.shape)


def against_null(
    key: Array, grid: Array, index: Callable[[Array], Array], num_shuffles: int
) -> dict[str, Array]:
    """An index of one grid [H, W] held against what it is when the types are shuffled over occupied cells.

    Args:
        key: of the shuffles.
        grid: [H, W].
        index: [H, W] -> [].
        num_shuffles: N, at least 2.

    Returns:
        `value`, `null` (mean over shuffles), `excess` = value - null, and `z` = excess / standard deviation
        over shuffles (0 where they do not differ), each [].
    """
    null = jax.lax.map(lambda k: index(shuffled(k, grid)), jax.random.split(key, num_shuffles))
    value, mean, spread = index(grid), null.mean(), null.std(ddof=1)
    z = jnp.where(spread > 0, (value - mean) / jnp.where(spread > 0, spread, 1), 0)
    return {"value": value, "null": mean, "excess": value - mean, "z": z}


def _total(x: Array) -> Array:
    """[...] sum over the grid; of booleans int32."""
    return x.sum((-2, -1), dtype=jnp.int32 if x.dtype == bool else None)


def _entropy(first: Array, second: Array) -> Array:
    """[...] nats, entropy of the shares of two counts; 0 where both are 0."""
    total = jnp.maximum(first + second, 1)
    part = lambda p: -p * jnp.log(jnp.where(p > 0, p, 1))
    return part(first / total) + part(second / total)


def _pairs(grid: Array, torus: bool) -> tuple[Array, Array, Array]:
    """[...] float32 ordered pairs of neighbours of type 1, of type 2, and pairs from type 1 to type 2."""
    first, second = neighbours(grid, 1, torus)
    count = lambda kind, near: jnp.where(grid == kind, near, 0).sum((-2, -1)).astype(jnp.float32)
    return count(1, first), count(2, second), count(1, second)
