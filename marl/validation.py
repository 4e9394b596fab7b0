"""Checks of configurations by plain rules, before anything heavy is imported.

Types follow the value in the YAML file; ranges follow the name of the key, wherever it
stands. Every check returns messages instead of raising, so that one run of the command
names all errors.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

Rule = tuple[Callable[[Any], bool], str]

POSITIVE: Rule = (lambda x: x > 0, "must be greater than 0")
NOT_NEGATIVE: Rule = (lambda x: x >= 0, "must be at least 0")
AT_LEAST_ONE: Rule = (lambda x: x >= 1, "must be at least 1")
UNIT: Rule = (lambda x: 0 <= x <= 1, "must lie in [0, 1]")

RULES: dict[str, Rule] = {
    "learning_rate": POSITIVE,
    "critic_learning_rate": POSITIVE,
    "inner_learning_rate": NOT_NEGATIVE,
    "temperature": POSITIVE,
    "gamma": UNIT,
    "gae_lambda": UNIT,
    "others_lambda": UNIT,
    "past_decay": UNIT,
    "tau": UNIT,
    "epsilon": UNIT,
    "epsilon_start": UNIT,
    "epsilon_end": UNIT,
    "epsilon_steps": AT_LEAST_ONE,
    "clip_eps": POSITIVE,
    "value_clip_eps": POSITIVE,
    "advantage_eps": POSITIVE,
    "max_grad_norm": POSITIVE,
    "max_grad_value": POSITIVE,
    "vf_coef": NOT_NEGATIVE,
    "ent_coef": NOT_NEGATIVE,
    "cost": NOT_NEGATIVE,
    "horizon": NOT_NEGATIVE,
    "core": NOT_NEGATIVE,
    "core_layers": AT_LEAST_ONE,
    "core_kind": (lambda x: x in ("gru", "s5"), "must be gru or s5"),
    "seed": NOT_NEGATIVE,
    "total_steps": AT_LEAST_ONE,
    "num_devices": AT_LEAST_ONE,
    "log_every": AT_LEAST_ONE,
    "checkpoint_every": AT_LEAST_ONE,
    "batch_size": AT_LEAST_ONE,
    "buffer_size": AT_LEAST_ONE,
    "target_every": AT_LEAST_ONE,
    "learning_starts": NOT_NEGATIVE,
    "burn_in": NOT_NEGATIVE,
    "summary_fraction": (lambda x: 0 < x <= 1, "must lie in (0, 1]"),
    "wandb_mode": (lambda x: x in ("disabled", "offline", "online"), "must be disabled, offline or online"),
    "nan_policy": (
        lambda x: x == "stop" or (x.startswith("skip:") and x[5:].isdigit()),
        "must be stop or skip:K with a whole number K",
    ),
    "device": (lambda x: x in ("auto", "cpu", "gpu"), "must be auto, cpu or gpu"),
    "backend": (lambda x: x in ("jax", "torch"), "must be jax or torch"),
    "activation": (
        lambda x: x in ("tanh", "relu", "elu", "silu", "leaky_relu"),
        "must be tanh, relu, elu, silu or leaky_relu",
    ),
}


class ConfigError(ValueError):
    """One or more things wrong with a configuration; `errors` holds a line for each."""

    def __init__(self, errors: Iterable[str]):
        self.errors = list(errors)
        super().__init__("\n".join(self.errors))


def nearest(name: str, known: Iterable[str]) -> str:
    """The text ", did you mean X?" for the known name most like `name`, or "." if none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {found[0]}?" if found else "."


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts to {"a.b.c": leaf}; lists and empty dicts are leaves."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree} if prefix else {}
    parts = (flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in tree.items())
    return {key: value for part in parts for key, value in part.items()}


def sweep_points(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the lists of a sweep, {"a.b": value} each; none without a sweep."""
    values = flatten(sweep)
    return [dict(zip(values, p, strict=True)) for p in itertools.product(*values.values())] if values else []


def coerce(key: str, value: Any, like: Any) -> tuple[Any, str | None]:
    """`value` with the type of `like` (the value in the YAML file), and an error or None.

    A float that is a whole number may stand for an integer (total_steps=1e8), an integer for
    a float, a number for a list of one float. `like` None accepts anything.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if like is None:
        return value, None
    if isinstance(like, bool):
        wanted = "true or false"
        if isinstance(value, bool):
            return value, None
    elif isinstance(like, int):
        wanted = "a whole number"
        if number and math.isfinite(value) and value == int(value):
            return int(value), None
    elif isinstance(like, float):
        wanted = "a finite number"
        if number and math.isfinite(value):
            return float(value), None
    elif isinstance(like, str):
        # a key of several forms (seats: independent, or a list) is checked where it is used
        return value, None
    else:
        if number and isinstance(like, list) and like and isinstance(like[0], float):
            return [float(value)], None
        wanted = "a list" if isinstance(like, list) else "a group of keys"
        if isinstance(value, type(like)):
            return value, None
    return value, f"{key}={'null' if value is None else value}: must be {wanted}"


def check_ranges(values: dict[str, Any]) -> list[str]:
    """Messages for the values {"a.b": leaf} that break the rule of their name."""
    errors = []
    for key, value in values.items():
        rule = _rule(key.split(".")[-1])
        for item in value if isinstance(value, list) and rule else [value]:
            if isinstance(item, float) and not math.isfinite(item):
                errors.append(f"{key}={item}: must be a finite number")
            elif rule and item is not None and not _interpolated(item) and not _holds(rule, item):
                errors.append(f"{key}={item}: {rule[1]}")
    return errors


def check_batch(num_envs: int, algo: dict[str, Any]) -> list[str]:
    """Messages if minibatches, or groups of games, do not divide the batch of an on-policy algorithm.

    Feed-forward networks cut the num_envs * num_steps samples of a seat, recurrent ones its
    num_envs sequences; accumulations cut each minibatch again.
    """
    group = algo.get("group_size", 1)
    if group < 1 or num_envs % group:
        return [f"algo.group_size={group}: must be at least 1 and divide num_envs = {num_envs}"]
    num, pieces = algo.get("num_minibatches"), algo.get("num_accumulations", 1)
    if num is None or min(num, pieces, num_envs, algo["num_steps"]) < 1:
        return []
    recurrent = bool((algo.get("network") or {}).get("core"))
    size = num_envs if recurrent else num_envs * algo["num_steps"]
    what = "num_envs" if recurrent else "num_envs * algo.num_steps"
    if size % num:
        return [f"algo.num_minibatches={num}: must divide {what} = {size}"]
    if size // num % pieces:
        return [f"algo.num_accumulations={pieces}: must divide {what} / algo.num_minibatches = {size // num}"]
    return []


def _rule(name: str) -> Rule | None:
    if name in RULES:
        return RULES[name]
    if name.endswith("_prob") or name == "prob":
        return UNIT
    return AT_LEAST_ONE if name.startswith("num_") else None


def _interpolated(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("${")


def _holds(rule: Rule, value: Any) -> bool:
    try:
        return bool(rule[0](value))
    except (TypeError, AttributeError):
        return False


def require_choices(owner: Any, prefix: str, choices: dict[str, Iterable[str]]) -> None:
    """Raise ValueError, naming PREFIX.FIELD, for a field of `owner` that is none of its {field: choices}."""
    for name, known in choices.items():
        if getattr(owner, name) not in known:
            raise ValueError(f"{prefix}.{name}={getattr(owner, name)}: must be one of {', '.join(known)}")
