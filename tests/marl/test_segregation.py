"""Segregation measures: hand-made grids, and the layouts whose values the sources' re-implementations agree on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from marl import segregation

KEY = jax.random.key(0)
HAND = np.array([[1, 1, 0, 2], [0, 2, 0, 2], [1, 0, 0, 0], [1, 1, 0, 2]], np.int8)


def measures(grid):
    """All of the table's numbers for one grid [50, 50] on a torus."""
    near, has_near = segregation.same_fraction(grid, 1, True)
    return {
        "same_fraction": near,
        "share_with_neighbour": has_near,
        "same_fraction_11": segregation.same_fraction(grid, 5, True)[0],
        "dissimilarity": jnp.stack([segregation.dissimilarity(grid, k) for k in segregation.BLOCKS]),
        "theil": jnp.stack([segregation.theil(grid, k) for k in segregation.BLOCKS]),
        "multiscale": segregation.multiscale_theil(grid),
        "entropy": segregation.multiscale_entropy(grid),
        "morans_i": segregation.morans_i(grid, True),
        "interface": segregation.interface_density(grid, True),
    }


over_grids = jax.jit(jax.vmap(measures))


def scattered(halves, num_grids=30):
    """[N, 50, 50] grids, 5 % of each type at random; with `halves` type 1 is left and type 2 right."""
    draws = np.random.default_rng(0).random((num_grids, 50, 50))
    grid = np.where(draws < 0.05, 1, np.where(draws < 0.1, 2, 0)).astype(np.int8)
    return np.where(grid > 0, 1 + (np.arange(50) >= 25), 0).astype(np.int8) if halves else grid


def compact():
    """[1, 50, 50], two clusters of 11 x 11."""
    grid = np.zeros((1, 50, 50), np.int8)
    grid[0, 7:18, 7:18], grid[0, 32:43, 32:43] = 1, 2
    return grid


TABLE = {  # layout: same fraction, share with a neighbour, same fraction 11x11, D and H at 5, 10, 25, Moran's I
    "random": (0.504, 0.575, 0.498, (0.488, 0.241, 0.077), (0.351, 0.072, 0.007), 0.0),
    "halves": (0.972, 0.566, 0.890, (1.0, 0.842, 1.0), (1.0, 0.813, 1.0), 0.94),
    "compact": (1.0, 1.0, 1.0, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 1.0),
}


@pytest.mark.parametrize("layout", TABLE)
def test_layouts_have_the_values_of_the_table(layout):
    grids = compact() if layout == "compact" else scattered(layout == "halves")
    found = {name: np.asarray(x) for name, x in over_grids(grids).items()}
    names = "same_fraction", "share_with_neighbour", "same_fraction_11", "dissimilarity", "theil", "morans_i"
    for name, expected in zip(names, TABLE[layout], strict=True):
        # both are means of 30 grids
        noise = 3 * found[name].std(0) * np.sqrt(2 / 30) + 0.006 * (layout != "compact") + 1e-6
        assert (abs(found[name].mean(0) - expected) <= noise).all(), (name, found[name].mean(0), noise)
    np.testing.assert_allclose(found["multiscale"], found["theil"].mean(-1), rtol=1e-5)


