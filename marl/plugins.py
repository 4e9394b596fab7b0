"""Packages of the user's own: where they lie, and the configurations that they bring.

A package listed in `plugins` may be built from a configuration, and the YAML files in its folder
`configs/` are choices like our own: `configs/env/my_game.yaml` is env=my_game. It is looked for on
Python's path and, last, in the folder where the command runs. Nothing of it is imported here.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from marl.validation import ConfigError, nearest


def listed(text: str) -> list[str]:
    """The packages in "[a,b]" or "a,b".

    Raises:
        ConfigError: for each that cannot be found.
    """
    names = [name.strip(" '\"") for name in text.strip("[] ").split(",")]
    names = [name for name in names if name]
    locate(names)
    return names


def named_in(overrides: Sequence[str]) -> list[str]:
    """The packages that a command line's plugins= names.

    Raises:
        ConfigError: for each that cannot be found.
    """
    texts = [o.lstrip("+").partition("=") for o in overrides]
    return [name for key, _, value in texts if key == "plugins" for name in listed(value)]


def locate(packages: Iterable[str]) -> list[Path]:
    """The folders `configs/` that the packages have; from now on the packages can be imported.

    Raises:
        ConfigError: for each package that cannot be found.
    """
    packages = list(packages)
    if packages:
        allow_import_from_here()
    found = {name: _spec(name) for name in packages}
    missing = [name for name, spec in found.items() if spec is None]
    if missing:
        here = [p.name for p in Path.cwd().iterdir() if (p / "__init__.py").is_file()]
        hint = "It must lie in the folder where the command runs, or be installed"
        raise ConfigError(f"plugins=[{n}]: no such package{nearest(n, here)} {hint}" for n in missing)
    parents = [p for spec in found.values() if spec for p in spec.submodule_search_locations or ()]
    return [folder for p in dict.fromkeys(parents) if (folder := Path(p) / "configs").is_dir()]


def allow_import_from_here() -> None:
    """Let Python find packages in the working folder, after all others; twice changes nothing."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _spec(name: str) -> ModuleSpec | None:
    proper = name.isidentifier() and name != "__main__"
    return importlib.util.find_spec(name) if proper else None
