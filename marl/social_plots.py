"""Pictures of how groups fare while they learn, and after: learning curves above social outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from marl.figures import for_figures
from marl.metrics_log import read_rows
from marl.plots import COLOURS, pyplot, swept_line
from marl.statistics import summarize

MORE_COLOURS = ("#c2185b", "#00897b", "#8d6e63", "#9e9d24", "#5e35b1", "#ef6c00", "#546e7a", "#ad1457")
OUTCOMES = {
    "efficiency": "efficiency\n(group's reward a step)",
    "equality": "equality\n(1 - Gini)",
    "sustainability": "sustainability\n(mean step of rewards)",
    "peace": "peace\n(seats in play)",
}


@for_figures
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
        games: {title of a row: {runs: [run], curves: [{metric, label}]}}, all with as many curves; runs that
            there are not are left out, and so is the title of a single row.
    """
    plt = pyplot()
    from matplotlib.ticker import EngFormatter

    num_rows, num_columns = len(games), len(next(iter(games.values()))["curves"]) + len(OUTCOMES)
    figure, axes = plt.subplots(
        num_rows, num_columns, figsize=(2.5 * num_columns, 2.7 * num_rows + 0.7), squeeze=False
    )
    drawn = dict.fromkeys(label for run, label in labels.items() if run in summaries)
    colours = dict(zip(drawn, COLOURS, strict=False))
    for row, (game, shown) in zip(axes, games.items(), strict=True):
        runs, curves = [run for run in shown["runs"] if run in summaries], shown["curves"]
        if num_rows > 1:
            row[0].annotate(game, (0, 1.12), xycoords="axes fraction", fontsize=10, weight="bold")
        for run in runs:
            colour = colours[labels[run]]
            for axis, shown_as in zip(row, curves, strict=False):
                curve(axis, path.parent / run / "metrics.jsonl", shown_as["metric"], colour)
                axis.set(xlabel="environment steps", ylabel=shown_as["label"])
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


@for_figures
def rolling_curves(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    x_label: str,
    updates_per_x: float,
    window: float,
    labels: dict[str, str],
    panels: list[dict[str, Any]],
    columns: int,
    reference: dict[str, dict[str, float]],
    show_reference: bool,
) -> None:
    """A panel a metric: centred rolling means over training, of the mean over seeds.

    The band is 1.96 times the rolling standard deviation of that mean, as in Dasgupta and Musolesi 2023
    (no standard error); lines and bands need half a window of rows. Diamonds: published values at the end.

    Args:
        summaries: {run: summary} of runs that lie beside `path`.
        path: PNG to write.
        title: above the picture.
        x_label: what the x axis counts; updates_per_x: updates of one such thing.
        window: of the rolling mean, in the same things.
        labels: {run: legend}, in the order of the colours; runs that there are not are left out.
        panels: one a metric: {metric, label}, optionally `scale` (a factor) and `limits` [low, high].
        columns: panels side by side.
        reference: {metric: {run: published value, scaled}}; show_reference: whether it is drawn.
    """
    plt = pyplot()
    num_rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        num_rows, columns, figsize=(4.4 * columns, 3.1 * num_rows + 0.9), squeeze=False
    )
    drawn = {run: label for run, label in labels.items() if run in summaries}
    colours = dict(zip(drawn, (*COLOURS, *MORE_COLOURS), strict=False))
    for axis, panel in zip(grid.flat, panels, strict=False):
        known = reference.get(panel["metric"]) or {} if show_reference else {}
        for run, colour in colours.items():
            found = _rolling(path.parent / run / "metrics.jsonl", panel["metric"], updates_per_x, window)
            _band(axis, *found, panel.get("scale", 1.0), colour, known.get(run))
        axis.set(xlabel=x_label, ylabel=panel["label"])
        if "limits" in panel:
            axis.set_ylim(*panel["limits"])
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(grid.flat)[len(panels) :]:
        axis.axis("off")
    lines = [plt.Line2D([], [], color=colours[run], linewidth=3, label=label) for run, label in drawn.items()]
    if show_reference and any(reference.get(panel["metric"]) for panel in panels):
        lines.append(plt.Line2D([], [], color="0.3", marker="D", linestyle="", label="reference"))
    figure.legend(handles=lines, frameon=False, fontsize=9, loc="lower center", ncols=4)
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.tight_layout(rect=(0, 0.11 if num_rows == 1 else 0.07, 1, 0.98))
    figure.savefig(path, dpi=110)
    plt.close(figure)


