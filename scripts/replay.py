"""Send a run to Weights & Biases afterwards: `python scripts/replay.py run=FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from marl.cli import main, options
from marl.validation import ConfigError, nearest

USAGE = """
usage: python scripts/replay.py run=FOLDER [project=NAME] [entity=NAME] [group=NAME] [mode=online|offline]

  Sends metrics.jsonl of a finished or stopped run to Weights & Biases, as logger=wandb would have
  done: one W&B run per seed, under ids that belong to the run folder. Rows that W&B has already are
  left out, so sending again, or sending a run that was mirrored in part, doubles nothing. FOLDER may
  also hold several run folders. project, entity and group are those of the run unless given.

  Files that logger.wandb_mode=offline leaves in FOLDER/wandb are not needed; send runs with this
  command or with `wandb sync`, not with both.

Exit codes: 0 all sent, 1 W&B could not be reached or did not take everything, 2 bad input, 4 run
folder in use.
"""
OPTIONS = {"run": "", "project": "", "entity": "", "group": "", "mode": "online"}
MODES = ("online", "offline")


def replay(arguments: list[str]) -> int:
    """Send what W&B lacks of a run folder, or of those in a folder; returns the exit code."""
    own, rest = options(arguments, OPTIONS)
    names = [a.partition("=")[0] for a in rest]
    errors = [f"{n}=: no such option{nearest(n, OPTIONS)} There are: {', '.join(OPTIONS)}" for n in names]
    errors += [] if own["run"] else ["run=: name a run folder"]
    errors += [] if own["mode"] in MODES else [f"mode={own['mode']}: must be one of {', '.join(MODES)}"]
    if errors:
        raise ConfigError(errors)
    root = Path(own["run"])
    folders = [path.parent for path in sorted(root.glob("*/config.yaml"))]
    if (root / "config.yaml").is_file():
        folders = [root]
    if not folders:
        raise FileNotFoundError(f"{root} is not a run folder: it has no config.yaml")
    complete = [_send(folder, own) for folder in folders]
    return 0 if all(complete) else 1


def _send(folder: Path, own: dict[str, str]) -> bool:
    """Send one run; whether W&B now has all of it."""
    from marl.run_folder import locked

    with locked(folder):
        mirror, rows = _open(folder, own)
        mirror.append(rows[-1])
        mirror.close()
    if mirror.complete:
        print(f"{folder}: sent {mirror.sent} rows, {mirror.known} were there ({mirror.where()})")
    return mirror.complete


def _open(folder: Path, own: dict[str, str]) -> tuple[Any, list[dict[str, Any]]]:
    """The mirror of a run folder, whose configuration is data and reads no environment, and its rows.

    Raises:
        ConfigError: if the folder holds no configuration of a run, or no rows.
    """
    from omegaconf import OmegaConf

    from marl.logger import mirror_of
    from marl.metrics_log import read_rows

    rows = read_rows(folder / "metrics.jsonl")
    if not rows:
        raise ConfigError([f"{folder} has no rows in metrics.jsonl"])
    given = {key: own[key] for key in ("project", "entity", "group") if own[key]}
    try:
        cfg: Any = OmegaConf.load(folder / "config.yaml")
        written: Any = OmegaConf.to_container(cfg.logger)
        logger = {"entity": None, "group": None, "tags": []} | written | given | {"wandb_mode": own["mode"]}
        summary = folder / "summary.json"
        facts = json.loads(summary.read_text()) if summary.exists() else {}
        mirror = mirror_of(cfg, folder, logger, facts.get("versions", {}).get("git"), fallback=False)
    except Exception as error:  # not YAML, or a mapping of something else
        why = str(error).split("\n")[0]
        raise ConfigError([f"{folder}/config.yaml is no run's configuration: {why}"]) from error
    hidden = [key for key in ("project", "entity", "group") if "${" in str(logger[key])]
    if hidden:
        raise ConfigError(f"{key}=: the run took it from the environment; name it" for key in hidden)
    return mirror, rows


if __name__ == "__main__":
    sys.exit(main(USAGE, replay))
