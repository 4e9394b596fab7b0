"""metrics.jsonl, the truth about a run: whole rows only, whatever the disk does."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np


class MetricsLog:
    """Appends rows to metrics.jsonl.

    A row has `update`, `env_steps`, `agent_steps`, `wall_s` and `metrics`, {name: values}
    with one value per seed ([seeds], or [values][seeds] where a key is swept); a number that is
    not finite is null. Rows that the disk does not take (it is full, say) are kept and written
    with the next one; the file holds a part of a row at most at its end, and no longer than
    until the disk takes rows again.
    """

    def __init__(self, path: Path, keep_updates: int):
        """Open `path`, keeping only whole rows of updates up to `keep_updates`."""
        self.rows: list[dict[str, Any]] = []
        self._path, self._waiting, self._warned = path, b"", False
        path.touch()
        self._file: Any = path.open("r+b", buffering=0)
        kept = 0
        for line in self._file.read().splitlines(keepends=True):
            row = _parsed(line)
            if row is None or row["update"] > keep_updates:
                break
            self.rows.append(row)
            kept += len(line)
            self._waiting = b"" if line.endswith(b"\n") else b"\n"
        self._end = kept  # bytes of whole rows in the file
        self._file.truncate(kept)
        self._write()

    def append(self, row: dict[str, Any]) -> None:
        """Write one row, and first those that could not be written before."""
        row = row | {"metrics": {k: plain(v) for k, v in row["metrics"].items()}}
        self.rows.append(row)
        self._waiting += json.dumps(row).encode() + b"\n"
        self._write()

    def close(self) -> None:
        """Close the file; rows that still wait are tried once more."""
        self._write()
        if self._waiting:
            lost = self._waiting.count(b"\n")
            print(f"{self._path}: the last {lost} rows could not be written")
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self) -> None:
        """Write what waits at the end of the whole rows; if that fails, leave it waiting."""
        try:
            self._file.seek(self._end)
            rest = memoryview(self._waiting)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            if not self._warned:
                print(f"{self._path}: {error.strerror}; rows are kept in memory until it can be written")
            self._warned = True
            return
        self._end += len(self._waiting)
        self._waiting, self._warned = b"", False


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a metrics file; a torn last line is left out, no file is no rows."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        row = _parsed(line)
        if row is None:
            break
        rows.append(row)
    return rows


def plain(value: Any) -> Any:
    """An array or nested lists of numbers as nested lists for JSON; None where not finite."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return value if value is None or math.isfinite(value) else None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "update" in row else None
