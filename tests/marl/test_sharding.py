"""Seeds shared out over devices: the same numbers, and clear words where it cannot be."""

import json

import numpy as np
import pytest

from marl.config import compose
from marl.sharding import num_devices, over_devices
from marl.validation import ConfigError
from tests.runs import command

SMALL = ("env=prisoners_dilemma", "num_seeds=2", "num_envs=8", "total_steps=4000", "log_every=2")


def rows(folder):
    return [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("more", [(), ("+sweep.algo.ent_coef=[0.0,0.1]",)])
def test_two_devices_find_what_one_does(more, tmp_path):
    found = {}
    for num in (1, 2):
        folder = tmp_path / str(num)
        done = command("train", *SMALL, *more, f"num_devices={num}", f"run_dir={folder}", "device=cpu")
        assert done.returncode == 0, done.stderr
        found[num] = rows(folder)
    assert len(found[1]) == len(found[2]) > 1
    for one, two in zip(found[1], found[2], strict=True):
        assert one.keys() == two.keys()
        for name in one:
            pair = (np.array(x[name], np.float64) for x in (two, one))  # nan where no episode ended
            np.testing.assert_allclose(*pair, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_run_may_go_on_with_more_devices(tmp_path):
    again = ("train", *SMALL[:-2], f"run_dir={tmp_path}", "device=cpu")
    assert command(*again, "total_steps=2000").returncode == 0
    done = command(*again, "total_steps=4000", "num_devices=2")
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout


@pytest.mark.parametrize(
    ("more", "told"),
    [("num_devices=1000", "num_devices=1000: there are"), ("num_devices=0", "num_devices=0: must be")],
)
def test_what_cannot_be_is_said(more, told):
    with pytest.raises(ConfigError, match=told):
        num_devices(compose([*SMALL, more]))


def test_one_device_needs_no_mesh():
    many = lambda x: x
    assert over_devices(many, 1, (0,)) is many
    assert num_devices(compose([*SMALL])) == 1
    assert num_devices({"num_seeds": 3}) == 1
