"""Compare trained methods over games: `python scripts/compare.py runs=FOLDER,FOLDER`."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from marl.cli import main, options
from marl.validation import ConfigError

USAGE = """
usage: python scripts/compare.py runs=FOLDER[,FOLDER ...] [metric=return] [games=env[,mechanism]]
                                 [out=compare]

  Compares what trained runs ended with. A folder is a run, or holds runs: the folder of a sweep
  (`train.py -m env=A,B algo=ppo,lola`), or all of runs/. Runs of one game are compared, and methods
  over all games; a game is what games= names, everything else in which runs differ makes the method
  (so by default a mechanism belongs to the method). Seeds of equal runs are put together.

  Prints interquartile means with 95 % intervals, how likely a seed of one method is to beat a seed
  of another (averaged over the games that both have), and, where several methods played several games,
  scores relative to the worst and the best of each game (Agarwal et al. 2021). Writes compare.json,
  compare.csv (a row a seed) and compare.png to out, and curves.png of runs that were not swept.

Exit codes: 0 done, 2 bad input.
"""
NODES = ("env", "mechanism")


def compare(arguments: list[str]) -> int:
    """Compare; returns the exit code."""
    own, rest = options(arguments, {"runs": "", "metric": "return", "games": "env", "out": "compare"})
    games = own["games"].split(",")
    errors = [f"{text}: no such option; there are {', '.join(own)}" for text in rest]
    errors += [f"games={own['games']}: must be some of {', '.join(NODES)}"] if set(games) - {*NODES} else []
    errors += [] if own["runs"] else ["runs=: name folders of runs"]
    if errors:
        raise ConfigError(errors)
    from marl import comparison, comparison_plots
    from marl.presets import labels

    runs = comparison.ended(map(Path, own["runs"].split(",")))
    names = labels([run.cfg for run in runs], games)
    facts = comparison.compare(comparison.scores(runs, names, own["metric"], games), own["metric"])
    folder = Path(own["out"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.json").write_text(json.dumps(facts, indent=1))
    with (folder / "compare.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["game", "method", "seed_index", own["metric"]])
        for cell in facts["cells"]:
            rows.writerows([cell["game"], cell["method"], i, x] for i, x in enumerate(cell["per_seed"]))
    comparison_plots.comparison(facts, folder / "compare.png")
    alone = [(name, run) for name, run in zip(names, runs, strict=True) if not run.summary["sweep"]]
    logs = [(*name, run.folder / "metrics.jsonl") for name, run in alone]
    if logs:
        comparison_plots.curves(facts, logs, folder / "curves.png")
    tell(facts)
    print(f"{len(runs)} runs; pictures: {folder / 'compare.png'}" + (", curves.png" if logs else ""))
    return 0


def tell(facts: dict[str, Any]) -> None:
    """Print the tables."""
    from marl.console import print_table

    end = lambda found, digits=3: f"[{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
    cells = [cell for cell in facts["cells"] if cell["n"]]
    rows = [
        (c["game"], c["method"], f"{c['mean']:.3f}", f"{c['iqm']:.3f}", end(c), str(c["n"])) for c in cells
    ]
    print_table(facts["metric"], ("game", "method", "mean", "IQM", "95 % interval", "seeds"), rows)
    rows = []
    for one, other in itertools.combinations(facts["methods"], 2):
        told = facts["improvement"][one][other]
        if told and told["probability"] < 0.5:
            one, other, told = other, one, facts["improvement"][other][one]
        if told:
            rows.append((one, other, f"{told['probability']:.2f}", end(told, 2)))
    print_table("how likely the first beats the second", ("", "", "probability", "95 % interval"), rows)
    rows = [(method, f"{told['iqm']:.3f}", end(told)) for method, told in facts["relative"].items()]
    print_table("relative scores (0: a game's worst, 1: its best)", ("", "IQM", "95 % interval"), rows)


if __name__ == "__main__":
    sys.exit(main(USAGE, compare))
