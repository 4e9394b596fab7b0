"""What comes after training: leagues and exploiters of a figure's runs, kept while the runs stay the same."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from marl import after, league
from marl.config import compose, groups
from marl.experiment import after_training, plan
from marl.run import run
from marl.social_plots import curves_and_outcomes, rolling_curves
from marl.validation import ConfigError
from tests.files import written

TINY = ["env.horizon=4", "num_envs=2", "total_steps=16", "log_every=1", "network.hidden=[4]"]
TINY += ["algo.num_steps=4", "algo.num_epochs=1", "algo.num_minibatches=1"]
SIZES = {"seed": 0, "num_episodes": 4, "max_steps": 10, "greedy": False}
PLAYERS = ["a", "b", "always_cooperate", "always_defect"]
COUNTER = {"_target_": "tests.marl.test_after.counted", "by": 1}
SIDES = (lambda claim: claim.metric, lambda claim: claim.get("minus_metric", claim.metric))
calls = []


def counted(*, folders, by):
    """A node that counts its calls."""
    calls.append(by)
    return {"counted": {"metrics": {"calls": {"mean": len(calls), "per_seed": [by]}}, "sweep": []}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figure")
    run(compose([*TINY, "num_seeds=3"]), folder / "a")
    shutil.copytree(folder / "a", folder / "b")
    return {"a": folder / "a", "b": folder / "b"}


@pytest.fixture(scope="module")
def played(folders):
    return after.league(folders=folders, players=PLAYERS, pairs="all", **SIZES)["league"]


def test_a_league_gives_a_value_for_each_seed_of_the_row(played, folders):
    metrics = played["metrics"]
    sides = {"row", "column"}
    pairs = {f"{row}|{column}" for row in PLAYERS for column in PLAYERS if row != column}
    pairs |= {f"{name}|self" for name in PLAYERS} | {"a|cross", "b|cross"}
    assert metrics.keys() == {f"{pair}/{side}" for pair in pairs for side in sides}
    assert len(metrics["a|b/row"]["per_seed"]) == 3
    assert len(metrics["always_defect|a/row"]["per_seed"]) == 1
    assert metrics["always_cooperate|always_defect/row"]["mean"] == -3.0
    assert metrics["always_cooperate|self/column"]["mean"] == -1.0


def test_outcomes_are_those_of_each_run_among_its_own_seeds(folders):
    found = after.outcomes(folders=folders, **SIZES)
    assert found.keys() == {"a outcomes", "b outcomes"}
    one, same = (found[f"{run} outcomes"]["metrics"] for run in "ab")
    assert one == same
    assert len(one["efficiency"]["per_seed"]) == 3
    assert one["efficiency"]["mean"] == pytest.approx(2 * one["reward"]["mean"])
    assert "peace" not in one  # nobody is ever away


def test_curves_and_outcomes_are_drawn(folders):
    path = folders["a"].parent / "picture.png"
    curves_and_outcomes(
        summaries=after.outcomes(folders=folders, **SIZES),
        path=path,
        title="two runs",
        labels={"a": "one", "b": "other"},
        games={"dilemma": {"runs": ["a", "b"], "curves": [{"metric": "reward", "label": "reward"}]}},
    )
    with Image.open(path) as picture:
        assert picture.size == (round(2.5 * 5 * 110), round(3.4 * 110))


def test_a_stretch_of_training_has_the_metrics_of_its_rows(folders):
    rows = [json.loads(line) for line in (folders["a"] / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2]
    found = after.stretch(folders=folders, name="early", first=0.0, last=0.5)
    assert found.keys() == {"a early", "b early"}
    assert found["a early"]["metrics"]["reward"]["per_seed"] == pytest.approx(rows[0]["metrics"]["reward"])
    with pytest.raises(ConfigError, match=r"never: no row of metrics between 0\.1 and 0\.2 of a"):
        after.stretch(folders=folders, name="never", first=0.1, last=0.2)


def test_rolling_curves_are_drawn_of_the_runs_that_there_are(folders):
    path = folders["a"].parent / "rolling.png"
    rolling_curves(
        summaries=after.stretch(folders=folders, name="", first=0.0, last=1.0) | {"a": {}},
        path=path,
        title="one run",
        x_label="updates",
        updates_per_x=1,
        window=2,
        labels={"a": "one", "gone": "none"},
        panels=[{"metric": "reward", "label": "reward", "scale": 2}, {"metric": "none", "label": "nothing"}],
        columns=2,
        reference={"reward": {"a": -1.0, "gone": 0.0}},
        show_reference=True,
    )
    with Image.open(path) as picture:
        assert picture.size == (round(4.4 * 2 * 110), round(4.0 * 110))


def test_same_seeds_and_different_seeds_are_kept_apart(played, folders):
    with (folders["a"].parent / "league.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["row"] == row["column"] == "a"]
    reward = np.array([float(row["row_reward"]) for row in rows]).reshape(3, 3)
    metrics = played["metrics"]
    np.testing.assert_allclose(metrics["a|self/row"]["per_seed"], reward.diagonal())
    others = [(reward[i].sum() - reward[i, i]) / 2 for i in range(3)]
    np.testing.assert_allclose(metrics["a|cross/row"]["per_seed"], others)


def test_a_league_leaves_its_cells_and_a_picture(played, folders):
    folder = folders["a"].parent
    facts = json.loads((folder / "league.json").read_text())
    assert [one["name"] for one in facts["players"]] == PLAYERS
    assert len(facts["cells"]) == 16
    assert (folder / "league.png").read_bytes()[:4] == b"\x89PNG"


def test_runs_can_meet_only_themselves_and_scripted_players(folders):
    players = ["a", "b", "always_defect"]
    found = after.league(folders=folders, players=players, pairs="self_and_scripted", **SIZES)
    pairs = {name.split("/")[0] for name in found["league"]["metrics"]}
    assert pairs == {f"{run}|{other}" for run in "ab" for other in ("self", "cross", "always_defect")}


def test_an_exploiter_reports_its_gain_for_each_seed_of_a_victim(folders):
    small = ["network=mlp", "network.hidden=[4]", "num_envs=2", "algo.num_steps=4", "algo.num_minibatches=1"]
    found = after.exploiter(folders=folders, victims=["a"], learner=small, total_steps=16, **SIZES)
    metrics = found["exploiter"]["metrics"]
    assert {f"a/{name}" for name in ("gain", "victim_reward", "victim_loss")} < metrics.keys()
    gain = np.subtract(metrics["a/reward"]["per_seed"], metrics["a/self_play"]["per_seed"])
    np.testing.assert_allclose(metrics["a/gain"]["per_seed"], gain)
    assert len(gain) == 3
    assert (folders["a"].parent / "exploiters.png").read_bytes()[:4] == b"\x89PNG"


def test_a_node_is_called_again_only_if_it_or_a_run_changed(folders, tmp_path):
    calls.clear()
    call = lambda by, runs: after_training(
        OmegaConf.create({"count": COUNTER | {"by": by}}), {r: folders[r] for r in runs}, tmp_path
    )
    first = call(1, ["a"])
    assert call(1, ["a"]) == first
    assert calls == [1]
    call(2, ["a"])
    call(2, ["a", "b"])
    assert calls == [1, 2, 2]
    folders["b"].joinpath("checkpoints").rename(tmp_path / "away")
    call(2, ["a", "b"])
    (tmp_path / "away").rename(folders["b"] / "checkpoints")
    assert calls == [1, 2, 2, 2]


def test_two_summaries_of_one_title_are_refused(folders, tmp_path):
    nodes = OmegaConf.create({"first": COUNTER, "second": COUNTER})
    with pytest.raises(ConfigError, match=r"after.second: gives a summary counted; another node does too"):
        after_training(nodes, folders, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": "some"}, "pairs=some: must be one of all, self_and_scripted"),
        ({"folders": {}}, "there are no runs"),
    ],
)
def test_bad_leagues_are_named(folders, change, message):
    good = {"folders": folders, "players": ["a"], "pairs": "all"} | SIZES
    with pytest.raises(ConfigError, match=message):
        after.league(**good | change)


LEAGUES = [
    (name, scale)
    for name in groups()["experiment"]
    for figure in (written("experiment", name).get("figure", {}),)
    for scale in (figure["scales"] if "league" in (figure.get("after") or {}) else ())
]


@pytest.mark.parametrize(("name", "scale"), LEAGUES)
def test_claims_about_a_league_name_what_it_measures(name, scale):
    runs = plan(name, [], scale)
    cfg = next(iter(runs.values()))
    node, claims = cfg.figure.after.league, cfg.figure.claims[scale]
    wanted = after.PAIRS[node.pairs]
    met = [SimpleNamespace(name=player, setup=player in runs) for player in node.players]
    pairs = {f"{row.name}|{column.name}" for row in met for column in met if wanted(row, column)}
    pairs |= {
        f"{name}|{how}" for name in node.players for how in ("self", "cross") if f"{name}|{name}" in pairs
    }
    found = [claim for claim in claims if claim.run == "league"]
    assert {side(claim).split("/")[0] for claim in found for side in SIDES} <= pairs
    shown = (
        [cfg.figure.plot.reference, cfg.figure.plot.labels] if "reference" in cfg.figure.plot else [{}, {}]
    )
    assert set(shown[0]) <= pairs
    assert set(shown[1]) <= {*node.players, "self", "cross"}


def test_scripted_players_share_one_program(folders):
    env = league.entrant(str(folders["a"])).setup.env
    names = ["always_cooperate", "always_defect", "tit_for_tat", "grim"]
    entrants = [league.entrant(name) for name in names]
    before = league._play_pairs._cache_size()
    league.play_league(env, entrants, on_cell=lambda cell: None, **SIZES)
    assert league._play_pairs._cache_size() == before + 1
