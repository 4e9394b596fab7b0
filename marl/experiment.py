"""Experiments: several runs, a picture, and claims that the results must meet.

A file configs/experiment/PAPER/FIGURE.yaml names its runs by their overrides, says what to
plot, and states its claims as bounds on a statistic over seeds. `marl.experiment` runs them,
draws them and checks them. A figure with a node `measure` trains nothing: each of its runs is
handed, built, to that function, which gives a summary of the same form.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl.build import build
from marl.checkpoint import write_atomically
from marl.config import check_targets, compose, construct
from marl.console import SHOWN, ChunkProgress, print_summary
from marl.run import run
from marl.validation import ConfigError

BOUNDS = {"at_least": lambda value, bound: value >= bound, "at_most": lambda value, bound: value <= bound}


@dataclasses.dataclass(frozen=True)
class Claim:
    """A bound and what was found: the value of the worst point it covers, and where that was."""

    says: str
    bound: str
    value: float | None
    worst_at: str
    met: bool

    def line(self) -> str:
        """One line for people."""
        found = "no data" if self.value is None else f"{self.value:.3f}"
        return f"[{'met' if self.met else 'NOT MET'}] {self.says}: {found} at {self.worst_at} ({self.bound})"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an experiment left behind; exit_code as in `marl.run.Result`, claims empty if stopped."""

    folder: Path
    exit_code: int
    claims: list[Claim]


def run_experiment(name: str, overrides: Sequence[str], scale: str, folder: Path) -> Outcome:
    """Run, plot and check an experiment; a folder that holds part of it is completed.

    Args:
        name: PAPER/FIGURE.
        overrides: the user's own, which win over the experiment's.
        scale: one of the experiment's scales.
        folder: gets a run folder for each run, NAME.png, NAME.csv and claims.json.

    Raises:
        ConfigError: for unknown names or values.
    """
    runs = plan(name, overrides, scale)
    cfg = next(iter(runs.values()))
    check_targets(cfg)
    figure = cfg.figure
    summaries = {}
    for title, run_cfg in runs.items():
        if "measure" in figure:
            summary = construct(run_cfg.figure.measure, setup=build(run_cfg))
            shown = list(summary["metrics"])
        else:
            with ChunkProgress(title) as progress:
                result = run(run_cfg, folder / title, progress)
            if result.exit_code:
                return Outcome(folder, result.exit_code, [])
            summary = result.summary
            shown = [panel.metric for panel in figure.plot.get("panels", ())] or SHOWN
        summaries[title] = summary
        print_summary(title, summary, shown)
    stem = name.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / f"{stem}.csv", summaries)
    construct(figure.plot, summaries=summaries, path=folder / f"{stem}.png")
    claims = check_claims(OmegaConf.to_container(figure.claims[scale]), summaries)
    facts = {"experiment": name, "scale": scale, "claims": [dataclasses.asdict(c) for c in claims]}
    write_atomically(folder / "claims.json", json.dumps(facts, indent=1))
    return Outcome(folder, 0, claims)


def plan(name: str, overrides: Sequence[str], scale: str) -> dict[str, DictConfig]:
    """The composed configuration of every run of an experiment, all checked before any starts.

    Raises:
        ConfigError: naming everything wrong.
    """
    figure = compose([f"experiment={name}", *(o for o in overrides if o.startswith("plugins="))]).figure
    if figure is None:
        raise ConfigError([f"experiment={name}: describes no figure"])
    if scale not in figure.scales:
        raise ConfigError([f"scale={scale}: must be one of {', '.join(figure.scales)}"])
    choose = lambda own: compose([f"experiment={name}", *own, *figure.scales[scale], *overrides])
    return {title: choose(own) for title, own in figure.runs.items()}


def check_claims(claims: list[dict[str, Any]], summaries: dict[str, dict]) -> list[Claim]:
    """Hold claims against the results.

    A claim has `says`, `run`, `metric`, `statistic` (iqm, mean, low, high), one of `at_least` and
    `at_most`, and optionally `over: {min, max}`, the swept values that it covers. It is met if
    it holds at every point covered, and not met if it covers none.
    """
    return [_check(claim, summaries[claim["run"]]) for claim in claims]


def _check(claim: dict[str, Any], summary: dict[str, Any]) -> Claim:
    kind = next(k for k in BOUNDS if k in claim)
    bound, over = claim[kind], claim.get("over", {})
    values = summary["metrics"][claim["metric"]][claim["statistic"]]
    points = [next(iter(point.values())) for point in summary["sweep"]] or [None]
    values = values if summary["sweep"] else [values]
    low, high = over.get("min", float("-inf")), over.get("max", float("inf"))
    covered = [(v, p) for v, p in zip(values, points, strict=True) if p is None or low <= p <= high]
    text = f"{claim['statistic']} {kind.replace('_', ' ')} {bound}"
    unknown = [p for v, p in covered if v is None]
    if unknown or not covered:
        return Claim(claim["says"], text, None, f"{unknown[0]}" if unknown else "no point", False)
    value, point = (min if kind == "at_least" else max)(covered)
    where = "the end" if point is None else f"{next(iter(summary['sweep'][0]))}={point:g}"
    return Claim(claim["says"], text, value, where, bool(BOUNDS[kind](value, bound)))


def write_csv(path: Path, summaries: dict[str, dict]) -> None:
    """One row a run, swept value, metric and seed: the final value."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["run", "swept", "value", "metric", "seed_index", "result"])
        for title, summary in summaries.items():
            points = summary["sweep"] or [{"": ""}]
            for metric, found in summary["metrics"].items():
                per_point = found["per_seed"] if summary["sweep"] else [found["per_seed"]]
                for point, seeds in zip(points, per_point, strict=True):
                    key, value = next(iter(point.items()))
                    rows.writerows([title, key, value, metric, i, x] for i, x in enumerate(seeds))
