"""Experiments: several runs, a picture, and claims that the results must meet.

A file configs/experiment/PAPER/FIGURE.yaml names its runs by their overrides, says what to
plot, and states its claims as bounds on a statistic over seeds. `marl.experiment` runs them,
draws them and checks them. A run can begin from an earlier one, `start_from=TITLE`, and an earlier one can
hold seats, `seats=[0,TITLE]`. A figure with a node `measure` leaves no run folders: each of its runs is
handed, built, to that function, which gives a summary of the same form, kept until the figure is done. Each
node of `after` is called when all runs are trained, as f(folders={run: its folder}, ...), and gives
{title: summary}.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl.build import build
from marl.checkpoint import fingerprint, write_atomically
from marl.config import compose, construct
from marl.console import SHOWN, ChunkProgress, print_summary
from marl.run import run
from marl.stages import prepare
from marl.targets import check_targets
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


def run_experiment(
    name: str, overrides: Sequence[str], scale: str, folder: Path, only: str | None = None
) -> Outcome:
    """Run, plot and check an experiment; a folder that holds part of it is completed.

    Args:
        name: PAPER/FIGURE.
        overrides: the user's own, which win over the experiment's.
        scale: one of the experiment's scales.
        folder: gets a run folder for each run, NAME.png, NAME.csv and claims.json, and what each
            node of `after` gave, in after-NODE.json.
        only: the run that is trained, and nothing else is done; None: all, and the rest.

    Raises:
        ConfigError: for unknown names or values.
    """
    runs = plan(name, overrides, scale)
    cfg = next(iter(runs.values()))
    check_targets(cfg)
    figure, summaries, folders = cfg.figure, {}, {}
    if only is not None and only not in runs:
        raise ConfigError([f"only={only}: must be one of {', '.join(runs)}"])
    claims: Any = OmegaConf.to_container(figure.claims[scale])
    for title, run_cfg in runs.items():
        if only not in (None, title):
            continue
        if run_cfg.start_from in runs:
            run_cfg.start_from = str(folder / run_cfg.start_from)
        if not isinstance(run_cfg.seats, str):
            run_cfg.seats = [str(folder / seat) if seat in runs else seat for seat in run_cfg.seats]
        if "measure" in figure:
            summary = measured(title, run_cfg, folder)
            shown = list(summary["metrics"])
        else:
            with ChunkProgress(title) as progress:
                result = run(run_cfg, folder / title, progress)
            if result.exit_code:
                return Outcome(folder, result.exit_code, [])
            summary, folders[title] = result.summary, folder / title
            shown = [panel.metric for panel in figure.plot.get("panels", ())] or SHOWN
        summaries[title] = summary
        print_summary(title, summary, shown)
    if only is not None:
        return Outcome(folder, 0, [])
    stem = name.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    for title, later in after_training(figure.get("after") or {}, folders, folder).items():
        if title in summaries:
            raise ConfigError([f"figure.after: gives a summary {title}; a run has this name"])
        summaries[title] = later
        claimed = [metric for claim in claims for of, metric, _ in _sides(claim) if of == title]
        print_summary(title, later, list(dict.fromkeys(claimed or later["metrics"])))
    write_csv(folder / f"{stem}.csv", summaries)
    construct(figure.plot, summaries=summaries, path=folder / f"{stem}.png")
    found = check_claims(claims, summaries)
    facts = {"experiment": name, "scale": scale, "claims": [dataclasses.asdict(c) for c in found]}
    write_atomically(folder / "claims.json", json.dumps(facts, indent=1))
    for path in folder.glob("measured-*.json"):
        path.unlink()  # asked again, all is measured again
    return Outcome(folder, 0, found)


def kept(
    path: Path, asked: dict[str, Any], what: str, make: Callable[[], dict[str, dict]]
) -> dict[str, dict]:
    """The summaries that `make` gives; kept in `path`, and taken from there while `asked` stays the same.

    Args:
        path: JSON file.
        asked: all that the summaries depend on.
        what: told when they are made, and when they are taken.
        make: gives {title: summary}.
    """
    found = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("asked") == json.loads(json.dumps(asked)):
        print(f"{what}: kept in {path}", flush=True)
        return found["summaries"]
    print(what, flush=True)
    text = json.dumps({"asked": asked, "summaries": make()}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return json.loads(text)["summaries"]


def measured(title: str, cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The summary that the figure's `measure` makes of a run; kept until the figure is done.

    What long ones keep of their stages lies in folder/measured-TITLE/ meanwhile.
    """
    own: Any = OmegaConf.to_container(cfg)
    asked = own | {"figure": own["figure"]["measure"]}
    stages = folder / f"measured-{title}"

    def make() -> dict[str, dict]:
        setup = dataclasses.replace(build(cfg), keep=prepare(stages, asked))
        return {title: construct(cfg.figure.measure, setup=setup)}

    summary = kept(folder / f"measured-{title}.json", asked, f"measuring {title}", make)[title]
    shutil.rmtree(stages, ignore_errors=True)
    return summary


