"""Trained policies in one file without pickle, which may come from a stranger.

The file is in the safetensors format: the arrays that acting needs, and JSON that tells which game,
mechanisms, network and learning rule they belong to. That configuration passes the same gate as
any other; size, names, shapes, dtypes and digest of the arrays are compared with what it builds; and
nothing in the file is ever executed. Axes: P learners.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jax import Array
from omegaconf import OmegaConf

from marl import checkpoint
from marl.build import build_env, config_errors
from marl.config import construct
from marl.environment import Environment
from marl.population import Seats
from marl.targets import check_targets
from marl.validation import ConfigError

FORMAT = 1
SUFFIX = ".safetensors"
MAX_FILE_BYTES = 1 << 30
MAX_HEADER_BYTES = 1 << 22
MAX_MESSAGE = 300  # characters of a refusal, which may quote the file
NODES = ("env", "mechanism", "algo")  # what is built from a file
DTYPES = {  # the format's names: numpy's
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one seed of a run learned.

    Fields: nodes, the configuration of env, mechanism and algo; env; algo, the learning algorithm;
    learner, what acting needs of it, leaves [P, ...]; seats, those of the game that it held;
    about, where it comes from.
    """

    nodes: dict[str, Any]
    env: Environment
    algo: Any
    learner: Any
    seats: Seats
    about: dict[str, Any]


def export(trained: Trained, path: Path) -> None:
    """Write what one seed learned into one file; an older file is replaced.

    Raises:
        ConfigError: if the file's name or folder is not right.
    """
    if path.suffix != SUFFIX:
        raise ConfigError([f"export={path}: the file's name must end in {SUFFIX}"])
    if not path.parent.is_dir():
        raise ConfigError([f"export={path}: there is no folder {path.parent}"])
    tensors = {
        name: np.asarray(x, order="C") for name, x in checkpoint.leaves_by_path(trained.learner).items()
    }
    spec = {
        "format": FORMAT,
        **trained.nodes,
        "seats": list(trained.seats),
        "learners": list(trained.algo.seats),
        "sha256": _digest(tensors),
        "about": trained.about,
    }
    checkpoint.write_atomically(path, safetensors.numpy.save(tensors, {"policy": json.dumps(spec)}))


def read(path: Path, plugins: tuple[str, ...]) -> Trained:
    """The policies in a file; only packages in `plugins` besides our own may be built.

    Raises:
        ConfigError: if anything is wrong with it; one line says what.
    """
    with _refusal(path):
        _check_size(path)
        with safetensors.safe_open(path, framework="numpy") as file:
            spec = _spec(file.metadata())
            env, algo, like = _rebuild(spec, plugins)
            wanted = checkpoint.leaves_by_path(like)
            found = {name: _shape(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
            problem = checkpoint.differences(wanted, found)
            if problem:
                raise ValueError(problem)
            tensors = {name: file.get_tensor(name) for name in wanted}
        if _digest(tensors) != spec["sha256"]:
            raise ValueError("its arrays have changed since it was written")
        learner = jax.tree.unflatten(jax.tree.structure(like), list(tensors.values()))
        nodes = {key: spec[key] for key in NODES}
        return Trained(nodes, env, algo, learner, tuple(spec["seats"]), spec["about"])


@contextlib.contextmanager
def _refusal(path: Path) -> Iterator[None]:
    """Make one short line of whatever is wrong with a file."""
    try:
        yield
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError([f"{path} is no policy to be trusted: {why[:MAX_MESSAGE]}"]) from error


def _check_size(path: Path) -> None:
    """Refuse what is too large to be read, before it is read."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"it has {size} bytes, more than {MAX_FILE_BYTES}")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"it is not in the safetensors format (a header of {header} bytes)")


def _spec(metadata: dict[str, str] | None) -> dict[str, Any]:
    """What the file says of itself; the types of what is used are checked."""
    text = (metadata or {}).get("policy")
    if text is None:
        raise ValueError("it holds arrays but does not say of which policy")
    if "${" in text:
        raise ValueError("its configuration holds an interpolation ${...}")
    spec = json.loads(text)
    if not isinstance(spec, dict) or spec.get("format") != FORMAT:
        found = spec.get("format") if isinstance(spec, dict) else None
        raise ValueError(f"its format is {found}, this version reads {FORMAT}")
    kinds = {"env": dict, "mechanism": dict, "algo": dict, "about": dict, "sha256": str}
    wrong = [key for key, kind in kinds.items() if not isinstance(spec.get(key), kind)]
    wrong += [key for key in ("seats", "learners") if not _are_small(spec.get(key))]
    if wrong or len(spec["seats"]) != len(spec["learners"]):
        raise ValueError(
            f"its entries {', '.join(wrong) or 'seats, learners'} are missing or of another kind"
        )
    return spec


def _are_small(numbers: Any) -> bool:
    """Whether these are whole numbers that can be seats."""
    kind = isinstance(numbers, list) and all(type(n) is int for n in numbers)
    return kind and bool(numbers) and min(numbers) >= 0 and max(numbers) < 1 << 16


def _rebuild(spec: dict[str, Any], plugins: tuple[str, ...]) -> tuple[Environment, Any, Any]:
    """The game, the algorithm, and the shapes of what it needs to act."""
    cfg = OmegaConf.create({key: spec[key] for key in NODES})
    check_targets(cfg, plugins)
    with config_errors():
        env = build_env(cfg)
        env.check()
        algo = construct(cfg.algo, seats=tuple(spec["learners"]))
        algo.check(env)
    if max(spec["seats"]) >= env.num_agents or len(set(spec["seats"])) != len(spec["seats"]):
        raise ValueError(f"its game has no seats {spec['seats']}")

    def learner(key: Array) -> Any:
        ts = jax.vmap(env.reset)(key[None])[1]
        return algo.for_acting(algo.init(key, env, ts))

    return env, algo, jax.eval_shape(learner, jax.random.key(0))


def _shape(tensor: Any) -> Any:
    """Shape and dtype of a tensor in a file, without reading it."""
    code = tensor.get_dtype()
    return types.SimpleNamespace(shape=tuple(tensor.get_shape()), dtype=DTYPES.get(code, code))


def _digest(tensors: dict[str, np.ndarray]) -> str:
    """sha256 over names, dtypes, shapes and contents."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        total.update(tensors[name].tobytes())
    return total.hexdigest()