def test_exchanging_the_types_changes_nothing():
    grid = scattered(True, 4)
    exchanged = np.array([0, 2, 1], np.int8)[grid]
    for one, other in zip(*(jax.tree.leaves(over_grids(x)) for x in (grid, exchanged)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for one, other in zip(*(segregation.clusters(x[0], True) for x in (grid, exchanged)), strict=True):
        assert one == other


def test_neighbours_of_a_hand_made_grid():
    first, second = segregation.neighbours(HAND, 1, False)
    assert first.tolist() == [[1, 1, 1, 0], [3, 3, 1, 0], [2, 3, 1, 0], [2, 2, 1, 0]]
    assert second.tolist() == [[1, 1, 3, 1], [1, 0, 3, 1], [1, 1, 3, 2], [0, 0, 1, 0]]
    first, second = segregation.neighbours(HAND, 1, True)  # the corner sees the other three corners
    assert (first[0, 0], second[0, 0]) == (3, 4)


@pytest.mark.parametrize("torus", [True, False])
@pytest.mark.parametrize("radius", [1, 2])
def test_same_fraction_as_in_slow_loops(torus, radius):
    grid = scattered(False, 1)[0, :9, :12] + scattered(True, 2)[1, :9, 20:32]
    grid = np.where(grid > 2, 2, grid)
    shares, residents = [], 0
    for i, j in np.argwhere(grid):
        residents += 1
        near = []
        for a in range(i - radius, i + radius + 1):
            for b in range(j - radius, j + radius + 1):
                inside = torus or (0 <= a < 9 and 0 <= b < 12)
                if (a, b) != (i, j) and inside and grid[a % 9, b % 12]:
                    near.append(grid[a % 9, b % 12] == grid[i, j])
        shares += [np.mean(near)] if near else []
    found = segregation.same_fraction(grid, radius, torus)
    np.testing.assert_allclose(found, [np.mean(shares), len(shares) / residents], rtol=1e-6)


def test_indices_of_a_hand_made_grid():
    # without a torus: the pairs are 1-1 four times, 2-2 once, 1-2 three times
    assert np.isclose(segregation.interface_density(HAND, False), 3 / 8)
    # x: 5 residents of -1, 4 of +1; mean -1/9, z = -8/9 and 10/9
    z = np.array([-8 / 9, 10 / 9])
    expected = 9 / 16 * (8 * z[0] ** 2 + 2 * z[1] ** 2 + 6 * z[0] * z[1]) / (5 * z[0] ** 2 + 4 * z[1] ** 2)
    assert np.isclose(segregation.morans_i(HAND, False), expected)


def test_blocks_of_a_hand_made_grid():
    # blocks of 2: residents of type 1 are 2, 0, 3, 0 and of type 2 1, 2, 0, 1
    first, second = segregation.block_counts(HAND, 2)
    assert (first.tolist(), second.tolist()) == ([2, 0, 3, 0], [1, 2, 0, 1])
    assert np.isclose(segregation.dissimilarity(HAND, 2), 0.75)
    assert np.isclose(segregation.isolation(HAND, 2), 2 / 5 * 2 / 3 + 3 / 5)
    entropy = lambda p: -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert np.isclose(segregation.theil(HAND, 2), 1 - 3 / 9 * entropy(2 / 3) / entropy(5 / 9))
    assert np.isclose(segregation.block_entropy(HAND, 2), entropy(2 / 3) / 4)
    assert np.isclose(segregation.block_entropy(HAND, 4), entropy(5 / 9))
    # a block of 3 leaves a last row and column of their own
    assert segregation.block_counts(HAND, 3)[0].tolist() == [3, 0, 2, 0]


def test_one_type_or_nobody_is_no_error():
    for grid in (np.zeros((5, 5), np.int8), np.eye(5, dtype=np.int8)):
        found = [*segregation.same_fraction(grid, 1, False), segregation.theil(grid, 5)]
        found += [segregation.morans_i(grid, False), segregation.interface_density(grid, False)]
        found += [*segregation.clusters(grid, False), segregation.block_entropy(grid, 5)]
        assert np.isfinite(found).all()
        assert found[2:5] == [0, 0, 0]


def test_clusters():
    assert np.allclose(segregation.clusters(HAND, False), [5, 9 / 5])
    # the torus joins all of type 1 over the corner, and the second 2 with the last over it
    assert [float(x) for x in segregation.clusters(HAND, True)] == [3, 3]
    count = jax.jit(segregation.clusters, static_argnums=1)
    for seed in range(4):
        grid = np.random.default_rng(seed).integers(0, 3, (50, 50)).astype(np.int8)
        expected = sum(ndimage.label(grid == kind, np.ones((3, 3)))[1] for kind in (1, 2))
        assert count(grid, False)[0] == expected
    spiral = np.zeros((9, 9), np.int8)
    for k, row in enumerate(range(0, 9, 2)):
        spiral[row] = 1
        if row < 8:
            spiral[row + 1, -1 if k % 2 == 0 else 0] = 1
    assert [float(x) for x in segregation.clusters(spiral, False)] == [1, 49]
    assert int(segregation.cluster_labels(spiral, False).max()) == 81


def test_shuffles_keep_places_and_numbers_and_give_the_null():
    grid = jnp.asarray(scattered(True, 1)[0])
    mixed = segregation.shuffled(KEY, grid)
    assert ((mixed > 0) == (grid > 0)).all()
    assert (mixed == 1).sum() == (grid == 1).sum()
    assert mixed.dtype == grid.dtype
    index = lambda x: segregation.same_fraction(x, 1, True)[0]
    found = jax.jit(lambda key, x: segregation.against_null(key, x, index, 50))(KEY, grid)
    assert abs(found["null"] - 0.5) < 0.03
    assert np.isclose(found["excess"], found["value"] - found["null"])
    assert found["z"] > 8
    again = jax.jit(lambda key, x: segregation.against_null(key, x, index, 50))(KEY, mixed)
    assert abs(again["z"]) < 3
