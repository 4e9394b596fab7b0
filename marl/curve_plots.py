"""Pictures of how runs learn beside what is known of the game: curves, references, play after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marl.figures import for_figures
from marl.plots import COLOURS, pyplot
from marl.social_plots import curve


@for_figures
def against_reference(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    labels: dict[str, str],
    panels: list[dict[str, Any]],
    played: dict[str, float],
    after: str,
) -> None:
    """Metrics against environment steps: mean over seeds, band = 95 % interval.

    Diamonds at the ends: means after training, from the summary "RUN outcomes", with dots for the seeds.

    Args:
        summaries: {run or "RUN outcomes": summary} of runs that lie beside `path`.
        path: PNG to write.
        title: above the picture.
        labels: {run: legend}, in the order of the colours.
        panels: one a metric: {metric, label}, optionally `scale` (a factor), `limits` [low, high], `runs`
            (those that are drawn), `reference` {text: value} (horizontal lines) and `outcome`, the metric
            after training.
        played: {run: environment steps played for each that its log counts}; others 1.
        after: legend of the diamonds.
    """
    plt = pyplot()
    from matplotlib.ticker import EngFormatter

    figure, axes = plt.subplots(1, len(panels), figsize=(5.0 * len(panels), 4.0), squeeze=False)
    colours = dict(zip(labels, COLOURS, strict=False))
    for axis, panel in zip(axes[0], panels, strict=True):
        scale = panel.get("scale", 1.0)
        for text, value in panel.get("reference", {}).items():
            axis.axhline(value, color="0.4", linestyle="--", linewidth=1)
            place = {"xy": (0.02, value), "xycoords": ("axes fraction", "data"), "xytext": (0, 2)}
            axis.annotate(text, **place, textcoords="offset points", color="0.3", fontsize=8)
        for run in panel.get("runs", labels):
            log = path.parent / run / "metrics.jsonl"
            curve(axis, log, panel["metric"], colours[run], scale, played.get(run, 1.0))
        end = max(axis.lines, key=lambda line: max(line.get_xdata())).get_xdata()[-1]
        for run in panel.get("runs", labels) if "outcome" in panel else ():
            found = summaries[f"{run} outcomes"]["metrics"][panel["outcome"]]
            at = 1.04 * end
            seeds = [scale * x for x in found["per_seed"]]
            axis.plot([at] * len(seeds), seeds, ".", color=colours[run], alpha=0.4, markersize=4)
            axis.plot(at, scale * found["mean"], "D", color=colours[run], markersize=5, clip_on=False)
        axis.set(xlabel="environment steps", ylabel=panel["label"], ylim=panel.get("limits"))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.spines[["top", "right"]].set_visible(False)
    lines = [plt.Line2D([], [], color=colours[run], linewidth=3, label=text) for run, text in labels.items()]
    if any("outcome" in panel for panel in panels):
        lines.append(plt.Line2D([], [], color="0.3", marker="D", linestyle="", label=after))
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.945), "ncols": len(lines)}
    figure.legend(handles=lines, frameon=False, fontsize=9, **place)
    seeds = min(s["metrics"][panels[0]["metric"]]["n"] for s in summaries.values())
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.text(0.99, 0.01, f"mean and 95 % interval of {seeds} seeds", ha="right", fontsize=7, color="0.4")
    figure.tight_layout(rect=(0, 0.02, 1, 0.92))
    figure.savefig(path, dpi=130)
    plt.close(figure)
