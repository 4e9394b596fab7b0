"""Pictures of leagues and exploiters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marl.figures import for_figures
from marl.plots import COLOURS, pyplot

Table = list[list[float | None]]  # row by row, None where there is no value


def league_matrix(cells: list[dict[str, Any]], path: Path, title: str) -> None:
    """Heat map of a league: mean reward per step of the row player, with the column's below it.

    Args:
        cells: as `marl.league.Cell.facts` says them.
        path: PNG to write.
        title: above the picture.
    """
    rows, columns = (list(dict.fromkeys(cell[side] for cell in cells)) for side in ("row", "column"))
    found = {(cell["row"], cell["column"]): cell for cell in cells}
    table = [[found.get((row, column), {}).get("row_reward") for column in columns] for row in rows]
    figure, write = _heat_map(table, _short_names(rows), _short_names(columns))
    for (row, column), cell in found.items():
        write(rows.index(row), columns.index(column), _cell_text(cell))
    note = "row (mean ± s.d. over pairs of seeds) | column; runs against themselves: different seeds"
    _finish(figure, path, title, note)


@for_figures
def against_reference(
    *,
    summaries: dict[str, dict],
    path: Path,
    title: str,
    league: str,
    rows: list[str],
    columns: list[str],
    labels: dict[str, str],
    show_reference: bool,
    reference: dict[str, list[float]],
) -> None:
    """Heat map of mean rewards per step, row | column player, with the published ones small below.

    Args:
        summaries: with that of `marl.after.league`.
        path: PNG to write.
        title: above the picture.
        league: title of the league's summary.
        rows: players.
        columns: players, or cross (the row's other seeds) or self (the row's same seed); a player
            against itself is shown as cross, or as self if it has one seed.
        labels: {player: name shown}, where that is another.
        show_reference: false where the setting is not that of the published results.
        reference: {"ROW|COLUMN": published rewards of the row and of the column player}.
    """
    metrics = summaries[league]["metrics"]
    reference = reference if show_reference else {}
    table, texts, sources = [], {}, {}
    for i, row in enumerate(rows):
        pairs = [_against(row, column, metrics) for column in columns]
        means = [[metrics.get(f"{p}/{side}", {}).get("mean") for side in ("row", "column")] for p in pairs]
        table.append([mean[0] for mean in means])
        texts |= {(i, j): _both(mean) for j, mean in enumerate(means) if mean[0] is not None}
        sources |= {(i, j): f"({_both(reference[p])})" for j, p in enumerate(pairs) if p in reference}
    shown = [[labels.get(name, name) for name in names] for names in (rows, columns)]
    figure, write = _heat_map(table, *shown)
    for place, text in texts.items():
        write(*place, text, lift=3 if place in sources else 0, fontsize=9)
    for place, text in sources.items():
        write(*place, text, lift=-9, fontsize=6.5, style="italic")
    note = "row | column player, mean over seeds" + ("; in brackets: published" if sources else "")
    _finish(figure, path, title, note)


def exploiters(found: list[dict[str, Any]], path: Path, title: str) -> None:
    """What an exploiter earns of each victim, beside the victim then and among itself; dots are seeds.

    Args:
        found: as `marl.exploiter.best_response` says them, one a victim.
        path: PNG to write.
        title: above the picture.
    """
    plt = pyplot()
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


def _heat_map(table: Table, rows: list[str], columns: list[str]) -> tuple[Any, Any]:
    """A figure with coloured cells, and a function (row, column, text) that writes into one."""
    import numpy as np

    plt = pyplot()
    margin = 2.2 + 0.08 * max(map(len, rows))
    width, height = margin + 1.35 * len(columns), 2.6 + 1.35 * len(rows)
    figure, axis = plt.subplots(figsize=(width + 0.6, max(height * 0.8, 3.2)))
    values = np.ma.masked_invalid(np.array(table, float))
    image = axis.imshow(values, cmap="RdYlBu", aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    axis.set_xlabel("column player (all other seats)")
    axis.set_ylabel("row player (seat 0)")
    figure.colorbar(image, label="row player's reward per step")

    def write(row: int, column: int, text: str, lift: float = 0, **style: Any) -> None:
        red, green, blue, _ = image.cmap(image.norm(values[row, column]))
        dark = values[row, column] is not np.ma.masked and 0.3 * red + 0.59 * green + 0.11 * blue < 0.45
        style = {"fontsize": 8, "color": "white" if dark else "black", "ha": "center", "va": "center"} | style
        where = {"xytext": (0, lift), "textcoords": "offset points"}
        axis.annotate(text, (column, row), **where, **style)

    return figure, write


def _finish(figure: Any, path: Path, title: str, note: str) -> None:
    figure.axes[0].set_title(title, fontsize=10)
    figure.text(0.01, 0.01, note, fontsize=7, color="0.4")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=130)
    pyplot().close(figure)


def _against(row: str, column: str, metrics: dict[str, Any]) -> str:
    """ROW|COLUMN as the metrics call it."""
    if row == column:
        column = "cross" if f"{row}|cross/row" in metrics else "self"
    return f"{row}|{column}"


def _both(rewards: list[Any]) -> str:
    return " | ".join(f"{round(reward, 2) + 0.0:.2f}" for reward in rewards)  # no -0.00


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
