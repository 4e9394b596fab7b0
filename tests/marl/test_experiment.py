"""Experiments: claims are held against the worst point they cover, results land in files."""

import csv
import json

import pytest

from marl.experiment import check_claims, plan, run_experiment
from marl.validation import ConfigError

SWEPT = {
    "sweep": [{"k": 0.0}, {"k": 1.0}, {"k": 2.0}],
    "metrics": {"m": {"iqm": [0.1, 0.5, 0.9], "per_seed": [[0.1], [0.5], [0.9]]}},
}
SINGLE = {"sweep": [], "metrics": {"m": {"iqm": 0.3, "per_seed": [0.3]}}}


def claim(**more):
    return {"says": "it holds", "run": "a", "metric": "m", "statistic": "iqm"} | more


@pytest.mark.parametrize(
    ("more", "met", "value", "where"),
    [
        ({"at_most": 0.5, "over": {"max": 1.0}}, True, 0.5, "k=1"),
        ({"at_most": 0.49, "over": {"max": 1.0}}, False, 0.5, "k=1"),
        ({"at_least": 0.9, "over": {"min": 2.0}}, True, 0.9, "k=2"),
        ({"at_least": 0.2}, False, 0.1, "k=0"),
        ({"at_most": 1.0, "over": {"min": 5.0}}, False, None, "no point"),
    ],
)
def test_a_claim_is_judged_by_its_worst_point(more, met, value, where):
    found = check_claims([claim(**more)], {"a": SWEPT})[0]
    assert (found.met, found.value, found.worst_at) == (met, value, where)


@pytest.mark.parametrize(
    ("more", "met", "value", "where"),
    [
        ({"run": "b", "minus": "a", "at_least": 0.09}, True, 0.1, "k=2"),
        ({"run": "b", "minus": "a", "at_least": 0.11}, False, 0.1, "k=2"),
        ({"run": "b", "minus": "a", "at_most": 0.31, "over": {"max": 1.0}}, True, 0.3, "k=1"),
        ({"minus": "b", "at_most": -0.09}, True, -0.1, "k=2"),
        ({"minus_metric": "n", "at_least": 0.0}, False, -0.9, "k=0"),
        ({"minus": "b", "minus_metric": "n", "at_most": 0.0}, False, None, "1.0"),
    ],
)
def test_a_claim_about_a_difference_subtracts_point_by_point(more, met, value, where):
    other = {"m": {"iqm": [0.3, 0.8, 1.0]}, "n": {"iqm": [0.2, None, 0.1]}}
    swept = {"sweep": SWEPT["sweep"], "metrics": SWEPT["metrics"] | {"n": {"iqm": [1.0, 0.5, 0.0]}}}
    found = check_claims([claim(**more)], {"a": swept, "b": {"sweep": SWEPT["sweep"], "metrics": other}})[0]
    assert (found.met, found.worst_at) == (met, where)
    assert found.value == (value if value is None else pytest.approx(value))


def test_a_claim_about_the_difference_of_two_metrics_of_one_run():
    single = {"sweep": [], "metrics": {"m": {"iqm": 0.5}, "n": {"iqm": 0.125}}}
    found = check_claims([claim(minus_metric="n", at_most=0.25)], {"a": single})[0]
    assert (found.met, found.value, found.worst_at) == (False, 0.375, "the end")


def test_a_claim_can_hold_the_low_end_of_one_run_against_the_high_end_of_another():
    sides = {"a": {"low": [0.5, 0.75], "high": [1.0, 1.0]}, "b": {"low": [0.0, 0.0], "high": [0.25, 0.625]}}
    summaries = {run: {"sweep": SWEPT["sweep"][:2], "metrics": {"m": ends}} for run, ends in sides.items()}
    apart = claim(statistic="low", minus="b", minus_statistic="high", at_least=0.125)
    found = check_claims([apart, claim(statistic="high", minus_statistic="low", at_most=0.5)], summaries)
    assert [(c.met, c.value, c.worst_at) for c in found] == [(True, 0.125, "k=1"), (True, 0.5, "k=0")]
    assert found[0].bound == "low - high at least 0.125"


def test_a_claim_about_a_single_run():
    found = check_claims([claim(at_least=0.25)], {"a": SINGLE})[0]
    assert (found.met, found.value) == (True, 0.3)


def test_unknown_scale_is_named(tmp_path):
    with pytest.raises(ConfigError, match="scale=huge: must be one of smoke, paper"):
        run_experiment("quickstart/punishment", [], "huge", tmp_path)


def test_an_experiment_leaves_picture_table_and_claims(tmp_path):
    tiny = ["num_seeds=2", "num_envs=2", "total_steps=640", "network.hidden=[4]"]
    outcome = run_experiment("quickstart/punishment", tiny, "smoke", tmp_path)
    assert outcome.exit_code == 0
    assert len(outcome.claims) == 3
    png = (tmp_path / "quickstart-punishment.png").read_bytes()
    assert png[:4] == b"\x89PNG"
    with (tmp_path / "quickstart-punishment.csv").open() as file:
        rows = list(csv.DictReader(file))
    fines = {row["value"] for row in rows if row["run"] == "institution"}
    assert len(fines) == 9
    assert {row["seed_index"] for row in rows} == {"0", "1"}
    facts = json.loads((tmp_path / "claims.json").read_text())
    assert [c["met"] for c in facts["claims"]] == [c.met for c in outcome.claims]


def test_a_run_may_differ_by_scale():
    runs = {scale: plan("dilemmas/common_vs_individual", [], scale) for scale in ("smoke", "paper")}
    names = {scale: cfgs["harvest_common"].env.layout for scale, cfgs in runs.items()}
    assert names == {"smoke": "commons_harvest_small", "paper": "commons_harvest_open"}
    assert [cfgs["clean_up_common"].env.num_players for cfgs in runs.values()] == [4, 7]


def test_a_run_may_be_left_out_at_a_scale():
    smoke, paper = (plan("dasgupta2023/cooperation", [], scale) for scale in ("smoke", "paper"))
    assert smoke.keys() < paper.keys()
    assert {cfg.total_steps // cfg.algo.num_steps for cfg in paper.values()} == {100_000}, "2000 episodes"


def test_what_is_measured_is_kept_until_the_figure_is_done(tmp_path, capsys):
    measure = lambda *overrides, only=None: run_experiment(
        "schelling/chicken", ["figure.measure.num_episodes=2", *overrides], "smoke", tmp_path, only
    )
    kept = tmp_path / "measured-game.json"
    measure("num_seeds=2", only="game")
    assert "kept in" not in capsys.readouterr().out
    first = kept.read_text()
    measure("num_seeds=2", only="game")
    assert f"measuring game: kept in {kept}" in capsys.readouterr().out
    measure("num_seeds=3", only="game")  # something else is asked
    assert len(json.loads(kept.read_text())["summaries"]["game"]["metrics"]["fear"]["per_seed"][0]) == 3
    kept.write_text(first)
    outcome = measure("num_seeds=2")
    assert "kept in" in capsys.readouterr().out
    assert all(claim.met for claim in outcome.claims)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "claims.json",
        "schelling-chicken.csv",
        "schelling-chicken.png",
    ]
