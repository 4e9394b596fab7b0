"""Aggregates over runs (seeds) with intervals; numpy and scipy only, no jax.

**Source**: Agarwal, Schwarzer, Castro, Courville, Bellemare 2021 (arXiv 2108.13264), section 4:
interquartile mean, stratified percentile bootstrap, probability of improvement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Statistic = Callable[..., np.ndarray]  # (x, axis=...) -> x without that axis


def iqm(x: ArrayLike, axis: int | None = None) -> np.ndarray:
    """Interquartile mean: the mean without the lowest and the highest quarter.

    As in the source, floor(n / 4) values are cut at each end, so that up to three values
    are simply averaged.

    Args:
        x: [..., n, ...] values.
        axis: where n stands; None pools all axes.

    Returns:
        [...] without `axis`.
    """
    from scipy.stats import trim_mean

    return trim_mean(np.asarray(x, float), 0.25, axis=axis)


def stratified_bootstrap_interval(
    scores: ArrayLike,
    statistic: Statistic = iqm,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval; runs are drawn anew within each task.

    Args:
        scores: [runs, tasks], or [runs] of a single task; finite.
        statistic: (x, axis=...) -> x without that axis, applied to all scores pooled, for
            instance `iqm` or `np.mean`.
        confidence: probability that the interval is meant to cover.
        num_resamples: bootstrap samples.
        seed: of the resampling; the same scores give the same interval.

    Returns:
        low and high end. A single run gives the statistic itself twice.

    Raises:
        ValueError: if a score is not finite, or there is none.
    """
    scores = np.asarray(scores, float)
    if not scores.size or not np.isfinite(scores).all():
        raise ValueError("scores must be finite and at least one; leave failed runs out")
    pooled = lambda *tasks, axis: statistic(np.concatenate(tasks, axis), axis=axis)
    tasks = scores.reshape(len(scores), -1).T
    return bootstrap_interval(tasks, pooled, confidence=confidence, num_resamples=num_resamples, seed=seed)


def bootstrap_interval(
    samples: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of several samples, each drawn anew within itself.

    Args:
        samples: [n] each; n may differ.
        statistic: (*samples [..., n], axis=-1) -> [...].
        confidence, num_resamples, seed: as in `stratified_bootstrap_interval`.

    Returns:
        low and high end; the statistic itself twice if a sample has a single value.
    """
    from scipy.stats import bootstrap

    if min(map(len, samples)) == 1:
        point = float(statistic(*samples, axis=-1))
        return point, point
    interval = bootstrap(
        tuple(samples),
        statistic,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def probability_of_improvement(x: ArrayLike, y: ArrayLike, axis: int = 0) -> np.ndarray:
    """Probability that a run of x beats a run of y, ties counting half.

    The Mann-Whitney statistic over n m (source, section 4.3); to be averaged over tasks.

    Args:
        x: [..., n, ...] scores of one method.
        y: [..., m, ...] scores of the other.
        axis: where n and m stand.

    Returns:
        [...] without `axis`.
    """
    x, y = np.moveaxis(np.asarray(x, float), axis, -1), np.moveaxis(np.asarray(y, float), axis, -1)
    return (np.sign(x[..., :, None] - y[..., None, :]).mean((-2, -1)) + 1) / 2


def summarize(values: ArrayLike) -> dict[str, float | int | None]:
    """Mean, interquartile mean and its 95 % bootstrap interval over runs.

    Args:
        values: [n] one value a run. A run whose value is nan or infinite is left out.

    Returns:
        `mean`, `iqm`, `low`, `high`, and `n`, the number of runs that counted. Without any
        the numbers are None (null in JSON).
    """
    values = np.asarray(values, float).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return {"mean": None, "iqm": None, "low": None, "high": None, "n": 0}
    low, high = stratified_bootstrap_interval(values)
    return {
        "mean": float(values.mean()),
        "iqm": float(iqm(values)),
        "low": low,
        "high": high,
        "n": int(values.size),
    }


def of_points(values: ArrayLike) -> dict[str, Any]:
    """[V, S] values as in the summary of a swept run: `per_seed`, and each statistic as a list over V."""
    found = [summarize(x) for x in np.asarray(values)]
    return {"per_seed": np.asarray(values).tolist()} | {k: [one[k] for one in found] for k in found[0]}


def swept_summary(
    metrics: dict[str, Any], key: str, values: Iterable[float], began: float, **more: Any
) -> dict[str, Any]:
    """What measured something at several values, as the summary of a swept run.

    Args:
        metrics: {name: [V, S] values, one a seed}.
        key: of the swept value; values: [V] of it.
        began: `time.perf_counter()` before the work.
        more: further entries.
    """
    return {
        "metrics": {name: of_points(x) for name, x in metrics.items()},
        "sweep": [{key: float(value)} for value in values],
        "lost": [],
        "wall_s": time.perf_counter() - began,
    } | more
