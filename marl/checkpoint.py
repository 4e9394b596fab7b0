"""Checkpoints that are either whole or not there: orbax for the arrays, a manifest for the proof.

Orbax restores flipped bits and casts dtypes without a word, so a manifest with the sha256 of
every file, written last, decides whether a checkpoint counts, and shapes and dtypes are
compared before anything is used. `checkpoints/<update>/` holds the arrays and
`checkpoints/<update>.json` the manifest; the newest two and the best are kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

KEEP_NEWEST = 2
FORMAT = 1


class CheckpointError(RuntimeError):
    """No checkpoint of a run can be used; the message says what is wrong with each."""


def save(folder: Path, update: int, tree: Any, *, score: float, about: dict[str, Any]) -> None:
    """Write checkpoint number `update`, then drop those no longer needed.

    Args:
        folder: the run's `checkpoints` folder.
        update: number of updates done; an existing checkpoint of that number is replaced.
        tree: pytree of arrays without random keys.
        score: what "best" means; the checkpoint with the highest is kept.
        about: further facts for the manifest (config hash, versions).
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / str(update)
    _manifest(folder, update).unlink(missing_ok=True)
    _writer().save(target, _named(tree), force=True)
    files = {str(f.relative_to(target)): _sha256(f) for f in sorted(target.rglob("*")) if f.is_file()}
    facts = about | {"format": FORMAT, "update": update, "score": score, "files": files}
    write_atomically(_manifest(folder, update), json.dumps(facts, indent=1))
    _prune(folder)


def restore(folder: Path, like: Any) -> tuple[int, Any]:
    """The newest valid checkpoint, as (update, tree of numpy arrays shaped like `like`).

    An invalid newer one is named in a warning and passed over.

    Raises:
        CheckpointError: if there are checkpoints but none is valid.
        FileNotFoundError: if there is none at all.
    """
    folder = folder.absolute()
    problems = []
    for update in _numbers(folder):
        problem = verify(folder, update)
        if problem is None:
            named = _writer().restore(folder / str(update))
            problem = _compare(_named(like), named)
            if problem is None:
                leaves = [named[name] for name in _named(like)]
                for text in problems:
                    warnings.warn(f"passed over {text}", stacklevel=2)
                return update, jax.tree.unflatten(jax.tree.structure(like), leaves)
        problems.append(f"checkpoint {update} in {folder}: {problem}")
    if problems:
        raise CheckpointError("; ".join(problems))
    raise FileNotFoundError(f"no checkpoint in {folder}")


def verify(folder: Path, update: int) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    manifest = _manifest(folder, update)
    if not manifest.exists():
        return "it has no manifest (the save did not finish)"
    try:
        files = json.loads(manifest.read_text())["files"]
    except (ValueError, KeyError, TypeError):
        return "its manifest cannot be read"
    for name, digest in files.items():
        path = folder / str(update) / name
        if not path.is_file():
            return f"{name} is missing"
        if _sha256(path) != digest:
            return f"{name} has changed since it was written"
    return None


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _manifest(folder: Path, update: int) -> Path:
    return folder / f"{update}.json"


def _numbers(folder: Path) -> list[int]:
    """Numbers of all checkpoints, valid or not, newest first."""
    names = {p.stem for p in folder.glob("*") if p.stem.isdigit()} if folder.is_dir() else set()
    return sorted((int(name) for name in names), reverse=True)


def _prune(folder: Path) -> None:
    valid = {}
    for update in _numbers(folder):
        if _manifest(folder, update).exists():
            valid[update] = json.loads(_manifest(folder, update).read_text())["score"]
    keep = set(sorted(valid)[-KEEP_NEWEST:]) | {max(valid, key=lambda u: (valid[u], u))}
    for update in valid.keys() - keep:
        _manifest(folder, update).unlink()
        shutil.rmtree(folder / str(update), ignore_errors=True)


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path, as numpy arrays (or shapes, for a tree of ShapeDtypeStructs)."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    to_host = lambda x: x if isinstance(x, jax.ShapeDtypeStruct) else np.asarray(x)
    return {jax.tree_util.keystr(path): to_host(leaf) for path, leaf in leaves}


def _compare(wanted: dict[str, Any], found: dict[str, Any]) -> str | None:
    """How the restored leaves differ from the wanted ones in name, shape or dtype, or None."""
    if wanted.keys() != found.keys():
        missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        return f"it lacks {missing[:3]} and has {extra[:3]} beyond what this configuration has"
    for name, leaf in wanted.items():
        if (leaf.shape, leaf.dtype) != (found[name].shape, found[name].dtype):
            got = f"{found[name].dtype}{list(found[name].shape)}"
            return f"{name} is {got}, this configuration needs {leaf.dtype}{list(leaf.shape)}"
    return None


def _writer() -> Any:
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
