import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from scipy.stats import norm

from marl.distributions import LOG_STD_RANGE, Categorical, Gaussian, distribution, num_params
from marl.environment import mask_size

DRAWS = 100_000
LOGITS = np.array([0.3, -1.0, 2.0, 0.0, 0.7], np.float32)


def softmax(x):
    p = np.exp(x - x.max())
    return p / p.sum()


def draw(pi):
    """[DRAWS, ...] samples of one distribution."""
    wide = jax.tree.map(lambda x: jnp.broadcast_to(x, (DRAWS, *x.shape)), pi)
    return np.asarray(wide.sample(jax.random.key(0)))


def masked(logits, mask):
    return distribution(spaces.Discrete(len(logits)), jnp.asarray(logits), jnp.asarray(mask))


def test_categorical_frequencies_are_the_probabilities():
    p = softmax(LOGITS)
    action = draw(Categorical(jnp.asarray(LOGITS)))
    assert action.dtype == np.int32
    frequency = np.bincount(action, minlength=5) / DRAWS
    np.testing.assert_allclose(frequency, p, atol=5 * np.sqrt(0.25 / DRAWS))


@pytest.mark.parametrize("allowed", [(1, 2, 3, 4), (0, 1, 2, 3), (2,), (0,), (4,), (0, 2, 4), (1, 3)])
def test_masked_actions_are_never_drawn(allowed):
    mask = np.isin(np.arange(5), allowed)
    pi = masked(LOGITS, mask)
    action = draw(pi)
    expected = np.where(mask, np.exp(LOGITS), 0.0)
    frequency = np.bincount(action, minlength=5) / DRAWS
    assert (frequency[~mask] == 0).all()
    np.testing.assert_allclose(frequency, expected / expected.sum(), atol=5 * np.sqrt(0.25 / DRAWS))
    assert mask[pi.mode()]


@pytest.mark.parametrize("num", [3, 18, 100])
def test_every_draw_is_legal_under_many_masks_and_steep_logits(num):
    keys = jax.random.split(jax.random.key(num), 4)
    params = 10 * jax.random.normal(keys[0], (DRAWS, num))
    mask = jax.random.bernoulli(keys[1], 0.3, (DRAWS, num)) | jax.nn.one_hot(
        jax.random.randint(keys[2], (DRAWS,), 0, num), num, dtype=bool
    )
    pi = distribution(spaces.Discrete(num), params, mask)
    for action in (jax.jit(Categorical.sample)(pi, keys[3]), pi.mode()):
        assert np.take_along_axis(np.asarray(mask), np.asarray(action)[:, None], 1).all()


def test_categorical_log_prob_and_entropy():
    p = softmax(LOGITS)
    pi = Categorical(jnp.asarray(LOGITS))
    np.testing.assert_allclose(jax.vmap(pi.log_prob)(jnp.arange(5)), np.log(p), rtol=1e-5)
    np.testing.assert_allclose(pi.entropy(), -(p * np.log(p)).sum(), rtol=1e-5)
    assert pi.mode() == 2


def test_masked_log_prob_and_entropy_are_those_of_the_allowed_actions():
    mask = np.array([True, False, False, True, True])
    p = softmax(LOGITS[mask])
    pi = masked(LOGITS, mask)
    np.testing.assert_allclose(jax.vmap(pi.log_prob)(jnp.array([0, 3, 4])), np.log(p), rtol=1e-5)
    np.testing.assert_allclose(pi.entropy(), -(p * np.log(p)).sum(), rtol=1e-5)
    assert masked(LOGITS, np.arange(5) == 1).entropy() == 0.0


@pytest.mark.parametrize("mask", [[True] * 5, [True, False, False, True, True], [False] * 4 + [True]])
def test_masked_gradients_are_finite_and_spare_illegal_logits(mask):
    mask = np.array(mask)
    legal = int(np.flatnonzero(mask)[0])
    for name, score in {
        "entropy": lambda pi: pi.entropy(),
        "log_prob": lambda pi: pi.log_prob(legal),
    }.items():
        grad = jax.grad(lambda x: score(masked(x, mask)))(jnp.asarray(LOGITS))  # noqa: B023
        assert np.isfinite(grad).all(), name
        assert (grad[~mask] == 0).all(), name


def test_entropy_gradient_equals_finite_differences():
    mask = np.array([True, False, True, True, False])
    entropy = lambda x: masked(x, mask).entropy()
    step = 1e-2 * np.eye(5, dtype=np.float32)
    slope = [(entropy(LOGITS + d) - entropy(LOGITS - d)) / 2e-2 for d in step]
    np.testing.assert_allclose(jax.grad(entropy)(jnp.asarray(LOGITS)), slope, atol=1e-4)


