import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from marl.statistics import iqm, probability_of_improvement, stratified_bootstrap_interval, summarize


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def slow_iqm(x):
    ordered = sorted(np.ravel(x))
    cut = int(len(ordered) * 0.25)
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)


def slow_interval(scores, confidence, num_resamples, seed):
    """Percentile interval of the interquartile mean, one resample and one task at a time."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(num_resamples):
        tasks = [rng.choice(task, size=len(task)) for task in scores.T]
        values.append(slow_iqm(np.concatenate(tasks)))
    tail = (1 - confidence) / 2
    return np.quantile(values, [tail, 1 - tail])


def test_iqm_cuts_a_quarter_at_each_end():
    assert iqm([100.0, 1.0, 2.0, -50.0]) == 1.5
    assert iqm([0, 1, 2, 3, 4, 5, 6, 70]) == 3.5
    assert iqm([0, 1, 2, 3, 40]) == 2.0  # floor(5 / 4) = 1 at each end
    assert iqm([0, 1, 5]) == 2.0  # nothing is cut


def test_iqm_along_an_axis_and_pooled_equal_the_loop():
    x = np.random.default_rng(0).normal(size=(10, 7))
    np.testing.assert_allclose(iqm(x, axis=0), [slow_iqm(column) for column in x.T])
    np.testing.assert_allclose(iqm(x, axis=1), [slow_iqm(row) for row in x])
    np.testing.assert_allclose(iqm(x), slow_iqm(x))


@pytest.mark.parametrize("shape", [(10,), (6, 3)])
def test_bootstrap_interval_equals_a_slow_loop(shape):
    scores = np.random.default_rng(1).normal(size=shape) + np.arange(shape[-1] if len(shape) > 1 else 1)
    fast = stratified_bootstrap_interval(scores, iqm, confidence=0.9, num_resamples=4000, seed=3)
    slow = slow_interval(scores.reshape(shape[0], -1), 0.9, 4000, seed=4)
    width = slow[1] - slow[0]
    np.testing.assert_allclose(fast, slow, atol=0.06 * width)


def test_bootstrap_draws_within_tasks():
    scores = np.tile([0.0, 10.0, 1000.0], (5, 1))  # tasks differ, runs of a task do not
    assert stratified_bootstrap_interval(scores, np.mean) == pytest.approx((1010 / 3, 1010 / 3))


def test_bootstrap_interval_of_the_mean_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for run in range(200):
        low, high = stratified_bootstrap_interval(rng.normal(size=40), np.mean, num_resamples=300, seed=run)
        covered += low < 0 < high
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_interval_repeats_and_narrows_with_less_confidence():
    scores = np.arange(8.0)
    wide = stratified_bootstrap_interval(scores, np.mean, seed=5)
    assert wide == stratified_bootstrap_interval(scores, np.mean, seed=5)
    narrow = stratified_bootstrap_interval(scores, np.mean, confidence=0.5, seed=5)
    assert wide[0] < narrow[0] < 3.5 < narrow[1] < wide[1]


def test_degenerate_scores_give_a_finite_interval():
    assert stratified_bootstrap_interval([2.5]) == (2.5, 2.5)
    assert stratified_bootstrap_interval([[1.0, 4.0]], np.mean) == (2.5, 2.5)
    assert stratified_bootstrap_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)
    assert stratified_bootstrap_interval([1, 2], np.mean) == (1.0, 2.0)


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf, 1.0]])
def test_bootstrap_refuses_scores_that_mean_nothing(scores):
    with pytest.raises(ValueError, match="finite"):
        stratified_bootstrap_interval(scores)


def test_probability_of_improvement_by_hand():
    assert probability_of_improvement([2, 3], [1, 0]) == 1.0
    assert probability_of_improvement([1, 3], [2, 2]) == 0.5
    assert probability_of_improvement([1, 1], [1, 1, 1]) == 0.5
    # pairs: 1-1 tie, 1-2 lost, 4-1 and 4-2 won
    assert probability_of_improvement([1, 4], [1, 2]) == 2.5 / 4
    tasks = probability_of_improvement([[1, 5], [4, 5]], [[1, 6], [2, 7]])
    assert tasks == pytest.approx([2.5 / 4, 0])
    assert probability_of_improvement([[1, 4], [5, 5]], [[1, 2], [6, 7]], axis=1) == pytest.approx(
        [2.5 / 4, 0]
    )


def test_probability_of_improvement_equals_mann_whitney():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 6, 9), rng.integers(1, 7, 13)
    expected = mannwhitneyu(x, y).statistic / (9 * 13)
    assert probability_of_improvement(x, y) == pytest.approx(expected)
    assert probability_of_improvement(y, x) == pytest.approx(1 - expected)


def test_summary_by_hand():
    found = summarize([100.0, 1.0, 2.0, -50.0])
    assert (found["mean"], found["iqm"], found["n"]) == (13.25, 1.5, 4)
    assert -50 <= found["low"] <= 1.5 <= found["high"] <= 100


def test_summary_leaves_failed_runs_out():
    found = summarize([np.nan, 1.0, 3.0, np.inf])
    assert (found["mean"], found["iqm"], found["n"]) == (2.0, 2.0, 2)
    assert (found["low"], found["high"]) == (1.0, 3.0)
    assert summarize([np.nan]) == {"mean": None, "iqm": None, "low": None, "high": None, "n": 0}
    assert summarize([7.0]) == {"mean": 7.0, "iqm": 7.0, "low": 7.0, "high": 7.0, "n": 1}


def test_importing_statistics_loads_neither_jax_nor_scipy():
    code = "import sys, marl.statistics; assert not {'jax', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
