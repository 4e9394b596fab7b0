"""Comparisons of methods: what runs are called, and numbers by hand; runs are written, not trained."""

import csv
import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from marl.comparison import compare, ended, scores
from marl.config import compose
from marl.presets import labels
from marl.validation import ConfigError
from tests.runs import load_script


def config(*overrides):
    return OmegaConf.to_container(compose(overrides))


def write(folder, values, *overrides, sweep=()):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(compose(overrides)))
    summary = {"metrics": {"return": {"per_seed": values}}, "sweep": list(sweep)}
    (folder / "summary.json").write_text(json.dumps(summary))
    told = [[None for _ in values], values, values]  # no episode has ended in the first chunk
    rows = [{"update": i, "env_steps": 64 * i, "metrics": {"return": x}} for i, x in enumerate(told)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def found_in(folder, games):
    runs = ended([folder])
    return scores(runs, labels([run.cfg for run in runs], games), "return", games)


@pytest.mark.parametrize(
    ("runs", "games", "found"),
    [
        (
            [["env=stag_hunt"], ["env=chicken", "algo=dqn"]],
            ["env"],
            [("stag_hunt", "ppo"), ("chicken", "dqn")],
        ),
        (
            [["env=coin_game_pola", "env.horizon=9"], ["env=coin_game_pola", "env.horizon=8"]],
            ["env"],
            [("coin_game_pola horizon=9", "ppo"), ("coin_game_pola horizon=8", "ppo")],
        ),
        (
            [["env=chicken", "algo.gamma=0.5", "total_steps=1e3"], ["env=chicken", "seed=7", "log_every=3"]],
            ["env"],
            [("chicken", "ppo gamma=0.5 total_steps=1000"), ("chicken", "ppo gamma=0.96 total_steps=500000")],
        ),
        (
            [["env=chicken", "network=gru", "seats=shared"], ["env=chicken"]],
            ["env"],
            [("chicken", "ppo gru seats=shared"), ("chicken", "ppo mlp seats=independent")],
        ),
        (
            [["env=chicken", "mechanism=[gifting,reputation]"], ["env=chicken"]],
            ["env"],
            [("chicken", "+gifting+reputation ppo"), ("chicken", "ppo")],
        ),
        (
            [["env=chicken", "mechanism=[gifting]"], ["env=chicken"]],
            ["env", "mechanism"],
            [("chicken +gifting", "ppo"), ("chicken", "ppo")],
        ),
    ],
)
def test_runs_are_called_after_their_presets_and_what_tells_them_apart(runs, games, found):
    assert labels([config(*run) for run in runs], games) == found


def test_a_game_of_a_package_that_is_not_there_is_called_after_its_class():
    cfg = config("env=chicken")
    cfg["env"]["_target_"], cfg["plugins"] = "my_research.roads.Roads", ["my_research_elsewhere"]
    assert labels([cfg], ["env"]) == [("Roads", "ppo")]


def test_scores_and_how_often_one_method_beats_another_by_hand(tmp_path):
    write(tmp_path / "0", [1.0, 4.0], "env=chicken")
    write(tmp_path / "1", [1.0, None], "env=chicken", "algo=dqn")
    write(tmp_path / "2", [2.0], "env=chicken", "algo=dqn", "seed=5")
    write(tmp_path / "3", [0.0, 0.0], "env=stag_hunt")
    write(tmp_path / "4", [8.0, 10.0], "env=stag_hunt", "algo=dqn")
    found = found_in(tmp_path, ["env"])
    assert {game: {k: v.tolist() for k, v in cell.items()} for game, cell in found.items()} == {
        "chicken": {"ppo": [1.0, 4.0], "dqn": [1.0, 2.0]},  # a seed that was lost does not count
        "stag_hunt": {"ppo": [0.0, 0.0], "dqn": [8.0, 10.0]},
    }
    facts = compare(found, "return")
    told = facts["improvement"]["ppo"]["dqn"]
    assert told["probability"] == pytest.approx((2.5 / 4 + 0) / 2)
    assert facts["improvement"]["dqn"]["ppo"]["probability"] == pytest.approx(1 - told["probability"])
    assert 0 <= told["low"] <= told["probability"] <= told["high"] <= 0.5
    # relative to means of 1.5 and 2.5, and of 0 and 9; of four values the middle two count
    assert facts["relative"]["ppo"]["iqm"] == pytest.approx(np.mean([0.0, 0.0]))
    assert facts["relative"]["dqn"]["iqm"] == pytest.approx(np.mean([0.5, 8 / 9]))
    cell = next(c for c in facts["cells"] if (c["game"], c["method"]) == ("chicken", "ppo"))
    assert (cell["mean"], cell["n"]) == (2.5, 2)


def test_swept_values_are_methods_or_games(tmp_path):
    sweep = [{"mechanism.sanction.fine": 0.0}, {"mechanism.sanction.fine": 2.0}]
    write(tmp_path / "0", [[1.0], [2.0]], "env=chicken", "mechanism=[sanction]", sweep=sweep)
    assert list(found_in(tmp_path, ["env"])["chicken"]) == ["ppo sanction.fine=0", "ppo sanction.fine=2"]
    assert list(found_in(tmp_path, ["env", "mechanism"])) == [
        "chicken sanction.fine=0",
        "chicken sanction.fine=2",
    ]


def test_the_command_writes_tables_and_a_picture(tmp_path, capsys):
    for i, algo in enumerate(("ppo", "dqn", "lola")):
        write(tmp_path / "runs" / str(i), [float(i), i + 1.0], "env=stag_hunt", f"algo={algo}")
    script = load_script("compare")
    assert script.compare([f"runs={tmp_path}/runs", f"out={tmp_path}/out"]) == 0
    assert "lola" in capsys.readouterr().out
    with (tmp_path / "out" / "compare.csv").open() as file:
        assert list(csv.reader(file))[1:3] == [
            ["stag_hunt", "ppo", "0", "0.0"],
            ["stag_hunt", "ppo", "1", "1.0"],
        ]
    facts = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert facts["improvement"]["lola"]["ppo"]["probability"] == 1.0
    assert facts["relative"] == {}  # of one game
    assert all((tmp_path / "out" / f"{name}.png").stat().st_size > 5000 for name in ("compare", "curves"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["run=x"], "run=x: no such option"),
        (["runs=nowhere"], "runs=nowhere: no run in it has ended"),
        (["runs={runs}", "metric=retrun"], "metric=retrun: .* did you mean return?"),
        (["runs={runs}", "games=algo"], "games=algo: must be some of env, mechanism"),
        ([], "runs=: name folders of runs"),
    ],
)
def test_bad_input_is_named(tmp_path, options, says):
    write(tmp_path / "0", [1.0], "env=chicken")
    with pytest.raises(ConfigError, match=says):
        load_script("compare").compare([option.format(runs=tmp_path) for option in options])
