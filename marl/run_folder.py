"""What identifies a run and guards its folder: config.yaml, versions, the lock.

A folder belongs to one process at a time. Two locks say so: flock on the folder, which the
system drops with the process, and the file LOCK, made with O_EXCL, for file systems on which
flock does nothing. A LOCK whose process is gone is taken over.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl.checkpoint import write_atomically
from marl.validation import ConfigError, flatten

MAY_CHANGE = (
    "total_steps",
    "log_every",
    "checkpoint_every",
    "summary_fraction",
    "run_dir",
    "start_from",
    "device",
    "num_devices",
    "logger",
    "figure",
    "nan_policy",
    "force_resume",
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
LEASE_S = 600.0  # a LOCK of another machine that was not renewed for so long is stale


class RunLockedError(RuntimeError):
    """Another process is writing to the run folder."""


def new_run_dir(cfg: DictConfig) -> Path:
    """A folder name under runs/ that no other run has, in order of time."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{now}-{title(cfg)}-{uuid.uuid4().hex[:8]}"


def title(cfg: DictConfig) -> str:
    """Game and learning rule, such as "coingame-ppo"."""
    names = (str(node._target_).rsplit(".", 1)[-1] for node in (cfg.env, cfg.algo))
    return "-".join(names).lower()


def config_hash(cfg: DictConfig) -> str:
    """Eight hex digits that stand for what is computed: all keys but those that may change.

    What is read from the environment counts by its name, `${oc.env:NAME}`, as it does in config.yaml.
    """
    plain = {k: v for k, v in OmegaConf.to_container(cfg).items() if k not in MAY_CHANGE}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result, and the git commit ("-dirty": with changes) if any."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    git = ["git", "-C", str(Path(__file__).parent), "describe"]
    git += ["--always", "--dirty", "--abbrev=7", "--exclude", "*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found["git"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    return found


def identity(cfg: DictConfig) -> dict[str, Any]:
    """What a checkpoint and a summary say of the run that wrote them."""
    found = versions()
    if cfg.get("backend") == "torch":
        found["torch"] = importlib.metadata.version("torch")
    return {"config_hash": config_hash(cfg), "versions": found}


def write_config(cfg: DictConfig, run_dir: Path) -> None:
    """Write config.yaml, or make sure that the one there describes the same computation.

    Raises:
        ConfigError: naming each key that differs, unless force_resume is true: then they are printed.
    """
    path = run_dir / "config.yaml"
    if path.exists():
        old = flatten(OmegaConf.to_container(OmegaConf.load(path)))
        new = flatten(OmegaConf.to_container(cfg))
        changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
        changed = [k for k in changed if k.split(".")[0] not in MAY_CHANGE]
        differences = [f"{k}={new.get(k)}: the run in {run_dir} has {old.get(k)}" for k in changed]
        if differences and not cfg.force_resume:
            hint = "only " + ", ".join(MAY_CHANGE) + " may change (or set force_resume=true)"
            raise ConfigError([*differences, hint])
        for line in differences:
            print(f"force_resume: {line}")
    write_atomically(path, OmegaConf.to_yaml(cfg))


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[Callable[[], None]]:
    """Hold the run folder, made if it is missing, for this process alone.

    Yields:
        a function that renews the lock; to be called now and then.

    Raises:
        RunLockedError: naming the process that holds it.
        ConfigError: if the folder cannot be written.
    """
    import fcntl

    lock = run_dir / "LOCK"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        folder = os.open(run_dir, os.O_RDONLY)
    except OSError as error:
        raise ConfigError([f"run_dir={run_dir}: cannot be written ({error.strerror})"]) from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunLockedError(f"run_dir={run_dir}: in use by {_told(_owner(lock))}") from None
        _claim(lock)
        try:
            yield lambda: _renew(lock)
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(folder)


def _claim(lock: Path) -> None:
    """Make the file LOCK, after taking away one whose process is gone."""
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
    for _ in range(2):
        try:
            with os.fdopen(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w") as file:
                json.dump(facts, file)
            return
        except FileExistsError:
            owner = _owner(lock)
            if _is_held(owner, lock):
                where = f"run_dir={lock.parent}: in use by {_told(owner)}"
                raise RunLockedError(f"{where}; if that process is gone, delete {lock}") from None
            print(f"taking over {lock.parent} from {_told(owner)}, which is gone", flush=True)
            lock.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError([f"run_dir={lock.parent}: cannot be written ({error.strerror})"]) from error
    raise RunLockedError(f"run_dir={lock.parent}: in use, another process took it over just now")


def _owner(lock: Path) -> dict[str, Any]:
    try:
        owner = json.loads(lock.read_text())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_held(owner: dict[str, Any], lock: Path) -> bool:
    """Whether the process that a LOCK names still runs; one of another machine renews it."""
    if owner.get("host") != socket.gethostname():
        with contextlib.suppress(OSError):
            return time.time() - lock.stat().st_mtime < LEASE_S
        return False
    pid = owner.get("pid", 0)
    return pid != os.getpid() and owner.get("started") in (_started(pid), None) and _started(pid) is not None


def _started(pid: int) -> str | None:
    """When a process of this machine began, in the system's own clock; None if there is none."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    try:
        os.kill(pid, 0)
    except (OSError, TypeError, OverflowError):
        return None
    return "running"


def _renew(lock: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(lock)


def _told(owner: dict[str, Any]) -> str:
    if not owner:
        return "a process that left no name"
    return f"process {owner.get('pid')} on {owner.get('host')}"
