"""Pictures of `marl.census.settle`: curves of segregation, maps, a heat map, and what seats do by age.

All take {run: summary}; axes as in `marl.census`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marl.figures import for_figures
from marl.plots import COLOURS, pyplot, swept_line

KINDS = ["#d1603d", "#ffffff", "#1b6ca8"]  # one kind, empty or both, the other kind
AT_RANDOM = "random"  # the run of players at random, drawn dashed and grey


@for_figures
def curves(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    labels: dict[str, str],
    panels: list[dict[str, Any]],
) -> None:
    """A panel a metric against the steps of training: IQM over seeds, band = 95 % interval.

    Args:
        summaries: {run: summary}.
        path: PNG to write.
        title: above the picture.
        labels: {run: legend}, in the order of the colours; other runs are not drawn.
        panels: one a metric: {metric, label}, optionally `limits` [low, high].
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.0), squeeze=False)
    drawn = [run for run in labels if run in summaries]
    shades = plt.get_cmap("viridis")(np.linspace(0.9, 0.05, max(sum(run != AT_RANDOM for run in drawn), 1)))
    colours = dict(zip((run for run in drawn if run != AT_RANDOM), shades, strict=True))
    for axis, panel in zip(axes[0], panels, strict=True):
        for run in drawn:
            colour = colours.get(run, "0.5")
            swept_line(axis, summaries[run], panel["metric"], colour, labels[run], dots=False)
            if run == AT_RANDOM:
                axis.lines[-1].set_linestyle("--")
        axis.set(xlabel="steps of the world", ylabel=panel["label"], ylim=panel.get("limits"))
        axis.spines[["top", "right"]].set_visible(False)
    lines = axes[0][0].get_legend_handles_labels()
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.94), "ncols": len(drawn)}
    figure.legend(*lines, frameon=False, fontsize=9, **place)
    _finish(figure, path, title, 0.88)


@for_figures
def maps(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    labels: dict[str, str],
    panels: list[dict[str, Any]],
    num_columns: int,
) -> None:
    """Rows of runs, columns of blocks of time: who was mostly there, and how old on average, side by side.

    Colours end at the largest mean kind but for one cell in five hundred, and at the 99th percentile of ages.

    Args:
        summaries: {run: summary}.
        path: PNG to write.
        title: above the picture.
        labels: {run: text left of its row}.
        panels: `kind` and `age`: {metric, label of its colours}.
        num_columns: blocks shown, evenly chosen, the last one always.
    """
    plt = pyplot()
    from matplotlib.colors import LinearSegmentedColormap

    diverging = LinearSegmentedColormap.from_list("kinds", KINDS)
    drawn = [run for run in labels if run in summaries]
    num = len(next(iter(summaries.values()))["sweep"])
    chosen = np.unique(np.linspace(0, num - 1, min(num_columns, num)).round().astype(int))
    size = len(drawn), 2 * len(chosen) + 1
    widths = [1.0] * len(chosen) + [0.25] + [1.0] * len(chosen)
    figure, axes = plt.subplots(
        *size, figsize=(1.75 * sum(widths) + 1.4, 1.85 * size[0] + 1.3), width_ratios=widths, squeeze=False
    )
    oldest = max(np.nanquantile(s["maps"]["age"], 0.99) for s in summaries.values())
    most = max(np.quantile(np.abs(s["maps"]["kind"]), 0.998) for s in summaries.values())
    kind: Any = None
    age: Any = None
    for number, (row, run) in enumerate(zip(axes, drawn, strict=True)):
        found, steps = summaries[run]["maps"], summaries[run]["sweep"]
        for i, block in enumerate(chosen):
            kind = row[i].imshow(found["kind"][block], cmap=diverging, vmin=-most, vmax=most)
            age = row[len(chosen) + 1 + i].imshow(found["age"][block], cmap="magma", vmin=0, vmax=oldest)
            if not number:
                first = steps[block - 1]["step"] if block else 0
                for place in (i, len(chosen) + 1 + i):
                    row[place].set_title(f"steps {first:g}-{steps[block]['step']:g}", fontsize=8)
        row[0].set_ylabel(labels[run], fontsize=9)
        row[len(chosen)].axis("off")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.tight_layout(rect=(0, 0.5 / figure.get_figheight(), 1, 0.99))
    for image, where, panel in zip((kind, age), (0.1, 0.58), panels, strict=True):
        bar = figure.add_axes((where, 0.42 / figure.get_figheight(), 0.32, 0.1 / figure.get_figheight()))
        figure.colorbar(image, cax=bar, orientation="horizontal")
        bar.tick_params(labelsize=7, length=2, pad=1)
        bar.set_title(panel["label"], fontsize=8, pad=3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


@for_figures
def heat_map(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    labels: dict[str, Sequence[str]],
    panels: list[dict[str, Any]],
    x_label: str,
    y_label: str,
) -> None:
    """A metric at the end for every combination of two settings, mean over seeds.

    Args:
        summaries: {run: summary}.
        path: PNG to write.
        title: above the picture.
        labels: {run: (text of its column, text of its row)}, columns from the left, rows from below.
        panels: one a metric: {metric, label}.
        x_label, y_label: of the settings.
    """
    places = {run: tuple(labels[run]) for run in labels if run in summaries}
    columns, rows = (list(dict.fromkeys(place[i] for place in places.values())) for i in (0, 1))
    run_at = {place: run for run, place in places.items()}
    plt = pyplot()
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.1), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        last = lambda run, panel=panel: summaries[run]["metrics"][panel["metric"]]["mean"][-1]
        values = np.array([[last(run_at[x, y]) for x in columns] for y in rows], float)
        image = axis.imshow(values, origin="lower", cmap="viridis", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (i, j), value in np.ndenumerate(values):
            colour = "black" if value > middle else "white"
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)
        axis.set_xticks(range(len(columns)), columns)
        axis.set_yticks(range(len(rows)), rows)
        axis.set(xlabel=x_label, ylabel=y_label)
        axis.set_title(panel["label"], fontsize=10)
        figure.colorbar(image, ax=axis, fraction=0.046)
    _finish(figure, path, title, 0.97)