def after_training(nodes: Mapping[str, Any], folders: dict[str, Path], folder: Path) -> dict[str, dict]:
    """What the nodes `after` make of trained runs: {title: summary} of all of them.

    What a node gave is kept in folder/after-NODE.json, and taken from there while the node and the
    runs' newest checkpoints stay as they were.

    Args:
        nodes: {node: its `_target_` and keys}.
        folders: {run: its folder}.
        folder: the figure's.

    Raises:
        ConfigError: if two nodes give a summary of the same title.
    """
    runs = {title: fingerprint(run_dir / "checkpoints") for title, run_dir in folders.items()}
    summaries: dict[str, dict] = {}
    for name, node in nodes.items():
        asked = {"node": OmegaConf.to_container(node), "runs": runs}
        make = functools.partial(construct, node, folders=folders)
        given = kept(folder / f"after-{name}.json", asked, f"after training: {name}", make)
        twice = summaries.keys() & given.keys()
        if twice:
            raise ConfigError([f"figure.after.{name}: gives a summary {min(twice)}; another node does too"])
        summaries |= given
    return summaries


def plan(name: str, overrides: Sequence[str], scale: str) -> dict[str, DictConfig]:
    """The composed configuration of every run of an experiment, all checked before any starts.

    A run is a list of overrides, or {scale: such a list}, with `common` for those of all scales. One that is
    null is left out, in all scales or in one: so a figure made from another one takes its runs away.

    Raises:
        ConfigError: naming everything wrong.
    """
    figure = compose([f"experiment={name}", *(o for o in overrides if o.startswith("plugins="))]).figure
    if figure is None:
        raise ConfigError([f"experiment={name}: describes no figure"])
    if scale not in figure.scales:
        raise ConfigError([f"scale={scale}: must be one of {', '.join(figure.scales)}"])

    def of_scale(own: Any) -> list[str] | None:
        if not isinstance(own, Mapping):
            return own
        return None if own[scale] is None else [*own.get("common", ()), *own[scale]]

    chosen = {title: of_scale(own) for title, own in figure.runs.items()}
    choose = lambda own: compose([f"experiment={name}", *own, *figure.scales[scale], *overrides])
    return {title: choose(own) for title, own in chosen.items() if own is not None}


def check_claims(claims: list[dict[str, Any]], summaries: dict[str, dict]) -> list[Claim]:
    """Hold claims against the results.

    A claim has `says`, `run`, `metric`, `statistic` (iqm, mean, low, high), one of `at_least` and
    `at_most`, and optionally `over: {min, max}`, the swept values that it covers. It is met if
    it holds at every point covered, and not met if it covers none. With `minus: RUN`, `minus_metric: METRIC`
    or `minus_statistic: STATISTIC` it bounds a difference: that statistic of that run's metric is subtracted
    (what is not given is as in the minuend); both have the same swept values. So the low end of one interval
    can be held against the high end of another.
    """
    return [_check(claim, summaries) for claim in claims]


def _check(claim: dict[str, Any], summaries: dict[str, dict]) -> Claim:
    kind = next(k for k in BOUNDS if k in claim)
    bound, over, sweep = claim[kind], claim.get("over", {}), summaries[claim["run"]]["sweep"]
    sides = [summaries[run]["metrics"][metric][statistic] for run, metric, statistic in _sides(claim)]
    per_point = zip(*(side if sweep else [side] for side in sides), strict=True)
    values = [None if None in found else found[0] - sum(found[1:]) for found in per_point]
    points = [next(iter(point.values())) for point in sweep] or [None]
    low, high = over.get("min", float("-inf")), over.get("max", float("inf"))
    covered = [(v, p) for v, p in zip(values, points, strict=True) if p is None or low <= p <= high]
    statistics = " - ".join(dict.fromkeys(statistic for _, _, statistic in _sides(claim)))
    text = f"{statistics} {kind.replace('_', ' ')} {bound}"
    unknown = [p for v, p in covered if v is None]
    if unknown or not covered:
        return Claim(claim["says"], text, None, f"{unknown[0]}" if unknown else "no point", False)
    value, point = (min if kind == "at_least" else max)(covered)
    where = "the end" if point is None else f"{next(iter(sweep[0]))}={point:g}"
    return Claim(claim["says"], text, value, where, bool(BOUNDS[kind](value, bound)))


def _sides(claim: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(run, metric, statistic) that a claim is about, then what is subtracted from it, if anything."""
    own = claim["run"], claim["metric"], claim["statistic"]
    keys = "minus", "minus_metric", "minus_statistic"
    if not claim.keys() & set(keys):
        return [own]
    run, metric, statistic = (claim.get(key, value) for key, value in zip(keys, own, strict=True))
    return [own, (run, metric, statistic)]


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
