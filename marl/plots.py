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


def league_matrix(cells: list[dict[str, Any]], path: Path, title: str) -> None:
    """Heat map of a league: mean reward per step of the row player, with the column's below it.

    Args:
        cells: as `marl.league.Cell.facts` says them, row by row, of a square league.
        path: PNG to write.
        title: above the picture.
    """
    plt = _pyplot()
    names = list(dict.fromkeys(cell["row"] for cell in cells))
    reward = {(cell["row"], cell["column"]): cell["row_reward"] for cell in cells}
    values = [[reward[row, column] for column in names] for row in names]
    size = 2.6 + 1.35 * len(names)
    figure, axis = plt.subplots(figsize=(size + 0.6, max(size * 0.8, 3.2)))
    image = axis.imshow(values, cmap="RdYlBu", aspect="auto")
    for place, cell in enumerate(cells):
        row, column = divmod(place, len(names))
        red, green, blue, _ = image.cmap(image.norm(cell["row_reward"]))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.45
        style = {"ha": "center", "va": "center", "color": "white" if dark else "black", "fontsize": 8}
        axis.text(column, row, _cell_text(cell), **style)
    short = _short_names(names)
    axis.set_xticks(range(len(names)), short, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), short)
    axis.set_xlabel("column player (all other seats)")
    axis.set_ylabel("row player (seat 0)")
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, label="row player's reward per step")
    note = "row (mean ± s.d. over pairs of seeds) | column; runs against themselves: different seeds"
    figure.text(0.01, 0.01, note, fontsize=7, color="0.4")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def exploiters(found: list[dict[str, Any]], path: Path, title: str) -> None:
    """What an exploiter earns of each victim, beside the victim then and among itself; dots are seeds.

    Args:
        found: as `marl.exploiter.best_response` says them, one a victim.
        path: PNG to write.
        title: above the picture.
    """
    plt = _pyplot()
    bars = {"self_play": "victim with itself", "reward": "exploiter", "victim_reward": "victim, exploited"}
    figure, axis = plt.subplots(figsize=(2.4 + 1.5 * len(found), 3.8))
    width = 0.8 / len(bars)
    for i, (key, label) in enumerate(bars.items()):
        x = [place + (i - 1) * width for place in range(len(found))]
        axis.bar(x, [one[key]["mean"] for one in found], width, color=COLOURS[i], alpha=0.75, label=label)
        for place, one in zip(x, found, strict=True):
            seeds = one[key]["per_seed"]
            axis.plot([place] * len(seeds), seeds, ".", color="0.2", markersize=4)
    axis.axhline(0.0, color="0.4", linewidth=0.8)
    axis.set_xticks(
        range(len(found)), _short_names([one["victim"] for one in found]), rotation=20, ha="right"
    )
    axis.set_ylabel("reward per step")
    axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}: exploiters of {found[0]['steps']:,} steps", fontsize=10)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.94), "ncols": len(bars)}
    figure.legend(*axis.get_legend_handles_labels(), frameon=False, fontsize=8, **place)
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    figure.savefig(path, dpi=130)
    plt.close(figure)


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
    plt = _pyplot()
    figure, axes = plt.subplots(1, len(summaries), figsize=(4.2 * len(summaries) + 0.6, 3.9), squeeze=False)
    for axis, (game, summary) in zip(axes[0], summaries.items(), strict=True):
        for metric, colour in (("cooperator", COLOURS[0]), ("defector", COLOURS[1])):
            _swept_line(axis, summary, metric, colour, metric)
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


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _cell_text(cell: dict[str, Any]) -> str:
    spread = f" ±{cell['row_std']:.2f}" if cell["pairs"] > 1 else ""
    text = f"{cell['row_reward']:.2f}{spread}\n| {cell['column_reward']:.2f}"
    own = cell.get("self_play")
    if own and own["pairs"] < cell["pairs"]:
        text += f"\nsame seed: {own['row_reward']:.2f}"
    return text


def _short_names(names: list[str]) -> list[str]:
    """The last part of each path, where that still tells them apart."""
    short = [name.rstrip("/").rsplit("/", 1)[-1] for name in names]
    return [s if short.count(s) == 1 else name for s, name in zip(short, names, strict=True)]
