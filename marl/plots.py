"""Pictures of results; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marl.figures import for_figures

COLOURS = ("#1b6ca8", "#d1603d", "#3a7d44", "#7d5ba6", "#b08900", "#4a4a4a")


@for_figures
def against_strength(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    x_label: str,
    panels: list[dict[str, Any]],
    labels: dict[str, str],
    threshold: dict[str, Any] | None,
) -> None:
    """Final metrics against the swept value: IQM over seeds, band = 95 % interval, dots = seeds.

    Args:
        summaries: {run: summary} of swept runs with the same meaning of the swept value.
        path: PNG to write.
        title: above the picture.
        x_label: meaning of the swept value.
        panels: one a metric: {metric, label}, optionally `limits` [low, high].
        labels: {run: legend}.
        threshold: {value, label} of a vertical line, or None.
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.0), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for colour, (run, summary) in zip(COLOURS, summaries.items(), strict=False):
            swept_line(axis, summary, panel["metric"], colour, labels[run], dots=True)
        if threshold:
            _mark(axis, threshold)
        axis.set_xlabel(x_label)
        axis.set_ylabel(panel["label"])
        if "limits" in panel:
            axis.set_ylim(*panel["limits"])
        axis.spines[["top", "right"]].set_visible(False)
    lines = axes[0][0].get_legend_handles_labels()
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.945), "ncols": len(labels)}
    figure.legend(*lines, frameon=False, fontsize=9, **place)
    seeds = min(min(s["metrics"][panels[0]["metric"]]["n"]) for s in summaries.values())
    figure.suptitle(title, fontsize=11, y=0.98)
    if seeds > 1:
        note = f"IQM and 95 % interval of {seeds} seeds"
        figure.text(0.99, 0.01, note, ha="right", fontsize=7, color="0.4")
    figure.tight_layout(rect=(0, 0.02, 1, 0.94))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def swept_line(axis: Any, summary: dict[str, Any], metric: str, colour: str, label: str, dots: bool) -> None:
    """Draw a metric against the swept value: IQM, band = 95 % interval, and with `dots` points and seeds."""
    x = [next(iter(point.values())) for point in summary["sweep"]]
    found = summary["metrics"][metric]
    axis.fill_between(x, found["low"], found["high"], color=colour, alpha=0.2, linewidth=0)
    axis.plot(x, found["iqm"], color=colour, marker="o" if dots else None, markersize=4, label=label)
    if not dots:
        return
    for value, seeds in zip(x, found["per_seed"], strict=True):
        axis.plot([value] * len(seeds), seeds, ".", color=colour, alpha=0.25, markersize=4)


def _mark(axis: Any, threshold: dict[str, Any]) -> None:
    axis.axvline(threshold["value"], color="0.4", linestyle="--", linewidth=1)
    where = {"xycoords": ("data", "axes fraction"), "xytext": (-5, 0), "textcoords": "offset points"}
    axis.annotate(threshold["label"], (threshold["value"], 0.8), **where, ha="right", color="0.3", fontsize=8)


@for_figures
def bars(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    y_label: str,
    metrics: dict[str, str],
    labels: dict[str, str],
    published: dict[str, Any] | None,
) -> None:
    """Metrics side by side, a bar a run: mean over seeds, dots = seeds, diamonds = published values.

    Args:
        summaries: {run: summary} of runs that are not swept.
        path: PNG to write.
        title: above the picture.
        y_label: of the metrics.
        metrics: {metric: text below its bars}.
        labels: {run: legend}; other runs are not drawn.
        published: {label, run: whose bars it belongs to, values: {metric: value}}, or None.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7.0, 4.0))
    width = 0.8 / len(labels)
    for i, (run, label) in enumerate(labels.items()):
        x = [place + (i - (len(labels) - 1) / 2) * width for place in range(len(metrics))]
        found = [summaries[run]["metrics"][metric] for metric in metrics]
        axis.bar(x, [one["mean"] for one in found], width, color=COLOURS[i], alpha=0.75, label=label)
        for place, one in zip(x, found, strict=True):
            seeds = one["per_seed"]
            axis.plot([place] * len(seeds), seeds, ".", color="0.2", markersize=3)
        if published and published["run"] == run:
            values = [published["values"][metric] for metric in metrics]
            axis.plot(x, values, "D", color="black", markersize=5, label=published["label"], zorder=3)
    axis.set_xticks(range(len(metrics)), list(metrics.values()))
    axis.set_ylabel(y_label)
    axis.spines[["top", "right"]].set_visible(False)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.94), "ncols": len(labels) + 1}
    figure.legend(*axis.get_legend_handles_labels(), frameon=False, fontsize=9, **place)
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    figure.savefig(path, dpi=130)
    plt.close(figure)


@for_figures
def schelling(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    titles: dict[str, str],
    symlog: list[str],
) -> None:
    """Schelling diagrams, a panel a game: payoff of a cooperator and of a defector by the others' choices.

    Args:
        summaries: {game: summary} of `marl.schelling.diagram`.
        path: PNG to write.
        title: above the picture.
        x_label, y_label: of all panels.
        titles: {game: title of its panel}.
        symlog: games whose payoffs are drawn on a symmetric logarithmic scale.
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, len(summaries), figsize=(4.2 * len(summaries) + 0.6, 3.9), squeeze=False)
    for axis, (game, summary) in zip(axes[0], summaries.items(), strict=True):
        for metric, colour in (("cooperator", COLOURS[0]), ("defector", COLOURS[1])):
            swept_line(axis, summary, metric, colour, metric, dots=True)
        if game in symlog:
            axis.set_yscale("symlog")
        axis.set_title(titles[game], fontsize=10)
        axis.set_xticks([point["others"] for point in summary["sweep"]])
        axis.set_xlabel(x_label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel(y_label)
    lines = axes[0][0].get_legend_handles_labels()
    figure.legend(*lines, frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0.945), ncols=2)
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def pyplot() -> Any:
    """matplotlib.pyplot, which draws into files only."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
