"""Checkpoints that are either whole or not there: orbax for the arrays, a manifest for the proof.

Orbax restores flipped bits and casts dtypes without a word, so a manifest with the sha256 of
every file, written last, decides whether a checkpoint counts, and shapes and dtypes are
compared before anything is used. `checkpoints/<update>/` holds the arrays and
`checkpoints/<update>.json` the manifest; the newest two and the best are kept. While a save is
under way `<update>.writing` stands beside them: what it names was never finished, and does not count.
"""

from __future__ import annotations

import contextlib
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
SHOWN = 8  # leaves named where a checkpoint does not fit
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

    Raises:
        OSError, ValueError: if it cannot be written; nothing of it is left then.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    target, named = folder / str(update), leaves_by_path(tree)
    needed, free = sum(x.nbytes for x in named.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"no space: it needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
    _discard_unfinished(folder)
    _writing(folder, update).touch()
    _manifest(folder, update).unlink(missing_ok=True)
    try:
        _writer().save(target, named, force=True)
    except BaseException:
        _discard_unfinished(folder)
        raise
    files = {str(f.relative_to(target)): _sha256(f) for f in sorted(target.rglob("*")) if f.is_file()}
    told = about | {"format": FORMAT, "update": update, "score": score, "files": files}
    write_atomically(_manifest(folder, update), json.dumps(told, indent=1))
    _writing(folder, update).unlink()
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
    for update in numbers(folder):
        problem = verify(folder, update)
        if problem is None:
            named, problem = _read(folder, update, leaves_by_path(like))
            if problem is None:
                leaves = [named[name] for name in leaves_by_path(like)]
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
        return "it has no manifest"
    try:
        told = facts(folder, update)
        files, version = dict(told["files"]), told["format"]
    except (ValueError, KeyError, TypeError):
        return "its manifest cannot be read"
    if version != FORMAT:
        return f"its format is {version}, this version reads {FORMAT}"
    for name, digest in files.items():
        path = folder / str(update) / name
        if not path.is_file():
            return f"{name} is missing"
        if _sha256(path) != digest:
            return f"{name} has changed since it was written"
    return None


def valid_checkpoints(folder: Path) -> list[int]:
    """Numbers of the checkpoints whose files are whole, newest first."""
    return [update for update in numbers(folder) if verify(folder, update) is None]


def fingerprint(folder: Path) -> str | None:
    """A hash that stands for the newest valid checkpoint, None if there is none."""
    newest = next((update for update in numbers(folder) if verify(folder, update) is None), None)
    return None if newest is None else _sha256(_manifest(folder, newest))


def facts(folder: Path, update: int) -> dict[str, Any]:
    """What the manifest of a valid checkpoint says, `about` of `save` included."""
    return json.loads(_manifest(folder, update).read_text())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w" if isinstance(content, str) else "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _manifest(folder: Path, update: int) -> Path:
    return folder / f"{update}.json"


def _writing(folder: Path, update: int) -> Path:
    return folder / f"{update}.writing"


def numbers(folder: Path) -> list[int]:
    """Numbers of all checkpoints, valid or not, newest first; saves that never finished do not count."""
    names = {p.name.removesuffix(".json") for p in folder.glob("*")} if folder.is_dir() else set()
    found = (int(name) for name in names if name.isdigit())
    return sorted((n for n in found if _finished(folder, n)), reverse=True)


def _finished(folder: Path, update: int) -> bool:
    return _manifest(folder, update).exists() or not _writing(folder, update).exists()


def _discard_unfinished(folder: Path) -> None:
    for marker in folder.glob("*.writing"):
        if not marker.with_suffix(".json").exists():
            shutil.rmtree(marker.with_suffix(""), ignore_errors=True)
        marker.unlink(missing_ok=True)
    for leftover in folder.glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _read(folder: Path, update: int, wanted: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The leaves of a checkpoint by path, and what is wrong with them or None."""
    try:
        named = _writer().restore(folder / str(update))
    except Exception as error:  # orbax raises many kinds
        return {}, f"it cannot be read ({type(error).__name__})"
    return named, differences(wanted, named)


def _prune(folder: Path) -> None:
    valid = {}
    for update in numbers(folder):
        with contextlib.suppress(OSError, ValueError, KeyError):
            valid[update] = facts(folder, update)["score"]
    keep = set(sorted(valid)[-KEEP_NEWEST:]) | {max(valid, key=lambda u: (valid[u], u))}
    for update in valid.keys() - keep:
        _manifest(folder, update).unlink()
        shutil.rmtree(folder / str(update), ignore_errors=True)


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Leaves by path, as numpy arrays (or shapes, for a tree of ShapeDtypeStructs)."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    to_host = lambda x: x if isinstance(x, jax.ShapeDtypeStruct) else np.asarray(x)
    return {jax.tree_util.keystr(path): to_host(leaf) for path, leaf in leaves}


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> str | None:
    """How the `found` leaves differ from the wanted ones in name, shape or dtype, or None."""
    kind = lambda leaf: f"{leaf.dtype}{list(leaf.shape)}"
    different = [f"{name}: needed, not there" for name in sorted(wanted.keys() - found.keys())]
    different += [f"{name}: there, not needed" for name in sorted(found.keys() - wanted.keys())]
    different += [
        f"{name} is {kind(found[name])}, this configuration needs {kind(leaf)}"
        for name, leaf in wanted.items()
        if name in found and kind(leaf) != kind(found[name])
    ]
    more = [f"and {len(different) - SHOWN} more"] if len(different) > SHOWN else []
    return ", ".join(different[:SHOWN] + more) or None


def _writer() -> Any:
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
