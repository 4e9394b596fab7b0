"""Pictures of three shares that move while groups learn, such as colours of berries, in their triangle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from marl.figures import for_figures
from marl.metrics_log import read_rows
from marl.plots import COLOURS, pyplot
from marl.social_plots import MORE_COLOURS, curve

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])  # of a triangle of shares


@for_figures
def curves_and_triangle(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    columns: int,
    labels: dict[str, str],
    curves: list[dict[str, str]],
    corners: dict[str, str],
    bars: dict[str, str],
    bars_label: str,
) -> None:
    """Metrics against environment steps, the paths of three shares in their triangle, and metrics at the end.

    Curves and bars are means over seeds with their 95 % interval; each seed has a path of its own in the
    triangle, from a small dot to a large one. Runs lie beside `path`.

    Args:
        summaries: {run: summary}.
        path: PNG to write.
        title: above the picture.
        columns: panels side by side.
        labels: {run: legend}; runs that there are not are left out.
        curves: one a panel: {metric, label}; a run without the metric has no line.
        corners: {metric: name} of three shares whose sum is 1.
        bars: {metric: name}; bars_label: what they say.
    """
    plt = pyplot()
    from matplotlib.ticker import EngFormatter

    num_rows = -(-(len(curves) + 2) // columns)
    size = (3.6 * columns, 3.0 * num_rows + 0.8)
    figure, grid = plt.subplots(num_rows, columns, figsize=size, squeeze=False)
    panels = list(grid.flat)
    drawn = {run: label for run, label in labels.items() if run in summaries}
    colours = dict(zip(drawn, (*COLOURS, *MORE_COLOURS), strict=False))
    for axis, shown in zip(panels, curves, strict=False):
        for run, colour in colours.items():
            curve(axis, path.parent / run / "metrics.jsonl", shown["metric"], colour)
        axis.set(xlabel="environment steps", ylabel=shown["label"])
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    triangle, last = panels[len(curves) : len(curves) + 2]
    _frame(triangle, list(corners.values()))
    for run, colour in colours.items():
        _paths(triangle, path.parent / run / "metrics.jsonl", list(corners), colour)
    _bars(last, {run: summaries[run]["metrics"] for run in drawn}, bars, colours)
    last.set_ylabel(bars_label)
    for axis in panels:
        axis.spines[["top", "right"]].set_visible(False)
    for axis in (triangle, *panels[len(curves) + 2 :]):
        axis.axis("off")
    lines = [plt.Line2D([], [], color=colours[run], linewidth=3, label=label) for run, label in drawn.items()]
    figure.legend(handles=lines, frameon=False, fontsize=9, loc="lower center", ncols=4)
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.tight_layout(rect=(0, 0.07, 1, 0.98))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def positions(shares: np.ndarray) -> np.ndarray:
    """[..., 3] shares whose sum is 1 -> [..., 2] places in the triangle with corners CORNERS."""
    return shares @ CORNERS


def _bars(axis: Any, metrics: dict[str, dict], bars: dict[str, str], colours: dict[str, str]) -> None:
    """Groups of bars, one a metric, with a bar a run."""
    width = 0.8 / max(len(metrics), 1)
    for i, (run, found) in enumerate(metrics.items()):
        mean, low, high = (np.array([found[name][key] for name in bars]) for key in ("mean", "low", "high"))
        where = np.arange(len(bars)) + (i - (len(metrics) - 1) / 2) * width
        axis.bar(where, mean, width, color=colours[run], yerr=[mean - low, high - mean], ecolor="0.3")
    axis.set_xticks(range(len(bars)), bars.values(), fontsize=8)


def _frame(axis: Any, names: list[str]) -> None:
    """The triangle and the names of its corners."""
    axis.plot(*CORNERS[[0, 1, 2, 0]].T, color="0.6", linewidth=1)
    axis.plot(*CORNERS.mean(0), "+", color="0.6")
    for corner, name, side in zip(CORNERS, names, ("top", "top", "bottom"), strict=True):
        axis.annotate(name, corner, ha="center", va=side, fontsize=9)
    axis.set_aspect("equal")


def _paths(axis: Any, log: Path, metrics: list[str], colour: str) -> None:
    """Where the three shares of each seed went."""
    rows = read_rows(log)
    shares = np.array([[row["metrics"][metric] for metric in metrics] for row in rows])  # [rows, 3, S]
    for seed in range(shares.shape[2]):
        x, y = positions(shares[:, :, seed]).T
        axis.plot(x, y, color=colour, linewidth=1, alpha=0.7)
        axis.plot(x[:1], y[:1], ".", color=colour, markersize=3)
        axis.plot(x[-1:], y[-1:], "o", color=colour, markersize=5)