@for_figures
def swept_grid(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    x_label: str,
    labels: dict[str, str],
    columns: dict[str, list[str]],
    rows: list[dict[str, Any]],
) -> None:
    """A column a group of runs and a row a metric, against the swept value: IQM, band = 95 % interval.

    Args:
        summaries: {run: summary} of swept runs.
        path: PNG to write.
        title: above the picture.
        x_label: meaning of the swept value.
        labels: {run: legend}, in the order of the colours.
        columns: {title of a column: [run]}.
        rows: {metric, label}, optionally `limits` [low, high] and `log10`, for a metric that is log10(1 + v):
            {ticks: [v], references: {text: v}}, the latter horizontal lines.
    """
    plt = pyplot()
    size = {"figsize": (5.0 * len(columns), 3.0 * len(rows) + 1.0), "squeeze": False}
    figure, grid = plt.subplots(len(rows), len(columns), sharex=True, sharey="row", **size)
    colours = dict(zip(labels, (*COLOURS, *MORE_COLOURS), strict=False))
    for axes, row in zip(grid, rows, strict=True):
        for axis, runs in zip(axes, columns.values(), strict=True):
            for run in runs:
                swept_line(axis, summaries[run], row["metric"], colours[run], labels[run], dots=False)
            for text, value in row.get("log10", {}).get("references", {}).items():
                axis.axhline(np.log10(1 + value), color="0.5", linestyle=":", linewidth=1)
                place = {"xy": (0.98, np.log10(1 + value)), "xycoords": ("axes fraction", "data")}
                axis.annotate(text, **place, ha="right", va="bottom", color="0.4", fontsize=7)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel(row["label"])
        axes[0].set_ylim(row.get("limits"))
        if "log10" in row:
            ticks = row["log10"]["ticks"]
            axes[0].set_yticks(np.log10(1 + np.asarray(ticks)), [f"{tick:g}" for tick in ticks])
    for top, bottom, name in zip(grid[0], grid[-1], columns, strict=True):
        top.set_title(name, fontsize=10)
        bottom.set_xlabel(x_label)
        bottom.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    seeds = min(min(s["metrics"][rows[0]["metric"]]["n"]) for s in summaries.values())
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.text(0.99, 0.005, f"IQM and 95 % interval of {seeds} seeds", ha="right", fontsize=7, color="0.4")
    figure.tight_layout(rect=(0, 0.01, 1, 0.99))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _band(
    axis: Any,
    x: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    scale: float,
    colour: str,
    known: float | None,
) -> None:
    """A line [n] and the band around it, and a diamond at its end for the published value."""
    axis.plot(x, scale * mean, color=colour, linewidth=1.3)
    low, high = (scale * (mean + sign * 1.96 * spread) for sign in (-1, 1))
    axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    if known is not None and len(x):
        axis.plot(1.02 * x[-1], known, "D", color=colour, markersize=5, clip_on=False)


def _rolling(log: Path, metric: str, updates_per_x: float, window: float) -> tuple[np.ndarray, ...]:
    """[n] x, mean and standard deviation of the centred windows of the mean over seeds; n may be 0."""
    rows = [row for row in read_rows(log) if metric in row["metrics"]]
    x = np.array([row["update"] for row in rows]) / updates_per_x
    y = np.array([np.nanmean(row["metrics"][metric]) for row in rows])
    size = max(1, round(window / x[0])) if len(x) else 1
    if len(x) < size:
        return (np.zeros(0),) * 3
    parts = np.lib.stride_tricks.sliding_window_view(y, size)
    return np.convolve(x, np.ones(size) / size, "valid"), parts.mean(-1), parts.std(-1)


def curve(
    axis: Any,
    log: Path,
    metric: str,
    colour: str,
    scale: float = 1.0,
    steps_scale: float = 1.0,
    num_rows: int | None = None,
) -> None:
    """Draw a metric of a run's log against environment steps: mean over seeds and 95 % interval.

    Rows of the log without the metric, or without a value (no episode has ended), are left out; `scale` and
    `steps_scale` multiply both. Of more than `num_rows` so many are drawn, the first and last among them.
    """
    known = lambda row: any(x is not None for x in row["metrics"].get(metric, ()))
    rows = [row for row in read_rows(log) if known(row)]
    if num_rows and len(rows) > num_rows:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, num_rows).round().astype(int)]
    found = [summarize(scale * np.asarray(row["metrics"][metric], np.float64)) for row in rows]
    steps = [steps_scale * row["env_steps"] for row in rows]
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
