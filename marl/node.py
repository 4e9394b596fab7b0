"""Node: a frozen dataclass that is a pytree, and of which no other class is taken for the same.

jaxlib (0.10 and 0.11) compares the structures of registered dataclasses by their static fields and not
by their class: two games with like fields are equal structures, and `jax.jit` plays the one with the
program compiled for the other whenever their hashes fall together (about once in a hundred pairs).
`flax.struct.PyTreeNode` registers such dataclasses. States may do so, since the game that made them
tells them apart; what has behaviour, a game, an algorithm or a credit, is a Node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self, dataclass_transform

import jax
from flax import struct


@dataclass_transform(field_specifiers=(struct.field,), frozen_default=True)
class Node:
    """Base of games, algorithms and credits; `struct.field(pytree_node=False)` marks a static field."""

    def __init_subclass__(cls, kw_only: bool = False) -> None:
        super().__init_subclass__()
        fields = dataclasses.fields(dataclasses.dataclass(frozen=True, kw_only=kw_only)(cls))
        leaves = [f.name for f in fields if f.metadata.get("pytree_node", True)]
        static = [f.name for f in fields if f.name not in leaves]

        def flatten(node: Node) -> tuple[list[Any], tuple[Any, ...]]:
            return [getattr(node, name) for name in leaves], tuple(getattr(node, name) for name in static)

        def flatten_with_keys(node: Node) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
            children, values = flatten(node)
            return [(jax.tree_util.GetAttrKey(k), x) for k, x in zip(leaves, children, strict=True)], values

        def unflatten(values: Sequence[Any], children: Sequence[Any]) -> Node:
            return cls(**dict(zip(leaves, children, strict=True)), **dict(zip(static, values, strict=True)))

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)

    def replace(self, **changes: Any) -> Self:
        """The same with other values in some fields."""
        return dataclasses.replace(self, **changes)
