"""Where numbers go: metrics.jsonl, which is the truth, and W&B, which mirrors it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

WAIT_FOR_WANDB = 10  # seconds to reach W&B, after which the run goes on without it


class MetricsLog:
    """Appends rows to metrics.jsonl.

    A row has `update`, `env_steps`, `agent_steps`, `wall_s` and `metrics`, {name: values}
    with one value per seed ([seeds], or [values][seeds] where a key is swept); a number that is
    not finite is null.
    """

    def __init__(self, path: Path, keep_updates: int):
        """Open `path`, keeping only whole rows of updates up to `keep_updates`."""
        self.rows = [row for row in read_rows(path) if row["update"] <= keep_updates]
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        path.write_text(text)
        self._file = path.open("a")

    def append(self, row: dict[str, Any]) -> None:
        """Write one row and flush it."""
        row = row | {"metrics": {k: plain(v) for k, v in row["metrics"].items()}}
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a metrics file; a torn last line is left out, no file is no rows."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class WandbMirror:
    """One W&B run per seed, in a group; silent and harmless if W&B cannot be reached.

    `values` of a swept key are mirrored as further runs.
    """

    def __init__(self, mode: str, project: str, group: str, folder: Path, config: dict[str, Any]):
        """Start nothing yet; runs begin with the first row."""
        self._settings = {"mode": mode, "project": project, "group": group, "dir": str(folder)}
        self._config, self._runs, self._off = config, [], mode == "disabled"

    def append(self, row: dict[str, Any]) -> None:
        """Send one row of metrics, {name: [seeds] or [values][seeds]}."""
        if self._off:
            return
        flat = {k: np.asarray(v, np.float64).reshape(-1) for k, v in row["metrics"].items()}
        if not self._runs:
            self._start(len(next(iter(flat.values()))))
        for i, run in enumerate(self._runs):
            seen = {k: v[i] for k, v in flat.items() if math.isfinite(v[i])}
            run.log(seen | {"env_steps": row["env_steps"]})

    def close(self) -> None:
        """Finish all runs, waiting a bounded time for the upload."""
        for run in self._runs:
            run.finish()

    def _start(self, count: int) -> None:
        try:
            import wandb

            settings = wandb.Settings(
                init_timeout=WAIT_FOR_WANDB, console="off", silent=True, finish_timeout=60
            )
            for i in range(count):
                run = wandb.init(
                    **self._settings,
                    name=f"{self._settings['group']}-{i}",
                    config=self._config | {"index": i},
                    settings=settings,
                    reinit="create_new",
                )
                run.define_metric("*", step_metric="env_steps")
                self._runs.append(run)
        except Exception as error:  # wandb raises many kinds; none may stop a run
            print(f"W&B is off for this run ({type(error).__name__}); metrics.jsonl has everything.")
            self._off = True


def plain(value: Any) -> Any:
    """An array or nested lists of numbers as nested lists for JSON; None where not finite."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return value if value is None or math.isfinite(value) else None
