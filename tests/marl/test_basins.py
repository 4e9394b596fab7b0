"""Basins of the stag hunt: payoffs with gifts, gradients, and shares that follow from the payoffs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl.basins import COOPERATION, DEFECTION, ends, extended, first_policies, measure
from marl.build import load
from marl.validation import ConfigError

RISK, GIFT = -6.0, 10.0
TABLE = np.array([[[2, 2], [RISK, 1]], [[1, RISK], [1, 1]]], np.float32)  # [row, column, player]


def test_payoffs_with_gifts_by_hand():
    payoff = np.asarray(extended(jnp.asarray(TABLE), GIFT))
    assert payoff[:2, :2].tolist() == TABLE.tolist()
    assert payoff[2, 0].tolist() == [-8, 12]  # both hunt, the first gives
    assert payoff[2, 3].tolist() == [RISK, 1]  # hunts alone; both give
    assert payoff[1, 3].tolist() == [11, -9]  # both forage, the second gives
    assert (payoff.sum(-1) == np.tile(TABLE.sum(-1), (2, 2))).all()  # gifts create nothing


def test_a_step_follows_the_gradient_of_the_expected_payoff():
    payoff = extended(jnp.asarray(TABLE), GIFT)
    first = jax.random.normal(jax.random.key(0), (5, 2, 4))

    def expected(logits, player):
        row, column = jax.nn.softmax(logits)
        return row @ payoff[..., player] @ column

    step = jnp.stack([jax.vmap(jax.grad(expected), (0, None))(first, i)[:, i] for i in (0, 1)], axis=1)
    # what one step of size 1e4 leads to is told by the sign of the gradient alone
    jumped = jax.nn.softmax(first + 1e4 * step)
    found = ends(payoff, first, step_size=1e4, num_steps=1)
    for policies, end in zip(np.asarray(jumped), np.asarray(found), strict=True):
        near = [np.linalg.norm(policies - np.eye(4)[goal]) < 0.1 for goal in (COOPERATION, DEFECTION)]
        assert end == (near.index(True) if any(near) else 2)
    assert len(set(np.asarray(found).tolist())) > 1


def test_grids_have_their_sizes_and_absent_gifts_no_probability():
    assert first_policies("neither", "alike", 5, 3, 3.0).shape == (5, 2, 4)
    assert first_policies("both", "alike", 5, 3, 3.0).shape == (45, 2, 4)
    one = first_policies("one", "alike", 5, 3, 3.0)
    assert one.shape == (45, 2, 4)
    assert (one[:, 0, 0] == one[:, 1, 0]).all()
    assert jax.nn.softmax(jnp.asarray(one[:, 1]))[:, 2:].max() == 0
    apart = first_policies("one", "apart", 5, 3, 3.0)
    assert len({tuple(pair.ravel().tolist()) for pair in apart}) == len(apart) == 45 * 5


def shares(**changes):
    sizes = {"num": 101, "num_gift": 3, "limit": 3.0, "step_size": 1.0, "num_steps": 20_000}
    how = {"field": "sucker", "values": [-6.0, -2.0], "gifters": "neither", "gift": GIFT, "starts": "alike"}
    return measure(setup=load("env=stag_hunt"), **how | sizes | changes)


def test_without_gifts_the_basin_is_where_hunting_pays():
    """Alike, hunting pays for p > (1 - r) / (2 - r): 7/8 and 3/4, logits above ln 7 and ln 3 of -3, -2.94 ... 3."""
    summary = shares()
    found = {name: one["mean"] for name, one in summary["metrics"].items()}
    np.testing.assert_allclose(found["cooperation"], [18 / 101, 32 / 101], rtol=1e-6)
    np.testing.assert_allclose(found["defection"], [83 / 101, 69 / 101], rtol=1e-6)
    assert found["nowhere"] == [0, 0]
    assert summary["sweep"] == [{"sucker": -6.0}, {"sucker": -2.0}]


def test_gifts_of_both_enlarge_it():
    more = np.array(shares(gifters="both")["metrics"]["cooperation"]["mean"])
    assert (more > np.array([18, 32]) / 101 + 0.05).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gifters": "all"}, "figure.measure.gifters=all: must be one of neither, one, both"),
        ({"starts": "far"}, "figure.measure.starts=far: must be one of alike, apart"),
        ({"field": "risk"}, "SymmetricGame has no payoff table or no field risk"),
    ],
)
def test_what_is_unknown_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        shares(**changes)
