"""Methods beside each other over games: what trained runs ended with, and how often one beats another.

**Source**: Agarwal, Schwarzer, Castro, Courville, Bellemare 2021 (arXiv 2108.13264), section 4. A seed is a
run of the source, a game its task. Deviation: relative scores have 0 where a game's worst method is, in the
mean, and 1 where its best is, since most games here have no agreed references.
Axes: G games, S seeds (their number may differ).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from marl.statistics import bootstrap_interval, iqm, probability_of_improvement, summarize
from marl.validation import ConfigError, nearest

Scores = dict[str, dict[str, np.ndarray]]  # {game: {method: [S]}}


@dataclasses.dataclass(frozen=True)
class Ended:
    """A trained run: its folder, its configuration as a dict, and its summary."""

    folder: Path
    cfg: dict[str, Any]
    summary: dict[str, Any]


def ended(folders: Iterable[Path]) -> list[Ended]:
    """The runs in some folders: run folders, or folders that hold them, such as those of a sweep.

    Raises:
        ConfigError: naming a folder without any that has ended.
    """
    found, errors = [], []
    for folder in folders:
        paths = [p for p in sorted(folder.rglob("summary.json")) if (p.parent / "config.yaml").is_file()]
        if not paths:
            errors.append(f"runs={folder}: no run in it has ended; a run folder has a summary.json then")
        for path in paths:
            cfg: Any = OmegaConf.to_container(OmegaConf.load(path.parent / "config.yaml"))
            found.append(Ended(path.parent, cfg, json.loads(path.read_text())))
    if errors:
        raise ConfigError(errors)
    return found


def scores(
    runs: Sequence[Ended], names: Sequence[tuple[str, str]], metric: str, games: Sequence[str]
) -> Scores:
    """What each seed ended with, by game and method; a swept value is a method, or a game, of its own.

    Args:
        runs: that have ended.
        names: (game, method) of each.
        metric: as in summary.json.
        games: as for `marl.presets.labels`: whether a swept key is one of the game.

    Raises:
        ConfigError: if a run does not have the metric.
    """
    found: Scores = {}
    for run, (game, method) in zip(runs, names, strict=True):
        if metric not in run.summary["metrics"]:
            known = sorted(run.summary["metrics"])
            told = f"{run.folder} has none{nearest(metric, known)}. There are: {', '.join(known)}"
            raise ConfigError([f"metric={metric}: {told}"])
        values = run.summary["metrics"][metric]["per_seed"]
        points = run.summary["sweep"] or [{}]
        for point, seeds in zip(points, values if run.summary["sweep"] else [values], strict=True):
            to_game, to_method = game, method
            for key, value in point.items():
                node, _, field = key.partition(".")
                if node in games:
                    to_game += f" {field}={value:g}"
                else:
                    to_method += f" {field}={value:g}"
            x = np.asarray(seeds, float)  # a seed that was lost has None, which becomes nan
            cell = found.setdefault(to_game, {})
            cell[to_method] = np.concatenate([cell.get(to_method, np.empty(0)), x[np.isfinite(x)]])
    return found


def compare(found: Scores, metric: str) -> dict[str, Any]:
    """Everything that is told of the methods (JSON).

    Returns:
        `metric`, `games`, `methods`; `cells`, one a game and method with its seeds' values and statistics;
        `improvement` {method: {other: {probability, low, high}}}, that a seed of the first beats one of the
        second, averaged over the games that both have (None without any); `relative` {method: {iqm, low,
        high}} over all games, of the methods that have played each, where there are several of both.
    """
    methods = list(dict.fromkeys(method for cell in found.values() for method in cell))
    cells = [
        {"game": game, "method": method, "per_seed": x.tolist(), **summarize(x)}
        for game, cell in found.items()
        for method, x in cell.items()
    ]
    improvement: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for one, other in itertools.combinations(methods, 2):
        improvement[one][other] = told = _improvement(found, one, other)
        names = {"probability": "probability", "low": "high", "high": "low"}
        improvement[other][one] = told and {name: 1 - told[mirror] for name, mirror in names.items()}
    facts = {"metric": metric, "games": list(found), "methods": methods, "cells": cells}
    return facts | {"improvement": improvement, "relative": _relative(found, methods)}


def _improvement(found: Scores, one: str, other: str) -> dict[str, float] | None:
    pairs = [(cell[one], cell[other]) for cell in found.values() if _has(cell, one, other)]
    if not pairs:
        return None
    samples = [x for pair in pairs for x in pair]
    low, high = bootstrap_interval(samples, _mean_probability)
    return {"probability": float(_mean_probability(*samples)), "low": low, "high": high}


def _mean_probability(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean over games of the probability that a sample beats the one after it."""
    wins = [probability_of_improvement(a, b, axis) for a, b in zip(samples[::2], samples[1::2], strict=True)]
    return np.mean(wins, 0)


def _relative(found: Scores, methods: Sequence[str]) -> dict[str, dict[str, float]]:
    complete = [m for m in methods if all(_has(cell, m) for cell in found.values())]
    if len(complete) < 2 or len(found) < 2:
        return {}
    scaled: dict[str, list[np.ndarray]] = {method: [] for method in complete}
    for cell in found.values():
        means = [cell[method].mean() for method in complete]
        span = max(means) - min(means) or 1.0
        for method in complete:
            scaled[method].append((cell[method] - min(means)) / span)
    pooled = lambda *x, axis=-1: iqm(np.concatenate(x, axis), axis)
    ends = {method: bootstrap_interval(x, pooled) for method, x in scaled.items()}
    return {m: {"iqm": float(pooled(*x)), "low": ends[m][0], "high": ends[m][1]} for m, x in scaled.items()}


def _has(cell: dict[str, np.ndarray], *methods: str) -> bool:
    return all(method in cell and len(cell[method]) for method in methods)