def test_multi_categorical_adds_its_components():
    space = spaces.MultiDiscrete([2, 3])
    assert num_params(space) == mask_size(space) == 5
    mask = jnp.array([True, True, True, False, True])
    pi = distribution(space, jnp.asarray(LOGITS), mask)
    first, second = Categorical(jnp.asarray(LOGITS[:2])), masked(LOGITS[2:], mask[2:])
    action = jnp.array([1, 2])
    np.testing.assert_allclose(pi.log_prob(action), first.log_prob(1) + second.log_prob(2), rtol=1e-6)
    np.testing.assert_allclose(pi.entropy(), first.entropy() + second.entropy(), rtol=1e-6)
    assert pi.mode().tolist() == [0, 0]

    drawn = draw(pi)
    assert drawn.shape == (DRAWS, 2)
    assert not (drawn[:, 1] == 1).any()
    joint = np.array([[np.mean((drawn == (i, j)).all(1)) for j in range(3)] for i in range(2)])
    expected = np.outer(softmax(LOGITS[:2]), softmax(np.where(mask[2:], LOGITS[2:], -np.inf)))
    np.testing.assert_allclose(joint, expected, atol=5 * np.sqrt(0.25 / DRAWS))


def test_gaussian_equals_scipy():
    mean, std = np.array([0.5, -2.0, 3.0]), np.array([0.1, 1.0, 2.5])
    pi = Gaussian(jnp.asarray(mean), jnp.log(std), jnp.ones(3, bool), num_axes=1)
    action = jnp.array([0.4, 0.0, -1.0])
    np.testing.assert_allclose(pi.log_prob(action), norm.logpdf(action, mean, std).sum(), rtol=1e-5)
    np.testing.assert_allclose(pi.entropy(), norm.entropy(mean, std).sum(), rtol=1e-5)
    assert (pi.mode() == pi.mean).all()
    drawn = draw(pi)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * std.max() / np.sqrt(DRAWS))
    np.testing.assert_allclose(drawn.std(0), std, rtol=0.02)


def test_gaussian_mask_drops_components():
    mean, std = np.array([0.5, -2.0, 3.0]), np.array([0.1, 1.0, 2.5])
    pi = Gaussian(jnp.asarray(mean), jnp.log(std), jnp.array([True, False, True]), num_axes=1)
    action = jnp.array([0.4, 1e6, -1.0])
    expected = norm.logpdf([0.4, -1.0], mean[[0, 2]], std[[0, 2]]).sum()
    np.testing.assert_allclose(pi.log_prob(action), expected, rtol=1e-5)
    np.testing.assert_allclose(pi.entropy(), norm.entropy(0, std[[0, 2]]).sum(), rtol=1e-5)
    none = Gaussian(pi.mean, pi.log_std, jnp.zeros(3, bool), num_axes=1)
    assert none.log_prob(action) == none.entropy() == 0.0


def test_box_parameters_are_in_units_of_half_the_range():
    space = spaces.Box(np.array([0.0, -4.0], np.float32), np.array([10.0, -2.0], np.float32))
    assert (num_params(space), mask_size(space)) == (4, 2)
    pi = distribution(space, jnp.array([0.2, -1.0, 0.0, np.log(0.5)]), jnp.ones(2, bool))
    np.testing.assert_allclose(pi.mean, [6.0, -4.0], rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(pi.log_std), [5.0, 0.5], rtol=1e-6)


def test_unbounded_box_uses_plus_minus_one():
    low, high = np.array([-np.inf, 0.0, -np.inf], np.float32), np.array([np.inf, np.inf, 2.0], np.float32)
    pi = distribution(spaces.Box(low, high), jnp.array([0.2, -0.3, 7.0, 0.0, 0.0, 0.0]), jnp.ones(3, bool))
    np.testing.assert_allclose(pi.mean, [0.2, -0.3, 7.0], rtol=1e-6)
    assert pi.log_std.tolist() == [0.0, 0.0, 0.0]


def test_box_of_two_axes_sums_over_both():
    space = spaces.Box(-1.0, 1.0, (2, 3))
    params = jnp.concatenate([jnp.linspace(-1, 1, 6), jnp.linspace(-2, 0, 6)])
    mask = jnp.array([True, True, False, True, True, True])
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), (params, mask))
    pi = distribution(space, *batch)
    action = jnp.full((2, 2, 3), 0.25)
    assert pi.sample(jax.random.key(0)).shape == (2, 2, 3)
    keep = np.asarray(mask)
    expected = norm.logpdf(0.25, np.linspace(-1, 1, 6)[keep], np.exp(np.linspace(-2, 0, 6)[keep])).sum()
    np.testing.assert_allclose(pi.log_prob(action), [expected, expected], rtol=1e-5)


def test_gaussian_width_is_clipped():
    pi = distribution(spaces.Box(-1.0, 1.0, (2,)), jnp.array([0.0, 0.0, -99.0, 99.0]), jnp.ones(2, bool))
    np.testing.assert_allclose(pi.log_std, LOG_STD_RANGE)
