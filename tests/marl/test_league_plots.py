"""League pictures: what stands in which cell."""

import pytest

from marl import league_plots

METRICS = {
    "a|cross": (0.25, 0.2),
    "a|self": (0.3, 0.3),
    "a|cooperator": (0.35, -0.001),
    "cooperator|self": (0.5, 0.5),
}


@pytest.fixture
def written(monkeypatch):
    """{(row, column): texts} of the picture that is drawn."""
    found = {}
    plain = league_plots._heat_map

    def spied(*arguments):
        figure, write = plain(*arguments)

        def spy(row, column, text, **style):
            found.setdefault((row, column), []).append(text)
            write(row, column, text, **style)

        return figure, spy

    monkeypatch.setattr(league_plots, "_heat_map", spied)
    return found


def draw(path, rows, columns, reference):
    metrics = {
        f"{k}/{side}": {"mean": v[i]} for k, v in METRICS.items() for i, side in enumerate(("row", "column"))
    }
    options = {"title": "", "league": "league", "labels": {"a": "A"}, "show_reference": True, "path": path}
    summaries = {"league": {"metrics": metrics}}
    league_plots.against_reference(
        summaries=summaries, rows=rows, columns=columns, reference=reference, **options
    )


def test_published_rewards_stand_below_ours(written, tmp_path):
    reference = {"a|cross": [0.28, 0.28], "cooperator|self": [0.347, 0.347], "b|cross": [1.0, 1.0]}
    draw(tmp_path / "x.png", ["a", "cooperator"], ["a", "cooperator"], reference)
    assert written == {
        (0, 0): ["0.25 | 0.20", "(0.28 | 0.28)"],
        (0, 1): ["0.35 | 0.00"],
        (1, 1): ["0.50 | 0.50", "(0.35 | 0.35)"],
    }
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_own_seeds_and_other_seeds_can_be_columns(written, tmp_path):
    draw(tmp_path / "x.png", ["a"], ["cross", "self", "cooperator"], {"a|self": [0.32, 0.32]})
    assert written == {
        (0, 0): ["0.25 | 0.20"],
        (0, 1): ["0.30 | 0.30", "(0.32 | 0.32)"],
        (0, 2): ["0.35 | 0.00"],
    }


def test_a_league_in_which_not_all_met_is_drawn_where_they_did(written, tmp_path):
    cell = lambda row, column: {
        "row": row,
        "column": column,
        "row_reward": 1.0,
        "column_reward": 2.0,
        "pairs": 1,
    }
    league_plots.league_matrix([cell("a", "a"), cell("a", "c"), cell("b", "c")], tmp_path / "x.png", "")
    assert written == {place: ["1.00\n| 2.00"] for place in ((0, 0), (0, 1), (1, 1))}
