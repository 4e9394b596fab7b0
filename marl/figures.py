"""The mark of what a figure's YAML may name as `_target_`: measures, outcomes of runs, pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable)


def for_figures(function: Function) -> Function:
    """Mark a function as part of figures; `marl.config` reads the mark in the source and builds no other."""
    return function
