"""Boards: numbering, moves, views and beams, by hand on small maps; counts of the maps that come along."""

import numpy as np
import pytest

from envs.board import EAST, NORTH, SOUTH, WEST, Board, load_board, read_map

OPEN = ("WWWWWWW", "W..A..W", "W.....W", "WA.P..W", "W.....W", "W..A..W", "WWWWWWW")


def board(rows=OPEN, torus=False):
    return Board(tuple(rows), "W", torus, "AP")


def cell(b, row, column):
    return int(b.number[row, column])


def test_sites_are_numbered_side_by_side_in_reading_order():
    b = board()
    assert b.sites("A") == slice(0, 3)
    assert b.sites("P") == slice(3, 4)
    assert b.sites("Q") == slice(0, 0)
    rows, columns = b.row_column
    assert list(zip(rows[:4].tolist(), columns[:4].tolist(), strict=True)) == [(1, 3), (3, 1), (5, 3), (3, 3)]
    assert sorted(b.number.ravel()) == list(range(49))


def test_walls_hold_back_and_a_torus_leads_around():
    b = board()
    moves = b.moves.reshape(5, -1)
    at = cell(b, 1, 1)
    assert moves[:, at].tolist() == [at, cell(b, 1, 2), cell(b, 2, 1), at, at]
    assert (moves[:, b.nowhere] == b.nowhere).all()
    b = Board(("...", "...", "..."), "W", True, "")
    assert b.moves.reshape(5, -1)[:, 0].tolist() == [6, 1, 3, 2, 0]


@pytest.mark.parametrize(
    ("facing", "first", "last"),
    [(NORTH, (1, 2), (4, 4)), (EAST, (2, 5), (4, 2)), (SOUTH, (5, 4), (2, 2)), (WEST, (4, 1), (2, 4))],
)
def test_a_view_is_turned_so_that_ahead_is_up(facing, first, last):
    b = board()
    seen = b.window(2, 1, 1)[cell(b, 3, 3) * 4 + facing]
    assert len(seen) == 12
    assert seen[0] == cell(b, *first)
    assert seen[7] == cell(b, 3, 3)
    assert seen[-1] == cell(b, *last)


def test_a_view_shows_nowhere_outside_and_goes_around_a_torus():
    corner = board().number[0, 0]
    assert board().window(2, 1, 1)[corner * 4][0] == board().nowhere
    b = Board(("...", "...", "..."), "W", True, "")
    assert b.window(1, 1, 1)[0].tolist() == [8, 6, 7, 2, 0, 1, 5, 3, 4]


@pytest.mark.parametrize(("length", "radius", "cells"), [(3, 1, 9), (4, 1, 12), (3, 0, 3), (5, 1, 15)])
def test_footprints_of_beams(length, radius, cells):
    b = board(["." * 15] * 15)
    lanes = b.beam(length, radius)
    for facing in range(4):
        lane = lanes[cell(b, 7, 7) * 4 + facing]
        assert (lane <= b.nowhere).sum() == len(set(lane[lane < b.nowhere].tolist())) == cells


def test_a_beam_of_length_0_reaches_nothing():
    b = board(["." * 5] * 5)
    lanes = b.beam(0, 1)
    assert lanes.shape == ((b.nowhere + 1) * 4, 3, 1)
    assert (lanes == b.nowhere + 1).all()


def test_side_rays_start_beside_the_shooter():
    b = board(["." * 9] * 9)
    lanes = b.beam(3, 1)[cell(b, 4, 4) * 4 + NORTH]
    expected = [[(4, 3), (3, 3), (2, 3)], [(3, 4), (2, 4), (1, 4)], [(4, 5), (3, 5), (2, 5)]]
    assert lanes.tolist() == [[cell(b, *place) for place in ray] for ray in expected]


def test_walls_end_rays_and_a_blocked_first_cell_the_rays_beyond():
    rows = [list("." * 9) for _ in range(9)]
    rows[2][4] = rows[4][3] = "W"
    b = board(["".join(row) for row in rows])
    lanes = b.beam(3, 2)[cell(b, 4, 4) * 4 + NORTH]
    reached = (lanes < b.nowhere).sum(1)
    assert reached.tolist() == [0, 0, 1, 3, 2]  # far left, left, middle, right, far right


def test_neighbours_within_a_distance_are_counted_around_a_torus():
    b = Board(("AAAAA",) * 5, "W", True, "A")
    bits = np.unpackbits(b.near_masks("A", 4).view(np.uint8), axis=1)
    assert bits.sum(1).tolist() == [12] * 25
    b = board(["AAAAA"] * 5)
    counts = np.unpackbits(b.near_masks("A", 4).view(np.uint8), axis=1).sum(1)
    assert counts[0] == 5
    assert counts[12] == 12


HARVEST = {"A": 64, "P": 60, "Q": 2}


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("commons_harvest_open", (18, 24), HARVEST | {"W": 80}),
        ("commons_harvest_closed", (18, 24), HARVEST | {"W": 148}),
        ("commons_harvest_partnership", (18, 24), HARVEST | {"W": 134}),
    ],
)
def test_maps_have_the_counts_of_their_sources(name, shape, counts):
    b = load_board(name, "W", False, "APQ")
    assert b.shape == shape
    assert {letter: b.count(letter) for letter in counts} == counts


def test_a_map_that_is_not_there_or_ragged_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"env\.layout=moon: no such map; .*commons_harvest_open"):
        read_map("moon")
    path = tmp_path / "ragged.txt"
    path.write_text("..\n...\n")
    with pytest.raises(ValueError, match="equally long"):
        read_map(str(path))
