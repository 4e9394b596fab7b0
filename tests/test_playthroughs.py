"""Ten fixed steps of every game in configs/env, kept as text in tests/playthroughs.

A change of behaviour shows as a diff of these files in review. If it is meant, or a game is
new, write them anew with

    python -m pytest tests/test_playthroughs.py --regenerate-playthroughs

and look at the diff. A step shows each seat's action and reward, how the episode stands, the
events that happened, and what was seen: numbers of "vector" (long ones as a checksum), a
checksum of "grid" and, if it is small, what seat 0 saw. The moves are drawn without jax.
"""

import random
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from gymnasium import spaces
from omegaconf import OmegaConf

from marl.build import build_env
from marl.config import compose, groups

FOLDER = Path(__file__).parent / "playthroughs"
GAMES = groups()["env"]
STEPS = 10
SHOWN = 8  # numbers of a vector that are shown in full
DRAWN = 64  # cells of a grid that is drawn
DIGITS = ".123456789abcdefghijklmnopqrstuvwxyz"


def moves(space, mask, time):
    """A legal action for every seat, drawn by its place and the time; `mask` is [A, N]."""
    turn = [random.Random(f"{seat} {time}").getrandbits(32) for seat in range(len(mask))]
    pick = lambda row, n: np.flatnonzero(row)[n % row.sum()]
    if isinstance(space, spaces.Discrete):
        return np.array([pick(row, n) for row, n in zip(mask, turn, strict=True)], np.int32)
    if isinstance(space, spaces.MultiDiscrete):
        parts = np.split(mask, np.cumsum(space.nvec)[:-1], axis=-1)
        columns = [[pick(row, n + i) for row, n in zip(p, turn, strict=True)] for i, p in enumerate(parts)]
        return np.array(columns, np.int32).T
    low, high = np.maximum(space.low, -1.0), np.minimum(space.high, 1.0)
    share = (np.asarray(turn) % 5 / 4).reshape(-1, *(1,) * low.ndim)
    return (low + share * (high - low)).astype(np.float32)


def numbers(x):
    """Numbers as short text, without the sign of a zero."""
    return " ".join(f"{float(v):.4g}" for v in np.ravel(x) + 0.0)


def checksum(x):
    """Eight hexadecimal digits; floats count to four digits, so that rounding does not matter."""
    x = np.asarray(x)
    content = x.tobytes() if x.dtype == np.uint8 else numbers(x).encode()
    return f"{zlib.crc32(content):08x}"


def drawing(grid):
    """A small grid [H, W, L] as rows: codes of one layer, or which of up to five layers hold something."""
    layers = grid.shape[-1]
    if grid[..., 0].size <= DRAWN and layers <= 5:
        cells = grid[..., 0] if layers == 1 else (grid > 0) @ (1 << np.arange(layers))
        rows = ("".join(DIGITS[min(cell, 35)] for cell in row) for row in cells)
        yield f"  seat 0 {' '.join(rows)}"


def describe(ts):
    """Lines that say what a TimeStep holds."""
    end = "terminated" if ts.terminated else "truncated" if ts.truncated else "running"
    yield f"  reward {numbers(ts.reward)}  {end}"
    happened = [f"{name} {numbers(x)}" for name, x in sorted(ts.events.items()) if np.any(x)]
    if happened:
        yield f"  events {', '.join(happened)}"
    if not ts.action_mask.all():
        yield f"  legal {' '.join(''.join('01'[m] for m in row) for row in ts.action_mask.astype(int))}"
    if "vector" in ts.obs:
        vector = ts.obs["vector"]
        seen = map(numbers, vector) if vector.shape[-1] <= SHOWN else map(checksum, vector)
        yield f"  vector {' | '.join(seen)}"
    if "grid" in ts.obs:
        yield f"  grid {' '.join(map(checksum, ts.obs['grid']))}"
        yield from drawing(ts.obs["grid"][0])


def playthrough(env):
    """The text of ten steps."""
    key = jax.random.key(0)
    state, ts = jax.jit(env.reset)(key)
    step = jax.jit(env.step)
    ts = jax.tree.map(np.asarray, ts)
    shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in sorted(ts.obs.items()))
    lines = [f"seats {env.num_agents}, actions {env.action_space}, observation {shapes}", "start"]
    lines += describe(ts)
    for time in range(STEPS):
        if ts.done:
            break
        action = moves(env.action_space, ts.action_mask, time)
        state, ts = step(jax.random.fold_in(key, time), state, action)
        ts = jax.tree.map(np.asarray, ts)
        lines += [f"step {time + 1}: actions {numbers(action)}", *describe(ts)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("game", GAMES)
def test_game_plays_as_written(game, request):
    node = OmegaConf.to_container(compose([f"env={game}"]).env)
    env = build_env(OmegaConf.create({"env": node, "mechanism": {}}))
    path, text = FOLDER / f"{game}.txt", playthrough(env)
    if request.config.getoption("--regenerate-playthroughs"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"write {path.name} with --regenerate-playthroughs"
    assert text == path.read_text(), f"{game} plays differently; see the docstring of this file"


def test_no_playthrough_is_left_of_a_game_that_is_gone():
    assert {p.stem for p in FOLDER.glob("*.txt")} <= set(GAMES)
