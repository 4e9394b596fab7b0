"""Pictures of generations that follow one another, beside published curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marl.figures import for_figures
from marl.plots import COLOURS, pyplot, swept_line

LETTERS = 130  # of a legend that stand beside each other, with six for each handle
PUBLISHED = {"linestyle": "--", "linewidth": 1, "marker": "o", "markersize": 3}


@for_figures
def generation_curves(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    metric: str,
    x_label: str,
    y_label: str,
    limits: list[float] | None,
    labels: dict[str, str],
    per_generation: float,
    published: dict[str, dict[str, list[float]]],
    show_published: bool,
    lines: dict[str, float],
    levels: dict[str, dict[str, Any]],
) -> None:
    """A metric against the swept value, IQM and 95 % interval; dashed: published values of the same colour.

    Args:
        summaries: {title: summary}.
        path: PNG to write.
        title: above the picture.
        metric: drawn.
        x_label, y_label: of the axes; limits: of y, or None.
        labels: {title of a summary: legend}; others, and those without a legend, are not drawn.
        per_generation: of the swept value in a generation; the first `labels` has generations.
        published: {title of a summary: {x: [], y: []}}, or `generations`, 1 at the end of the first one,
            instead of x; show_published: whether these and `lines` are drawn.
        lines: {text: value}, horizontal lines, none where the value is null.
        levels: {text: {run, metric, times}}, horizontal lines at `times` what runs had at their end.
    """
    plt = pyplot()
    labels = {name: label for name, label in labels.items() if label}
    figure, axis = plt.subplots(figsize=(9.0, 5.0))
    for colour, (name, label) in zip(COLOURS, labels.items(), strict=False):
        swept_line(axis, summaries[name], metric, colour, label, dots=False)
        if show_published and name in published:
            known = published[name]
            x = known["x"] if "x" in known else [n * per_generation for n in known["generations"]]
            axis.plot(x, known["y"], color=colour, alpha=0.8, **PUBLISHED)
    _boundaries(axis, summaries[next(iter(labels))], per_generation)
    if show_published:
        _lines(axis, {text: value for text, value in lines.items() if value is not None}, "right")
    ends = lambda of: summaries[of["run"]]["metrics"][of["metric"]]["mean"] * of["times"]
    _lines(axis, {text: ends(of) for text, of in levels.items()}, "left")
    axis.set(xlabel=x_label, ylabel=y_label, ylim=limits)
    axis.spines[["top", "right"]].set_visible(False)
    rows = _legend(figure, axis, show_published and bool(published))
    figure.suptitle(title, fontsize=11, y=0.985)
    seeds = min(min(summaries[name]["metrics"][metric]["n"]) for name in labels)
    figure.text(0.99, 0.01, f"IQM and 95 % interval of {seeds} seeds", ha="right", fontsize=7, color="0.4")
    figure.tight_layout(rect=(0, 0.01, 1, 0.97 - 0.05 * rows))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _legend(figure: Any, axis: Any, published: bool) -> int:
    """The curves' names above the picture, what dashes mean if there are `published` values; its rows."""
    handles = axis.get_legend_handles_labels()[0]
    if published:
        handles.append(pyplot().Line2D([], [], color="0.3", label="published", **PUBLISHED))
    letters = sum(len(handle.get_label()) + 6 for handle in handles)
    rows = -(-letters // LETTERS)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.95), "ncols": -(-len(handles) // rows)}
    figure.legend(handles=handles, frameon=False, fontsize=9, **place)
    return rows


def _lines(axis: Any, lines: dict[str, float], side: str) -> None:
    """Horizontal lines with their texts at the left or at the right."""
    for text, value in lines.items():
        axis.axhline(value, color="0.4", linestyle=":", linewidth=1)
        place = {"xycoords": ("axes fraction", "data"), "ha": side, "va": "bottom"}
        axis.annotate(text, (0.01 if side == "left" else 0.99, value), **place, color="0.4", fontsize=8)


def _boundaries(axis: Any, summary: dict, per_generation: float) -> None:
    """Vertical lines half a point before the first point of each generation, and after the last one."""
    x = [next(iter(point.values())) for point in summary["sweep"]]
    step = x[1] - x[0] if len(x) > 1 else 1.0
    edge = x[0] - step / 2
    while edge <= x[-1] + step:
        axis.axvline(edge, color="0.85", linewidth=0.8, zorder=0)
        edge += per_generation
