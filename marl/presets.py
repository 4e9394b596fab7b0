"""What to call the game and the method of a run: its preset, and what tells it from other runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import OmegaConf

from marl.config import CONFIGS, groups
from marl.plugins import locate
from marl.run_folder import MAY_CHANGE
from marl.validation import ConfigError, flatten

NODES = ("env", "mechanism", "algo", "network")
TOLD = {"total_steps", "start_from"}  # of the keys that may change in a run folder, these make another method
SKIPPED = {*NODES, "seed", "num_seeds", "sweep", "plugins", *MAY_CHANGE} - TOLD


def labels(configs: Sequence[dict[str, Any]], games: Sequence[str]) -> list[tuple[str, str]]:
    """(game, method) of each run.

    A node is called after its preset, with the keys in which runs of that preset differ; the network and
    other keys are told only where runs differ in them.

    Args:
        configs: what config.yaml holds, unresolved.
        games: the nodes that make the game, some of `NODES`; all else makes the method.
    """
    presets = functools.cache(_presets)
    parts = [{node: _name(node, cfg, presets) for node in NODES} for cfg in configs]
    for node in NODES:
        nodes = [_own(node, cfg) for cfg in configs]
        for name in {part[node] for part in parts}:
            rows = [i for i, part in enumerate(parts) if part[node] == name]
            for i, told in zip(rows, _differences([nodes[i] for i in rows]), strict=True):
                parts[i][node] = " ".join(filter(None, (name, *told)))
    rest = _differences([flatten({k: v for k, v in cfg.items() if k not in SKIPPED}) for cfg in configs])
    told = [node for node in NODES if node in ("env", "algo") or len({part[node] for part in parts}) > 1]
    label = lambda part, chosen: " ".join(filter(None, (part[node] for node in told if node in chosen)))
    game = [label(part, games) for part in parts]
    method = [label(part, set(NODES) - {*games}) for part in parts]
    return [(g or "all", " ".join((m, *r))) for g, m, r in zip(game, method, rest, strict=True)]


def _own(node: str, cfg: dict[str, Any]) -> dict[str, Any]:
    """A node's keys, of an algorithm without its network, which is a node of its own."""
    found = dict(cfg.get(node) or {})
    if node == "algo":
        found.pop("network", None)
    return flatten(found)


def _differences(nodes: Sequence[dict[str, Any]]) -> list[list[str]]:
    """key=value of each of the flat nodes, for the keys in which they are not all alike."""
    keys = sorted({key for node in nodes for key in node})
    apart = [key for key in keys if any(node.get(key) != nodes[0].get(key) for node in nodes)]
    return [[f"{key}={node.get(key)}" for key in apart] for node in nodes]


def _name(node: str, cfg: dict[str, Any], presets: Callable[..., dict[str, Any]]) -> str:
    """The preset that differs from a node in fewest values; if none is of its class, the class."""
    if node == "mechanism":
        return "".join(f"+{name}" for name in cfg.get(node) or {})
    own = _own(node, cfg)
    if not own:
        return ""
    known = presets(node, tuple(cfg.get("plugins") or ()))
    alike = {name: v for name, v in known.items() if v[0].get("_target_") == own["_target_"]}
    if not alike:
        return own["_target_"].rsplit(".", 1)[-1]

    def apart(name: str) -> tuple[int, int]:
        values, parents = alike[name]
        wrong = [key for key in own.keys() | values.keys() if own.get(key) != values.get(key)]
        return len(
            wrong
        ), -parents  # of two alike the one made from the other: prisoners_dilemma is a matrix_game

    return min(alike, key=apart)


def _presets(group: str, plugins: tuple[str, ...]) -> dict[str, tuple[dict[str, Any], int]]:
    """{name: its keys, flat, and from how many others it inherits}; plugins that are not there have none."""
    try:
        folders = [CONFIGS, *locate(plugins)]
    except ConfigError:
        return _presets(group, ())

    @functools.cache
    def read(name: str) -> tuple[dict[str, Any], int]:
        path = next(f for folder in folders if (f := folder / group / f"{name}.yaml").is_file())
        node: Any = OmegaConf.to_container(OmegaConf.load(path))
        found, parents = {}, 0
        for before in node.pop("defaults", ()):
            if isinstance(before, str) and before != "_self_":
                inherited, more = read(before)
                found, parents = found | inherited, parents + more + 1
        return found | flatten(node), parents

    return {name: read(name) for name in groups(plugins)[group]}