@for_figures
def tables(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    labels: dict[str, str],
    panels: list[dict[str, Any]],
    columns: Sequence[str] | None,
) -> None:
    """A panel a run: by age, how often a seat saw which share of its own kind, or did what.

    Args:
        summaries: {run: summary}.
        path: PNG to write.
        title: above the picture.
        labels: {run: title of its panel}.
        panels: one: {metric, label}; `shares` are drawn as a picture, `actions` as lines.
        columns: texts of the lines; None for shares.
    """
    table, x_label = panels[0]["metric"], panels[0]["label"]
    plt = pyplot()
    drawn = [run for run in labels if run in summaries]
    figure, axes = plt.subplots(1, len(drawn), figsize=(3.3 * len(drawn) + 0.9, 3.9), squeeze=False)
    image: Any = None
    for axis, run in zip(axes[0], drawn, strict=True):
        found, ages = np.asarray(summaries[run][table]), np.asarray(summaries[run]["ages"])
        axis.set_title(labels[run], fontsize=10)
        if columns is None:
            step = ages[1] - ages[0]
            extent = (0, 1, ages[0] - step / 2, ages[-1] + step / 2)
            image = axis.imshow(found, origin="lower", aspect="auto", extent=extent, vmin=0, vmax=0.6)
            axis.set(xlabel=x_label, ylabel="age (steps)" if axis is axes[0][0] else None)
            continue
        told = found.sum(1) > 0
        for column, (text, colour) in enumerate(zip(columns, COLOURS, strict=False)):
            axis.plot(ages[told], found[told, column], color=colour, label=text, marker="o", markersize=3)
        axis.set(xlabel="age (steps)", ylim=(0, None))
        axis.set_ylabel(x_label if axis is axes[0][0] else None)
        axis.spines[["top", "right"]].set_visible(False)
    if columns is None:
        figure.colorbar(image, ax=axes[0][-1], fraction=0.06, label="share of the age group")
    else:
        lines = axes[0][0].get_legend_handles_labels()
        figure.legend(
            *lines,
            frameon=False,
            fontsize=9,
            ncols=len(columns),
            loc="upper center",
            bbox_to_anchor=(0.5, 0.94),
        )
    _finish(figure, path, title, 0.97 if columns is None else 0.88)


def _finish(figure: Any, path: Path, title: str, top: float) -> None:
    """Title, room and file."""
    figure.suptitle(title, fontsize=11, y=0.985)
    figure.tight_layout(rect=(0, 0, 1, top))
    figure.savefig(path, dpi=130)
    pyplot().close(figure)
