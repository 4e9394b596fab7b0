"""Pictures of a comparison: how each method ended and learned in each game, and how often it beats others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marl.plots import COLOURS, pyplot
from marl.social_plots import curve

COLUMNS = 4
NUM_ROWS = 200  # of a log, that are drawn


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


def curves(facts: dict[str, Any], logs: Sequence[tuple[str, str, Path]], path: Path) -> None:
    """Draw how runs learned, a panel a game: mean over seeds, band = 95 % interval, a line a run.

    Args:
        facts: of the comparison, whose methods keep their colours.
        logs: game, method and metrics.jsonl of each run that was not swept.
        path: PNG to write.
    """
    plt = pyplot()
    games = list(dict.fromkeys(game for game, _, _ in logs))
    colours = {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(facts["methods"])}
    columns = min(len(games), COLUMNS)
    rows = -(-len(games) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.6 * rows + 0.5), squeeze=False, layout="constrained"
    )
    for axis in list(axes.flat)[len(games) :]:
        axis.set_visible(False)
    for game, method, log in logs:
        axis = axes.flat[games.index(game)]
        curve(axis, log, facts["metric"], colours[method], num_rows=NUM_ROWS)
        axis.set_title(game, fontsize=9)
        axis.set_xlabel("environment steps", fontsize=8)
        axis.set_ylabel(facts["metric"], fontsize=8)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    methods = list(dict.fromkeys(method for _, method, _ in logs))
    lines = [plt.Line2D([], [], color=colours[method]) for method in methods]
    figure.legend(lines, methods, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
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
