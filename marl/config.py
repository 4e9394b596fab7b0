"""From names and overrides to a checked configuration, and the gate before anything is built.

Composing imports no jax. A `_target_` is called only if it lies in envs, algos, marl or a
package that the user lists in `plugins`. This is the only module of the framework that
imports Hydra.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl.plugins import allow_import_from_here, locate, named_in
from marl.secrets import reads_environment, resolve, settled
from marl.validation import ConfigError, check_batch, check_ranges, coerce, flatten, nearest

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
OURS = ("envs", "algos", "marl")
BUILT = ("envs", "algos", "marl.networks")  # where what may be built is written
Assigned = tuple[str, Any, bool]  # key, value, whether it was written +key=


def groups(plugins: Iterable[str] = ()) -> dict[str, list[str]]:
    """The choices of every config group, those of `plugins` after ours: {"env": ["coin_game", ...], ...}.

    Raises:
        ConfigError: for a package that cannot be found, or a choice that there is twice.
    """
    folders = [CONFIGS, *locate(plugins)]
    known = sorted(p.name for p in CONFIGS.iterdir() if p.is_dir())
    found = {group: [name for f in folders for name in _names(f / group)] for group in known}
    every = [f"{group}={name}" for group, names in found.items() for name in names]
    twice = [choice for choice in dict.fromkeys(every) if every.count(choice) > 1]
    if twice:
        raise ConfigError(f"{choice}: two files have this name; rename the plugin's" for choice in twice)
    return found


def describe(group: str, name: str, plugins: Iterable[str] = ()) -> str:
    """The first comment line of a config file, which says what it is; "" if it has none."""
    for line in _files(group, name, [CONFIGS, *locate(plugins)])[0].read_text().splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ")
    return ""


def _names(folder: Path) -> list[str]:
    return [str(f.relative_to(folder).with_suffix("")) for f in sorted(folder.rglob("*.yaml"))]


def _files(group: str, name: str, folders: Iterable[Path]) -> list[Path]:
    return [f for folder in folders if (f := folder / group / f"{name}.yaml").is_file()]


def search_path(plugins: Iterable[str]) -> list[str]:
    """The override that lets Hydra find the configurations of `plugins`, if there are any."""
    quoted = (str(folder).replace("\\", "\\\\").replace("'", "\\'") for folder in locate(plugins))
    folders = ",".join(f"'file://{text}'" for text in quoted)
    return [f"hydra.searchpath=[{folders}]"] if folders else []


def compose(overrides: Sequence[str]) -> DictConfig:
    """The configuration of some overrides, in Hydra's override grammar, resolved but for `${oc.env:...}`.

    Overrides with several values (`algo.gamma=0.9,0.99` under -m) are checked value by value;
    the result then holds the last one.

    Raises:
        ConfigError: naming unknown groups' choices and keys (with the nearest name), wrong
            types, values out of range, and sizes that do not fit each other.
    """
    errors: list[str] = []
    plugins = named_in(overrides)
    chosen, assigned = _parse(overrides, groups(plugins), errors)
    try:
        composed, values = _compose((*chosen, *search_path(plugins)), _state_of_files(plugins))
    except ConfigError as error:
        raise ConfigError([*errors, *error.errors]) from error
    cfg = copy.deepcopy(composed)
    for key, value, added in assigned:
        wrong = _check_key(key, value, values, added)
        errors += wrong
        if not wrong:
            OmegaConf.update(cfg, key, value, merge=True, force_add=True)
    raw = OmegaConf.to_container(cfg, resolve=False)
    errors += check_ranges({k: v for k, v in flatten(raw).items() if not k.startswith("figure.")})
    plain = _with_types_of(values, settled(cfg))
    resolved = resolve(OmegaConf.create(plain)) if reads_environment(plain) else plain
    errors += check_batch(resolved["num_envs"], resolved["algo"])
    errors += [f"sweep.{key}: no such key" for key in flatten(plain["sweep"]) if key not in values]
    if errors:
        raise ConfigError(errors)
    return OmegaConf.create(plain)


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
        elif package not in trusted and not _may_be_built(str(target), in_figure=top == "figure"):
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


def _may_be_built(target: str, *, in_figure: bool) -> bool:
    """Whether MODULE.NAME is defined, not only imported, in the source of a module that may hold it."""
    module, _, name = target.rpartition(".")
    within = any(f"{module}.".startswith(f"{home}.") for home in (OURS if in_figure else BUILT))
    if not within or not re.fullmatch(r"\w+(\.\w+)+", target):
        return False
    source = CONFIGS.parent / (module.replace(".", "/") + ".py")
    written = rf"^@for_figures\ndef {name}\b" if in_figure else rf"^(class|def) {name}\b"
    return source.is_file() and bool(re.search(written, source.read_text(), re.MULTILINE))


def _state_of_files(plugins: Iterable[str]) -> float:
    """When a configuration file was last written: a notebook's user may edit one and compose again."""
    return max(f.stat().st_mtime for folder in [CONFIGS, *locate(plugins)] for f in folder.rglob("*.yaml"))


