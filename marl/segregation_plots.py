"""Pictures of how segregated boards become, and of how fast they are played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from marl.figures import for_figures
from marl.plots import COLOURS, pyplot, swept_line
from marl.render import BLUE, PAPER, RED


@for_figures
def against_threshold(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    labels: dict[str, str],
    panels: list[dict[str, str]],
    reference: dict[float, list[float]],
    reference_label: str,
    boards: dict[str, Any],
) -> None:
    """Metrics against the threshold, with a reference in the first panel, above some last boards.

    Args:
        summaries: {run: summary}, with `boards`.
        path: PNG to write.
        title: above the picture.
        labels: {run: legend}.
        panels: one a metric: {metric, label}.
        reference: {threshold: [mean, standard deviation over runs]}.
        reference_label: of its diamonds.
        boards: {run, thresholds}: whose boards are drawn, and at which thresholds.
    """
    plt = pyplot()
    figure = plt.figure(figsize=(4.3 * len(panels), 6.8))
    above, below = figure.add_gridspec(2, 1, height_ratios=(3.6, 2.2), hspace=0.32, top=0.87, bottom=0.04)
    lines: Any = [], []
    for i, (place, panel) in enumerate(
        zip(above.subgridspec(1, len(panels), wspace=0.28), panels, strict=True)
    ):
        axis = figure.add_subplot(place)
        for colour, (run, label) in zip(COLOURS, labels.items(), strict=False):
            swept_line(axis, summaries[run], panel["metric"], colour, label, dots=False)
        if i == 0:
            mean, spread = np.array(list(reference.values())).T
            style = {"fmt": "D", "color": "black", "markersize": 4, "capsize": 3, "zorder": 3}
            axis.errorbar(list(reference), mean, spread, label=reference_label, **style)
            lines = axis.get_legend_handles_labels()
        axis.set(xlabel="threshold (like neighbours wanted)", ylabel=panel["label"])
        axis.spines[["top", "right"]].set_visible(False)
    shown = summaries[boards["run"]]
    known = [point["threshold"] for point in shown["sweep"]]
    colours = np.array([PAPER, RED, BLUE], np.uint8)
    places = below.subgridspec(1, len(boards["thresholds"]), wspace=0.1)
    for place, threshold in zip(places, boards["thresholds"], strict=True):
        axis = figure.add_subplot(place)
        axis.imshow(colours[np.array(shown["boards"][known.index(threshold)])], interpolation="nearest")
        axis.set_title(f"threshold {threshold:g}", fontsize=9)
        axis.set(xticks=[], yticks=[])
    figure.legend(*lines, frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0.955), ncols=5)
    figure.suptitle(title, fontsize=11, y=0.985)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


@for_figures
def speeds(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    labels: dict[str, str],
    reference: dict[str, Any] | None,
) -> None:
    """Agent steps a second, and the time of one, against the number of residents, both axes logarithmic.

    Args:
        summaries: {run: summary} swept over "residents".
        path: PNG to write.
        title: above the picture.
        labels: {run: legend}.
        reference: {label, residents}: how the plain model is called, and its size; None: there is none.
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10.0, 4.0))
    for colour, (run, label) in zip(COLOURS, labels.items(), strict=False):
        swept_line(axes[0], summaries[run], "agent_steps_per_s", colour, label, dots=True)
        swept_line(axes[1], summaries[run], "ns_per_agent_step", colour, label, dots=True)
    if reference:
        plain = next(iter(summaries.values()))["metrics"]["plain_ns_per_agent_step"]["mean"][0]
        for axis, value in zip(axes, (1e9 / plain, plain), strict=True):
            axis.plot(reference["residents"], value, "s", color="black", label=reference["label"])
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="residents of one board")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("agent steps a second")
    axes[1].set_ylabel("ns an agent step")
    lines = axes[0].get_legend_handles_labels()
    figure.legend(*lines, frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0.945), ncols=4)
    figure.suptitle(title, fontsize=11, y=0.99)
    device = next(iter(summaries.values()))["device"]
    figure.text(0.99, 0.01, f"device: {device}; IQM of repetitions", ha="right", fontsize=7, color="0.4")
    figure.tight_layout(rect=(0, 0.02, 1, 0.92))
    figure.savefig(path, dpi=120)
    plt.close(figure)
