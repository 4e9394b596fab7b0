"""A small run, and how to look at what runs left behind."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from marl.build import load_run
from marl.metrics_log import read_rows

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "env.horizon=6",
    "num_envs=4",
    "num_seeds=2",
    "total_steps=640",
    "log_every=4",
    "checkpoint_every=2",
    "algo.num_steps=8",
    "network.hidden=[8]",
]  # 20 updates in 5 chunks
BRIEF = [
    "num_envs=4",
    "num_seeds=2",
    "total_steps=64",
    "log_every=1",
    "algo.num_steps=8",
    "network.hidden=[8]",
]  # 2 updates


def parameters(folder):
    """All parameters of a run's newest learners, as bytes."""
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(load_run(folder)[1])]


def rows(folder):
    """metrics.jsonl without the clock."""
    return [{k: v for k, v in row.items() if k != "wall_s"} for row in read_rows(folder / "metrics.jsonl")]


def variables(**more):
    """A user's environment with the tests' XLA_FLAGS, and `more`."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


def command(name, *arguments, cwd=ROOT, timeout=200, **more):
    """Run scripts/NAME.py as a user would; `more` are variables."""
    call = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(
        call, cwd=cwd, env=variables(**more), capture_output=True, text=True, timeout=timeout
    )


def load_script(name):
    """scripts/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
