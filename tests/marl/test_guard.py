"""Numbers that are not finite: found in their chunk, skipped or stopped at, and never averaged."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_game import MatrixGame
from marl.config import compose
from marl.guard import Health, all_finite, skips_allowed
from marl.metrics_log import read_rows
from marl.run import run
from tests.runs import TINY

BAD = {"nan": jnp.nan, "inf": jnp.inf}


def spoil_rewards(monkeypatch, value, prob):
    """The matrix games pay `value` instead of a reward with probability `prob` a step."""
    honest = MatrixGame.step

    def step(self, key, state, action):
        state, ts = honest(self, key, state, action)
        bad = jax.random.uniform(jax.random.fold_in(key, 7)) < prob
        return state, ts.replace(reward=jnp.where(bad, value, ts.reward))

    monkeypatch.setattr(MatrixGame, "step", step)


def test_integers_are_finite_and_one_nan_is_enough():
    tree = {"a": jnp.arange(3), "b": jnp.ones(2)}
    assert all_finite(tree)
    assert all_finite({"a": jnp.arange(3)})
    assert not all_finite(tree | {"c": jnp.array([1.0, jnp.nan])})
    assert not all_finite(tree | {"c": jnp.array(-jnp.inf)})


def test_policies_are_read_from_text():
    assert skips_allowed("stop") is None
    assert skips_allowed("skip:3") == 3
    for text in ("skip", "skip:", "skip:-1", "go"):
        with pytest.raises(ValueError, match="must be stop or skip:K"):
            skips_allowed(text)


@pytest.mark.parametrize("kind", BAD)
def test_a_reward_that_is_not_finite_stops_the_run_with_a_crash_report(monkeypatch, tmp_path, capsys, kind):
    spoil_rewards(monkeypatch, BAD[kind], 1.0)
    result = run(compose(TINY), tmp_path / "run")
    assert (result.exit_code, result.summary) == (5, None)
    assert len(read_rows(tmp_path / "run/metrics.jsonl")) == 1
    crash = json.loads((tmp_path / "run/crash/crash.json").read_text())
    assert crash["updates"] == [0, 4]
    assert crash["metrics"]["finite"] == [0.0, 0.0]
    assert not list((tmp_path / "run").glob("checkpoints/*.json"))
    assert "not finite are" in capsys.readouterr().err


def test_a_huge_learning_rate_is_found_and_the_last_good_checkpoint_kept(tmp_path):
    folder = tmp_path / "run"

    def stop_good_run(done, total, rate):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(compose([*TINY, "checkpoint_every=1"]), folder, stop_good_run)
    changed = [*TINY, "algo.learning_rate=1e30", "force_resume=true"]
    assert run(compose(changed), folder).exit_code == 5
    crash = json.loads((folder / "crash/crash.json").read_text())
    assert crash["newest_checkpoint"] == 4
    assert [p.stem for p in (folder / "checkpoints").glob("*.json")] == ["4"]


def test_only_the_swept_value_that_diverges_is_lost(tmp_path, capsys):
    swept = ["+sweep.algo.learning_rate=[1e-3,1e30]"]
    result = run(compose([*TINY, *swept]), tmp_path / "run")
    assert result.exit_code == 0
    reward = result.summary["metrics"]["reward"]
    assert reward["n"] == [2, 0]
    assert reward["per_seed"][1] == [None, None]
    assert [p.split(" at ")[0] for p in result.summary["lost"]] == ["seed 0", "seed 1"]
    assert "1e+30" in result.summary["lost"][0]
    assert "left out: seed 0 at" in capsys.readouterr().out


def test_skipping_leaves_out_bad_updates_and_stops_after_k(monkeypatch, tmp_path):
    spoil_rewards(monkeypatch, jnp.nan, 0.002)  # 2 seeds x 20 updates of 32 steps: about one in fifteen
    result = run(compose([*TINY, "nan_policy=skip:20"]), tmp_path / "many")
    skipped = sum(np.asarray(row["metrics"]["skipped"]) for row in read_rows(tmp_path / "many/metrics.jsonl"))
    assert result.exit_code == 0
    assert 0 < skipped.sum() < 20
    assert result.summary["metrics"]["loss/entropy"]["n"] == 2
    spoil_rewards(monkeypatch, jnp.nan, 1.0)
    assert run(compose([*TINY, "nan_policy=skip:7"]), tmp_path / "all").exit_code == 5
    rows = read_rows(tmp_path / "all/metrics.jsonl")
    assert [row["update"] for row in rows] == [4, 8]  # 4 skips are allowed, 8 are not


def test_a_resumed_run_remembers_who_is_lost():
    first = {"metrics": {"finite": [1.0, 0.0], "reward": [0.5, None]}}
    health = Health("stop", [first])
    judged = health.judge({"finite": np.array([1.0, 1.0]), "reward": np.array([0.25, 0.25])})
    assert health.lost.tolist() == [False, True]
    np.testing.assert_array_equal(judged["reward"], [0.25, np.nan])
    assert judged["finite"].tolist() == [1.0, 0.0]


def test_all_updates_skipped_up_to_k_are_counted_over_the_whole_run():
    health = Health("skip:3", [{"metrics": {"finite": [1.0], "skipped": [2.0]}}])
    health.judge({"finite": np.array([1.0]), "skipped": np.array([1.0])})
    assert not health.lost.any()
    health.judge({"finite": np.array([1.0]), "skipped": np.array([1.0])})
    assert health.lost.all()