@functools.lru_cache(maxsize=64)
def _compose(choices: tuple[str, ...], state: float) -> tuple[DictConfig, dict[str, Any]]:
    """Hydra's configuration of group choices and its values, not to be changed; it takes half a second."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    world = GlobalHydra.instance()
    outer, world.hydra = world.hydra, None  # a multirun's own, put back afterwards
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = hydra.compose("train", list(choices))
    except HydraException as error:
        raise ConfigError([str(error).split("\n")[0]]) from error
    finally:
        world.hydra = outer
    return cfg, flatten(settled(cfg))


def _parse(
    overrides: Sequence[str], known: dict[str, list[str]], errors: list[str]
) -> tuple[list[str], list[Assigned]]:
    """Split overrides into group choices that exist and assigned keys; note the rest as errors."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    chosen: list[str] = []
    assigned: list[Assigned] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            errors.append(f"{text}: not of the form key=value")
            continue
        key = override.key_or_group
        if override.is_sweep_override():
            single = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            single = [text.lstrip("+")]
        values = [parser.parse_override(one).value() for one in single]
        if key in known:
            wrong = [e for value in values for e in _check_choice(key, value, known[key])]
            errors += wrong
            chosen += [] if wrong else single[-1:]
        else:
            added = text.startswith("+")
            assigned += [(key, value, added) for value in values]
    return chosen, assigned


def _check_choice(group: str, value: Any, known: list[str]) -> list[str]:
    names = [str(n) for n in (value if isinstance(value, list) else [value]) if n is not None]
    return [
        f"{group}={name}: no such {group}{nearest(name, known)} Choose from: {', '.join(known)}"
        for name in names
        if name not in known
    ]


def _check_key(key: str, value: Any, values: dict[str, Any], added: bool) -> list[str]:
    """Messages for one assigned key: unknown, or of the wrong type.

    A key written +key=value may be a new entry of a group that exists (an event's weight,
    say); whether the object takes it shows when it is built.
    """
    if key.startswith("sweep."):
        return [] if isinstance(value, list) and value else [f"{key}={value}: must be a list of values"]
    if key in values:
        error = coerce(key, value, values[key])[1]
        return [error] if error else []
    group = key.rpartition(".")[0]
    siblings = [k for k in values if k.rpartition(".")[0] == group]
    if isinstance(value, dict) and any(k.startswith(f"{key}.") for k in values):
        return [m for k, v in flatten(value, key).items() for m in _check_key(k, v, values, added)]
    if added and group and (siblings or isinstance(values.get(group), dict)):
        return []
    return [f"{key}: no such key{nearest(key, siblings)} There are: {', '.join(siblings)}"]


def _with_types_of(likes: dict[str, Any], tree: Any, prefix: str = "") -> Any:
    """The nested dict `tree` with whole floats made integers, and the like, as in the files."""
    if isinstance(tree, dict):
        inner = f"{prefix}." if prefix else ""
        return {key: _with_types_of(likes, value, f"{inner}{key}") for key, value in tree.items()}
    return coerce(prefix, tree, likes.get(prefix))[0]


def construct(node: DictConfig, **objects: Any) -> Any:
    """Call a node's `_target_` with its keys and `objects`.

    In the pytree that comes out lists become tuples where static, float32 arrays where leaves.
    """
    from hydra.utils import instantiate

    return _settled(instantiate(node, _partial_=True, _convert_="all")(**objects))


def _settled(made: Any) -> Any:
    if not dataclasses.is_dataclass(made) or not hasattr(made, "replace"):
        return made
    fixed = {f.name: _fixed(f, getattr(made, f.name)) for f in dataclasses.fields(made)}
    return made.replace(**fixed)


def _fixed(field: dataclasses.Field, value: Any) -> Any:
    import numpy as np

    if not isinstance(value, list):
        return _settled(value)
    if field.metadata.get("pytree_node", True):
        return np.asarray(value, np.float32)
    return tuple(tuple(v) if isinstance(v, list) else v for v in value)


def has_seats(node: DictConfig) -> bool:
    """Whether a node describes an algorithm that learns: those are told which seats they hold."""
    from hydra.utils import get_class

    return "seats" in {f.name for f in dataclasses.fields(get_class(node._target_))}


def scripted_players(plugins: Iterable[str] = ()) -> list[str]:
    """The choices of config group algo that do not learn; files are only read where they tell."""
    plugins = list(plugins)
    folders, known = [CONFIGS, *locate(plugins)], groups(plugins)["algo"]

    def node(name: str) -> Any:
        own: Any = OmegaConf.load(_files("algo", name, folders)[0])
        if "_target_" in own:
            return own
        parents = [one for one in own.get("defaults", ()) if one in known]
        return (
            node(parents[-1]) if parents else compose([f"plugins=[{','.join(plugins)}]", f"algo={name}"]).algo
        )

    return [name for name in known if not has_seats(node(name))]
