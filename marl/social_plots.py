"""Pictures of how groups fare while they learn, and after: learning curves above social outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from marl.metrics_log import read_rows
from marl.plots import COLOURS, pyplot
from marl.statistics import summarize

OUTCOMES = {
    "efficiency": "efficiency\n(group's reward a step)",
    "equality": "equality\n(1 - Gini)",
    "sustainability": "sustainability\n(mean step of rewards)",
    "peace": "peace\n(seats in play)",
}


def curves_and_outcomes(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    labels: dict[str, str],
    games: dict[str, dict],
) -> None:
    """A row a game: metrics against environment steps, then social outcomes of the trained groups.

    Curves are means over seeds with their 95 % interval, bars means over seeds, dots seeds. Runs lie
    beside `path`; the outcomes of RUN are the summary "RUN outcomes" of `marl.after.outcomes`.

    Args:
        summaries: {run or "RUN outcomes": summary}.
        path: PNG to write.
        title: above the picture.
        labels: {run: legend}; the same label has the same colour.
        games: {title of a row: {runs: [run], curves: [{metric, label}]}}, all with as many curves; the title
            of a single row is not shown.
    """
    plt = pyplot()
    from matplotlib.ticker import EngFormatter

    num_rows, num_columns = len(games), len(next(iter(games.values()))["curves"]) + len(OUTCOMES)
    figure, axes = plt.subplots(
        num_rows, num_columns, figsize=(2.5 * num_columns, 2.7 * num_rows + 0.7), squeeze=False
    )
    colours = dict(zip(dict.fromkeys(labels.values()), COLOURS, strict=False))
    for row, (game, shown) in zip(axes, games.items(), strict=True):
        runs, curves = shown["runs"], shown["curves"]
        if num_rows > 1:
            row[0].annotate(game, (0, 1.12), xycoords="axes fraction", fontsize=10, weight="bold")
        for run in runs:
            colour = colours[labels[run]]
            for axis, curve in zip(row, curves, strict=False):
                _curve(axis, path.parent / run / "metrics.jsonl", curve["metric"], colour)
                axis.set(xlabel="environment steps", ylabel=curve["label"])
                axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        for axis, (metric, label) in zip(row[len(curves) :], OUTCOMES.items(), strict=True):
            found = {run: summaries[f"{run} outcomes"]["metrics"].get(metric) for run in runs}
            _bars(axis, found, {run: colours[labels[run]] for run in runs})
            axis.set_title(label, fontsize=9)
        for axis in row:
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
    lines = [plt.Line2D([], [], color=colour, linewidth=3, label=label) for label, colour in colours.items()]
    figure.legend(
        handles=lines, frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0.96), ncols=4
    )
    figure.suptitle(title, fontsize=11, y=0.995)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(axis: Any, log: Path, metric: str, colour: str) -> None:
    """A line with its interval over seeds; rows without the metric are left out."""
    rows = [row for row in read_rows(log) if metric in row["metrics"]]
    found = [summarize(np.asarray(row["metrics"][metric], np.float64)) for row in rows]
    steps = [row["env_steps"] for row in rows]
    axis.plot(steps, [one["mean"] for one in found], color=colour)
    axis.fill_between(
        steps, [one["low"] for one in found], [one["high"] for one in found], color=colour, alpha=0.2
    )
    axis.ticklabel_format(axis="x", scilimits=(0, 0))
    axis.locator_params(axis="x", nbins=4)


def _bars(axis: Any, found: dict[str, dict | None], colours: dict[str, str]) -> None:
    """A bar a run with its seeds, or a word where the game does not tell."""
    for place, (run, one) in enumerate(found.items()):
        if one:
            axis.bar(place, one["mean"], color=colours[run], alpha=0.75)
            axis.plot([place] * len(one["per_seed"]), one["per_seed"], ".", color="0.2", markersize=3)
    axis.set_xticks([])
    if not any(found.values()):
        axis.annotate("nobody is removed", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=8)
        axis.set_yticks([])
