"""Random orders: every number once, every place equally likely, neighbours torn apart."""

import jax
import numpy as np
import pytest

from marl.shuffle import shuffle


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (128, 50), (33, 17), (1, 40), (40, 3)])
def test_every_number_comes_once(rows, columns):
    order = shuffle(jax.random.key(1), rows, columns)
    np.testing.assert_array_equal(np.sort(order), np.arange(rows * columns))


def test_each_number_is_equally_likely_to_land_in_each_quarter_of_the_batch():
    keys = jax.random.split(jax.random.key(2), 4000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: shuffle(key, 16, 16)))(keys))
    quarter = np.argsort(orders, axis=1) // 64  # [draws, number]
    share = np.stack([(quarter == q).mean(0) for q in range(4)])
    # 5 standard errors of a quarter over 4000 draws
    np.testing.assert_allclose(share, 0.25, atol=5 * (0.25 * 0.75 / 4000) ** 0.5)


def test_two_numbers_share_a_quarter_as_often_as_in_a_random_order():
    keys = jax.random.split(jax.random.key(3), 4000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: shuffle(key, 16, 16)))(keys))
    quarter = np.argsort(orders, axis=1) // 64
    expected = 63 / 255
    for first, second in ((0, 1), (0, 16), (0, 17), (5, 250), (100, 101)):
        share = (quarter[:, first] == quarter[:, second]).mean()
        assert abs(share - expected) < 5 * (expected * (1 - expected) / 4000) ** 0.5, (first, second)


def test_different_keys_give_different_orders():
    one, other = (np.asarray(shuffle(jax.random.key(i), 32, 32)) for i in (0, 1))
    assert (one != other).mean() > 0.98
