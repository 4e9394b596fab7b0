"""What a person sees: progress, tables and the help text."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from marl.config import describe, groups

PLAIN_LINE_EVERY_S = 10.0
ROWS = 16  # of a table, for each metric
SHOWN = ("cooperation_rate", "reward", "return", "equality")


class ChunkProgress:
    """A progress bar on a terminal, a line now and then elsewhere; call it after each chunk."""

    def __init__(self, title: str, unit: str = "update"):
        """Name the run, and what is counted."""
        self._title, self._unit, self._last = title, unit, time.monotonic()
        self._bar = None
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )

    def __enter__(self) -> ChunkProgress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(f"{self._title} (compiling)", rate="")
        else:
            print(f"{self._title}: compiling", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, total: int, rate: float) -> None:
        """Show that `done` of `total` units are done at `rate` environment steps/s."""
        text = f"{rate:,.0f} env steps/s"
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, rate=text, description=self._title)
        elif done >= total or time.monotonic() - self._last > PLAIN_LINE_EVERY_S:
            self._last = time.monotonic()
            print(f"{self._title}: {self._unit} {done} of {total}, {text}", flush=True)


def print_summary(title: str, summary: dict[str, Any], shown: Sequence[str] = SHOWN) -> None:
    """A table of the final metrics `shown`: mean, IQM, 95 % interval and number of seeds.

    Of many swept values (the points of a curve, say) ROWS are shown, the first and the last among them.
    """
    points = summary["sweep"]
    rows = sorted({round(i * (len(points) - 1) / (ROWS - 1)) for i in range(ROWS)}) if points else [0]
    table = Table(title=title, title_justify="left")
    for column in (*(points[0] if points else ()), "metric", "mean", "IQM", "95 % interval", "n"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for i in rows:
        point = points[i] if points else {}
        for name in (n for n in shown if n in summary["metrics"]):
            found = summary["metrics"][name]
            pick = lambda key, found=found, i=i: found[key][i] if points else found[key]
            interval = f"[{_number(pick('low'))}, {_number(pick('high'))}]"
            values = [f"{v:g}" for v in point.values()]
            count, seeds = pick("n"), len(pick("per_seed"))
            shown_n = str(count) if count == seeds else f"{count}/{seeds}"
            table.add_row(*values, name, _number(pick("mean")), _number(pick("iqm")), interval, shown_n)
    _show(table)
    if len(rows) < len(points):
        print(f"{len(rows)} of {len(points)} values shown; the files have all")
    if summary["lost"]:
        print(f"WARNING: diverged and left out: {', '.join(map(str, summary['lost']))}")
    if "compile_s" not in summary:  # measured, not trained
        return
    steps = summary["env_steps_per_s"]
    speed = f"{steps:,.0f} env steps/s, " if steps else ""
    print(f"{speed}compiled in {summary['compile_s']} s, trained for {summary['wall_s']:.1f} s")


def print_runs(runs: Mapping[str, tuple[str, str, dict]], shown: Sequence[str] = SHOWN) -> None:
    """A table of runs, {name: (how it ended, what it was asked, metrics as in summary.json)}: their means."""
    names = [name for name in shown if any(name in metrics for _, _, metrics in runs.values())]
    rows = []
    for run, (state, asked, metrics) in runs.items():
        means = [metrics.get(name, {}).get("mean") for name in names]
        rows.append((run, state, asked, *("..." if isinstance(x, list) else _number(x) for x in means)))
    print_table("", ("run", "", "overrides", *names), rows)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of texts, if there are any."""
    table = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*row)
    if rows:
        _show(table)


def _show(table: Table) -> None:
    """As wide as the terminal, or as a page."""
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def help_text(usage: str, plugins: Sequence[str] = ()) -> str:
    """`usage`, then every choice of every config group, also of `plugins`, with its description."""
    titles = {
        "env": "environments (env=NAME)",
        "mechanism": "mechanisms (mechanism=[NAME,NAME], inner first)",
        "algo": "algorithms and scripted players (algo=NAME)",
        "network": "networks (network=NAME)",
        "past": "past agents as opponents (past=NAME)",
        "logger": "loggers (logger=NAME)",
        "experiment": "experiments (experiment=NAME)",
    }
    lines = [usage.strip()]
    for group, names in groups(plugins).items():
        lines += ["", titles.get(group, group)]
        lines += [f"  {name:<28} {describe(group, name, plugins)}" for name in names]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
