"""From names and overrides to a checked configuration, and from its nodes to objects.

Composing imports no jax, unless a number is set to null. This is the only module of the framework that
imports Hydra.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl.plugins import locate, named_in
from marl.secrets import reads_environment, resolve, settled
from marl.targets import may_be_built
from marl.validation import ConfigError, check_batch, check_ranges, coerce, flatten, nearest

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
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
    folders = ",".join(quoted(f"file://{folder}") for folder in locate(plugins))
    return [f"hydra.searchpath=[{folders}]"] if folders else []


def quoted(text: str) -> str:
    """A text as a value in Hydra's override grammar."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"  # backslashes count double before a quotation mark alone


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
        if value is None and _takes_none(key, values):
            return []
        error = coerce(key, value, values[key])[1]
        return [error] if error else []
    group = key.rpartition(".")[0]
    siblings = [k for k in values if k.rpartition(".")[0] == group]
    if isinstance(value, dict) and any(k.startswith(f"{key}.") for k in values):
        return [m for k, v in flatten(value, key).items() for m in _check_key(k, v, values, added)]
    if added and group and (siblings or isinstance(values.get(group), dict)):
        return []
    return [f"{key}: no such key{nearest(key, siblings)} There are: {', '.join(siblings)}"]


def _takes_none(key: str, values: dict[str, Any]) -> bool:
    """Whether the class that is built of a key's group has None there by itself: then null sets it back."""
    group, _, name = key.rpartition(".")
    target = str(values.get(f"{group}._target_"))
    field = _fields(target).get(name) if may_be_built(target) else None
    return field is not None and field.default is None


def _fields(target: str) -> dict[str, dataclasses.Field]:
    """The fields, by name, of the class that a `_target_` names; none of a function."""
    from hydra.utils import get_object

    built = get_object(target)
    return (
        {field.name: field for field in dataclasses.fields(built)} if dataclasses.is_dataclass(built) else {}
    )


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
    return "seats" in _fields(node._target_)


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
