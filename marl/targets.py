"""The gate before anything is built: a `_target_` is called only if it lies in envs, algos, marl or a plugin.

Nothing is imported to find out; sources of our own packages are read as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl.plugins import allow_import_from_here
from marl.validation import ConfigError

ROOT = Path(__file__).resolve().parent.parent
OURS = ("envs", "algos", "marl")
BUILT = ("envs", "algos", "marl.networks")  # where what may be built is written


def check_targets(cfg: Any, plugins: Iterable[str] | None = None) -> None:
    """Refuse every `_target_` outside our packages and the user's plugins.

    Of our own packages only what is written in the modules of BUILT can be built, not what they import, and
    for a figure functions that are marked `for_figures`. What is built touches no files.

    Raises:
        ConfigError: naming each refused target.
    """
    plain = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    trusted = tuple(plain.get("plugins", ()) if plugins is None else plugins)
    if trusted:
        allow_import_from_here()
    errors = []
    for top, target in _targets(plain):
        package = str(target).split(".")[0]
        if package not in (*OURS, *trusted):
            allowed = ", ".join((*OURS, *trusted))
            errors.append(f"_target_ {target} is outside {allowed}; list its package in plugins")
        elif package not in trusted and not may_be_built(str(target), in_figure=top == "figure"):
            kind = "function marked for_figures" if top == "figure" else "class or function"
            homes = OURS if top == "figure" else BUILT
            errors.append(f"_target_ {target} is no {kind} written in {', '.join(homes)}")
    if errors:
        raise ConfigError(errors)


def _targets(tree: Any, top: str = "") -> Iterator[tuple[str, Any]]:
    """(key at the top, value) of each `_target_` in nested dicts and lists."""
    if isinstance(tree, dict):
        yield from ((top, value) for key, value in tree.items() if key == "_target_")
        for key, value in tree.items():
            yield from _targets(value, top or str(key))
    elif isinstance(tree, list):
        for value in tree:
            yield from _targets(value, top)


def may_be_built(target: str, *, in_figure: bool = False) -> bool:
    """Whether MODULE.NAME is defined, not only imported, in the source of a module that may hold it."""
    module, _, name = target.rpartition(".")
    within = any(f"{module}.".startswith(f"{home}.") for home in (OURS if in_figure else BUILT))
    if not within or not re.fullmatch(r"\w+(\.\w+)+", target):
        return False
    source = ROOT / (module.replace(".", "/") + ".py")
    written = rf"^@for_figures\ndef {name}\b" if in_figure else rf"^(class|def) {name}\b"
    return source.is_file() and bool(re.search(written, source.read_text(), re.MULTILINE))
