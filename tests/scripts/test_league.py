"""The league command: what it prints and writes, and one line for bad input."""

import csv
import json

import pytest

from marl.validation import ConfigError
from tests.runs import load_script


@pytest.fixture(scope="module")
def league():
    return load_script("league").league


def test_a_league_leaves_json_a_table_and_pictures(league, tmp_path, capsys):
    arguments = ["players=always_cooperate,always_defect", "env=prisoners_dilemma", "env.horizon=8"]
    small = ["num_envs=4", "algo.num_steps=8", "network=mlp", "network.hidden=[4]", "algo.num_minibatches=2"]
    assert league([*arguments, "episodes=2", f"out={tmp_path}", "exploit=100", *small]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert json.loads((tmp_path / "league.json").read_text()) == result
    assert [cell["row_reward"] for cell in result["cells"]] == [-1.0, -3.0, 0.0, -2.0]
    assert result["game"] == "env=prisoners_dilemma env.horizon=8"
    assert "cell 2 of 4: always_cooperate against always_defect: -3.000 | 0.000" in printed.err
    assert [one["victim"] for one in result["exploiters"]] == ["always_cooperate", "always_defect"]
    assert result["exploiters"][0]["steps"] == 128
    with (tmp_path / "league.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    for name in ("league.png", "exploiters.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], ["players=: name run folders and scripted players"]),
        (
            ["players=random,random", "seed=x", "greedy=1", "episods=3"],
            [
                "episods=3: no such option; there are players, out,",
                "players=random: named twice",
                "seed=x: must be a whole number",
                "greedy=1: must be true or false",
            ],
        ),
        (["players=random", "episodes=0"], ["episodes=0: must be a whole number of at least 1"]),
        (["players=random", "mechanism=[gifting]"], ["env=: name the game whose mechanism"]),
        (["players=random", "network=gru"], ["exploit=0: algo, network and num_envs describe exploiters"]),
        (["players=random"], ["env=: name the game; only scripted players are given"]),
    ],
)
def test_bad_input_is_named_all_at_once(league, arguments, messages):
    with pytest.raises(ConfigError) as caught:
        league(arguments)
    assert len(caught.value.errors) == len(messages)
    for found, expected in zip(caught.value.errors, messages, strict=True):
        assert found.startswith(expected)


def test_a_player_that_is_not_there_is_named_with_the_nearest(league):
    with pytest.raises(ConfigError, match=r"no player tit_for_tut, did you mean tit_for_tat\?"):
        league(["players=tit_for_tut", "env=prisoners_dilemma"])
