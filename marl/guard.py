"""What happens when numbers stop being finite: such updates are found, and may be skipped.

A policy `stop` costs nothing in the loop: what a chunk left behind is looked at once. A policy
`skip:K` checks every update, and keeps the learner as it was where the new one is not finite.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.algorithm import AlgorithmWrapper
from marl.checkpoint import valid_checkpoints, write_atomically
from marl.metrics import Tally
from marl.metrics_log import plain


def skips_allowed(policy: str) -> int | None:
    """K of the policy "skip:K", None for "stop".

    Raises:
        ValueError: for any other text.
    """
    kind, _, count = policy.partition(":")
    if kind == "skip" and count.isdigit():
        return int(count)
    if policy == "stop":
        return None
    raise ValueError(f"nan_policy={policy}: must be stop or skip:K with a whole number K")


def all_finite(tree: Any) -> Array:
    """[] bool, no leaf holds nan or infinity; integer leaves do not count."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all() if leaves else jnp.bool_(True)


def chunk_is_finite(learner: Any, obs: Any, tally: Tally, losses: dict[str, Array]) -> Array:
    """[] bool, whether learning and play stayed finite; the Tally and losses are those of the chunk."""
    return all_finite((learner, obs, tally.reward, losses))


class SkipNonFinite(AlgorithmWrapper):
    """`algo`, but an update that would leave parameters that are not finite changes nothing.

    Its metrics gain `skipped`, 1 for such an update.
    """

    def init(self, key, env, ts):
        """As the algorithm inside."""
        return self.algo.init(key, env, ts)

    def initial_carry(self, env, ts):
        """As the algorithm inside."""
        return self.algo.initial_carry(env, ts)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """As the algorithm inside."""
        return self.algo.act(env, learner, carry, ts, key, greedy)

    def bootstrap(self, env, learner, carry, ts):
        """As the algorithm inside."""
        return self.algo.bootstrap(env, learner, carry, ts)

    def update(self, env, learner, batch, key):
        """The new learner if it is finite, else the old one."""
        new, metrics = self.algo.update(env, learner, batch, key)
        good = all_finite((new, metrics))
        learner = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, learner)
        return learner, metrics | {"skipped": 1.0 - good}


class Health:
    """Which seeds of a run still count, over all chunks; `lost` is bool [S] or [V, S]."""

    def __init__(self, policy: str, rows: list[dict[str, Any]]):
        """Take up where the rows of metrics.jsonl end."""
        self._allowed = skips_allowed(policy)
        self._skipped: Any = 0.0
        self.lost: Any = np.bool_(False)
        for row in rows:
            self._count({k: np.asarray(v) for k, v in row["metrics"].items() if k in ("finite", "skipped")})

    def judge(self, metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The metrics of a chunk with nan for all values of seeds that no longer count."""
        self._count(metrics)
        keep = {"finite": np.where(self.lost, 0.0, 1.0)}
        return {k: np.where(self.lost, np.nan, v) for k, v in metrics.items()} | keep

    def _count(self, metrics: dict[str, np.ndarray]) -> None:
        lost = self.lost | (metrics.get("finite", np.float64(1.0)) == 0)
        if self._allowed is not None and "skipped" in metrics:
            self._skipped = self._skipped + np.nan_to_num(np.asarray(metrics["skipped"], np.float64))
            lost = lost | (self._skipped > self._allowed)
        self.lost = lost


def write_crash(run_dir: Path, cfg: Any, first: int, last: int, metrics: dict[str, np.ndarray]) -> None:
    """Write crash/: what is needed to look at a divergence, and say where it is.

    Update i of seed s draws from fold_in(key, i), key = split(key(s))[1], so the newest checkpoint
    and the numbers of the updates repeat it exactly.
    """
    folder = run_dir / "crash"
    folder.mkdir(exist_ok=True)
    facts = {
        "updates": [first, last],
        "first_seed": cfg.seed,
        "newest_checkpoint": max(valid_checkpoints(run_dir / "checkpoints"), default=None),
        "metrics": {name: plain(np.asarray(value)) for name, value in metrics.items()},
    }
    write_atomically(folder / "crash.json", json.dumps(facts, indent=1))
    shutil.copyfile(run_dir / "config.yaml", folder / "config.yaml")
    bad = sorted(name for name, value in metrics.items() if not np.isfinite(value).all())
    print(
        f"diverged between updates {first} and {last}: not finite are {', '.join(bad) or 'the parameters'}. "
        f"The older checkpoints stay; see {folder}. Lower algo.learning_rate, or set nan_policy=skip:10",
        file=sys.stderr,
    )
