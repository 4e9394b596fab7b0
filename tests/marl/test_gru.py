"""A GRU over time: against a slow loop of flax's cell, value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from marl import gru

T, B, F, H = 7, 3, 4, 5


def setting(seed):
    keys = jax.random.split(jax.random.key(seed), 4)
    x, carry = jax.random.normal(keys[0], (T, B, F)), jax.random.normal(keys[1], (B, H))
    params = nn.GRUCell(H).init(keys[2], carry, x[0])["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases too
    return params, carry, x, jax.random.bernoulli(keys[3], 0.3, (T, B))


def slow(params, carry, x, start):
    states = []
    for now, begins in zip(x, start, strict=True):
        carry, _ = nn.GRUCell(H).apply({"params": params}, jnp.where(begins[:, None], 0.0, carry), now)
        states.append(carry)
    return carry, jnp.stack(states)


def test_the_memory_is_that_of_the_cell_step_by_step():
    arguments = setting(0)
    for own, other in zip(gru.apply(*arguments), slow(*arguments), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-6)


def test_the_gradients_of_learners_under_vmap_are_those_of_the_cell():
    weight = jax.random.normal(jax.random.key(9), (T, B, H))

    def loss(apply, *arguments):
        carry, states = apply(*arguments)
        return (states * weight).sum() + (carry**2).sum()

    both = jax.tree.map(lambda *x: jnp.stack(x), setting(1), setting(2))
    grads = [
        jax.vmap(jax.grad(lambda *args, f=f: loss(f, *args), argnums=(0, 1, 2)))(*both)
        for f in (gru.apply, slow)
    ]
    jax.tree.map(lambda own, other: np.testing.assert_allclose(own, other, atol=1e-5), *grads)


def test_gradients_of_gradients_as_learners_of_learners_need_them():
    params, carry, x, start = setting(3)

    def after_a_step(apply, x):
        loss = lambda params: (apply(params, carry, x, start)[1] ** 2).sum()
        moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))
        return loss(moved)

    own, other = (jax.grad(lambda x, f=f: after_a_step(f, x))(x) for f in (gru.apply, slow))
    np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


def test_what_came_before_a_start_leaves_no_trace():
    params, carry, x, start = setting(4)
    start = start.at[2].set(True)
    states = lambda x, carry: gru.apply(params, carry, x, start)[1][2:].sum()
    early, before = jax.grad(states, argnums=(0, 1))(x, carry)
    assert float(jnp.abs(early[:2]).max()) == 0.0
    assert float(jnp.abs(before).max()) == 0.0
    unknown = gru.apply(params, carry * jnp.nan, x, start.at[0].set(True))[1]
    assert bool(jnp.isfinite(unknown).all())


@pytest.mark.parametrize("steps", [1, 9])
def test_any_number_of_steps(steps):
    params, carry, x, start = setting(5)
    x, start = (jnp.concatenate([y] * 2)[:steps] for y in (x, start))
    own, other = (apply(params, carry, x, start)[1] for apply in (gru.apply, slow))
    np.testing.assert_allclose(own, other, atol=1e-6)
