"""Measurements that take hours, in stages: what each leaves is kept; the same command goes on after the last.

A figure's `measure` finds the folder for this in `marl.build.Setup.keep`; it is emptied where the
configuration has changed, and removed when all is measured (`marl.experiment`).
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marl import checkpoint

ASKED = "asked.json"


def prepare(folder: Path, asked: dict[str, Any]) -> Path:
    """The folder, without what was kept for anything else than `asked` (JSON)."""
    text = json.dumps(asked)
    if folder.exists() and not ((folder / ASKED).is_file() and (folder / ASKED).read_text() == text):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_atomically(folder / ASKED, text)
    return folder


def keep(folder: Path | None, number: int, tree: Any, told: Any) -> None:
    """Keep what there is after `number` stages; if it cannot be written that is a warning, as in a run.

    Args:
        folder: None: nothing is kept.
        number: stages done, from 1 on.
        tree: pytree of arrays without random keys.
        told: JSON, what all stages so far tell.
    """
    if folder is None:
        return
    try:
        checkpoint.save(folder / "stages", number, tree, score=number, about={"told": told})
    except (OSError, ValueError) as error:
        warnings.warn(f"stage {number} could not be kept ({error}); older ones stay", stacklevel=2)


def newest(folder: Path | None, like: Callable[[], Any]) -> tuple[int, Any, Any]:
    """Stages done, and what was kept after them; (0, None, None) at the beginning.

    Args:
        folder: as in `keep`.
        like: makes a tree (of arrays, or of shapes) such as was kept; called if there is anything.

    Raises:
        marl.checkpoint.CheckpointError: if something was kept, but nothing whole.
    """
    stages = None if folder is None else folder / "stages"
    if stages is None or not checkpoint.numbers(stages):
        return 0, None, None
    number, tree = checkpoint.restore(stages, like())
    return number, tree, checkpoint.facts(stages, number)["told"]
