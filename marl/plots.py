"""Pictures of results; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = ("#1b6ca8", "#d1603d", "#3a7d44", "#7d5ba6", "#b08900", "#4a4a4a")


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
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.0), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for colour, (run, summary) in zip(COLOURS, summaries.items(), strict=False):
            _swept_line(axis, summary, panel["metric"], colour, labels[run])
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
    figure.text(0.99, 0.01, f"IQM and 95 % interval of {seeds} seeds", ha="right", fontsize=7, color="0.4")
    figure.tight_layout(rect=(0, 0.02, 1, 0.94))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _swept_line(axis: Any, summary: dict[str, Any], metric: str, colour: str, label: str) -> None:
    x = [next(iter(point.values())) for point in summary["sweep"]]
    found = summary["metrics"][metric]
    axis.fill_between(x, found["low"], found["high"], color=colour, alpha=0.2, linewidth=0)
    axis.plot(x, found["iqm"], color=colour, marker="o", markersize=4, label=label)
    for value, seeds in zip(x, found["per_seed"], strict=True):
        axis.plot([value] * len(seeds), seeds, ".", color=colour, alpha=0.25, markersize=4)


def _mark(axis: Any, threshold: dict[str, Any]) -> None:
    axis.axvline(threshold["value"], color="0.4", linestyle="--", linewidth=1)
    where = {"xycoords": ("data", "axes fraction"), "xytext": (-5, 0), "textcoords": "offset points"}
    axis.annotate(threshold["label"], (threshold["value"], 0.8), **where, ha="right", color="0.3", fontsize=8)
