"""A compiled program belongs to one class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from marl.node import Node


class One(Node):
    scale: float
    power: int = struct.field(pytree_node=False, default=1)

    def __call__(self, x):
        return self.scale * x**self.power


class Other(One):
    def __call__(self, x):
        return -self.scale * x**self.power


def test_classes_with_like_fields_are_different_structures():
    assert jax.tree.structure(One(2.0)) == jax.tree.structure(One(3.0))
    assert jax.tree.structure(One(2.0)) != jax.tree.structure(Other(2.0))
    assert jax.tree.structure(One(2.0)) != jax.tree.structure(One(2.0, power=2))


def test_leaves_are_mapped_and_static_fields_kept():
    node = jax.tree.map(lambda x: 10 * x, One(2.0, power=3))
    assert (node.scale, node.power) == (20.0, 3)
    ((path, leaf),) = jax.tree_util.tree_leaves_with_path(node)
    assert jax.tree_util.keystr(path) == ".scale"
    assert leaf == 20.0


def test_a_node_goes_through_jit_and_vmap_and_cannot_be_changed():
    call = jax.jit(lambda node, x: node(x))
    assert call(One(2.0, power=2), 3.0) == 18.0
    assert call(Other(2.0, power=2), 3.0) == -18.0
    several = One(jnp.arange(3.0)).replace(power=2)
    np.testing.assert_array_equal(jax.vmap(lambda node: node(2.0))(several), [0.0, 4.0, 8.0])
    with pytest.raises(AttributeError):
        several.scale = 1.0
