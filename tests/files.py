"""Configurations as their files have them: in milliseconds, where `marl.config.compose` takes parts of a second."""

import functools

import pytest
from omegaconf import OmegaConf

from marl.config import CONFIGS, groups


@functools.cache
def written(group, name):
    """What a file and those of its group that it builds on say together, as plain containers."""
    own = OmegaConf.load(CONFIGS / group / f"{name}.yaml")
    bases = [base.removeprefix(f"/{group}/") for base in own.pop("defaults", []) if isinstance(base, str)]
    below = [OmegaConf.create(written(group, base)) for base in bases if base != "_self_"]
    return OmegaConf.to_container(OmegaConf.merge(*below, own))


@functools.cache
def classes(group="env"):
    """The first choice of every class; presets differ from it only in numbers and sizes."""
    first = {}
    for name in groups()[group]:
        first.setdefault(written(group, name)["_target_"], name)
    return list(first.values())


def presets_slow(group, names):
    """Choices to parametrise a test with; all but the first of their class are marked slow."""
    return [name if name in classes(group) else pytest.param(name, marks=pytest.mark.slow) for name in names]
