"""The picture of a comparison: how each method ended in each game, and how often it beats the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from marl.plots import COLOURS, pyplot

COLUMNS = 4


def comparison(facts: dict[str, Any], path: Path) -> None:
    """Draw what `marl.comparison.compare` tells.

    A panel a game: interquartile mean, 95 % interval, dots = seeds. Then how often the method of a row beats
    that of a column, in the mean over games.

    Args:
        facts: of a comparison.
        path: PNG to write.
    """
    plt = pyplot()
    methods, games = facts["methods"], facts["games"]
    panels = len(games) + (len(methods) > 1)
    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    height = 1.1 + 0.34 * len(methods)
    size = (1.6 + 2.6 * columns, max(rows * height, 2.0) + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    flat = list(axes.flat)
    for axis, game in zip(flat, games, strict=False):
        _game(axis, [cell for cell in facts["cells"] if cell["game"] == game], methods)
        axis.set_title(game, fontsize=9)
        axis.set_xlabel(facts["metric"], fontsize=8)
        axis.locator_params(axis="x", nbins=4)
    if len(methods) > 1:
        _improvement(flat[len(games)], facts["improvement"], methods)
    for i, axis in enumerate(flat):
        axis.set_visible(i < panels)
        axis.tick_params(labelsize=7)
        axis.set_yticks(range(len(methods)), methods if i % columns == 0 else [""] * len(methods))
        axis.set_ylim(len(methods) - 0.5, -0.5)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _game(axis: Any, cells: list[dict[str, Any]], methods: list[str]) -> None:
    for cell in cells:
        if not cell["n"]:
            continue
        row = methods.index(cell["method"])
        colour = COLOURS[row % len(COLOURS)]
        axis.plot(cell["per_seed"], np.full(len(cell["per_seed"]), row), ".", color=colour, alpha=0.35)
        axis.plot([cell["low"], cell["high"]], [row, row], color=colour, linewidth=5, alpha=0.45)
        axis.plot(cell["iqm"], row, "|", color=colour, markersize=11, markeredgewidth=2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.08)


def _improvement(axis: Any, improvement: dict[str, dict[str, Any]], methods: list[str]) -> None:
    told = [[(improvement[a].get(b) or {}).get("probability", np.nan) for b in methods] for a in methods]
    axis.imshow(np.array(told, float), vmin=0, vmax=1, cmap="RdBu", aspect="auto", alpha=0.6)
    for i, row in enumerate(told):
        for j, value in enumerate(row):
            axis.text(j, i, "" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", fontsize=7)
    axis.set_title("P(row beats column)", fontsize=9)
    axis.set_xticks(range(len(methods)), methods, rotation=30, ha="right")
