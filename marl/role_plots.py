"""Pictures of who does what and who gives to whom: bars, and matrices of weights between seats or roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from marl.figures import for_figures
from marl.plots import COLOURS, pyplot


@for_figures
def weight_matrices(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    parts: list[dict[str, Any]],
) -> None:
    """A panel a run: the mean share of its reward that each row gives to each column; means over seeds.

    Each cell has the mean, and in small type the standard deviation over seeds. What stays with the giver is
    not shown; below the name of a column stands its sum.

    Args:
        summaries: {title: summary} with `weight/ROLE_I_to_J`, as `marl.roles.roles` gives.
        path: PNG to write.
        title: above the picture.
        parts: one a panel: {run: title of a summary, title, names: [of the seats or roles], by: seat | role}.
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, len(parts), figsize=(3.7 * len(parts) + 0.8, 3.9), squeeze=False)
    tables = [_table(summaries[panel["run"]]["metrics"], panel) for panel in parts]
    top = max(float(mean.max()) for mean, _ in tables)
    for axis, panel, (mean, spread) in zip(axes[0], parts, tables, strict=True):
        names = panel["names"]
        axis.imshow(mean, cmap="Blues", vmin=0.0, vmax=top, aspect="auto")
        for i, j in np.ndindex(mean.shape):
            if i == j:
                continue
            colour = "white" if mean[i, j] > 0.6 * top else "black"
            where = {"ha": "center", "color": colour, "textcoords": "offset points"}
            axis.annotate(f"{mean[i, j]:.3f}", (j, i), xytext=(0, 0), fontsize=9, **where)
            axis.annotate(f"± {spread[i, j]:.3f}", (j, i), xytext=(0, -9), fontsize=6.5, **where)
        incoming = [f"{name}\n{x:.3f}" for name, x in zip(names, mean.sum(0), strict=True)]
        axis.set_xticks(range(len(names)), incoming, fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_title(panel["title"], fontsize=10)
        axis.set_xlabel("taker, and the sum that it is given", fontsize=9)
    axes[0][0].set_ylabel("giver", fontsize=9)
    figure.suptitle(title, fontsize=11, y=0.985)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=130)
    plt.close(figure)


@for_figures
def bar_panels(*, summaries: dict[str, dict], path: Path, title: str, parts: list[dict[str, Any]]) -> None:
    """A panel each: metrics side by side, a bar a run, means over seeds; dots are seeds.

    Args:
        summaries: {title: summary} of what is not swept.
        path: PNG to write.
        title: above the picture.
        parts: one a panel: {title, y_label, runs: {title of a summary: legend}, metrics: {metric: text below
            its bars}}; the same legend has the same colour in all panels.
    """
    plt = pyplot()
    legends = list(dict.fromkeys(text for panel in parts for text in panel["runs"].values()))
    colours = dict(zip(legends, COLOURS, strict=False))
    widths = [max(2, len(panel["runs"]) * len(panel["metrics"]) / 3) for panel in parts]
    size = {"figsize": (1.1 * sum(widths) + 1.5, 4.0), "squeeze": False}
    figure, axes = plt.subplots(1, len(parts), gridspec_kw={"width_ratios": widths}, **size)
    for axis, panel in zip(axes[0], parts, strict=True):
        width = 0.8 / len(panel["runs"])
        for k, (run, text) in enumerate(panel["runs"].items()):
            for place, metric in enumerate(panel["metrics"]):
                found = summaries[run]["metrics"][metric]
                x = place + (k - (len(panel["runs"]) - 1) / 2) * width
                axis.bar(x, found["mean"], width, color=colours[text], alpha=0.75)
                axis.plot([x] * len(found["per_seed"]), found["per_seed"], ".", color="0.2", markersize=3)
        axis.set_xticks(range(len(panel["metrics"])), list(panel["metrics"].values()), fontsize=8)
        axis.set_title(panel["title"], fontsize=10)
        axis.set_ylabel(panel["y_label"], fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    lines = [plt.Line2D([], [], color=colours[text], linewidth=4, label=text) for text in legends]
    figure.legend(handles=lines, frameon=False, fontsize=9, loc="lower center", ncols=len(lines))
    figure.suptitle(title, fontsize=11, y=0.985)
    figure.tight_layout(rect=(0, 0.07, 1, 0.98))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _table(metrics: dict[str, Any], panel: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """[A, A] means and standard deviations over seeds of what rows give to columns."""
    num = len(panel["names"])
    mean, spread = np.zeros((num, num)), np.zeros((num, num))
    for i, j in np.ndindex(num, num):
        found = metrics.get(f"weight/{panel['by']}_{i}_to_{j}")
        if found:
            mean[i, j], spread[i, j] = np.mean(found["per_seed"]), np.std(found["per_seed"])
    return mean, spread
