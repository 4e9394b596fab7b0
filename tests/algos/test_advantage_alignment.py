"""The aligned advantage: by hand, against slow loops, and inside PPO."""

import itertools
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algos.advantage_alignment import QUADRANTS, AdvantageAlignment
from algos.ppo import PPO
from marl.build import load
from marl.learner import start
from tests.probes import jit_rollout, learn, ppo, probe
from tests.test_configs import SMALL, errors_of, learn_once

GAMMA = 0.9
DONE = np.zeros((3, 1), bool)


def alignment(**changes):
    fields = {
        "beta": 2.0,
        "past_decay": 1.0,
        "others_lambda": None,
        "form": "discounted",
        "extra_gamma": True,
        "others": "sum",
        "removed": (),
    }
    return AdvantageAlignment(**(fields | changes))


def random_play(seed, steps=7, games=3, seats=3, end=0.3):
    """Advantages, those of another estimator, and ends."""
    rng = np.random.default_rng(seed)
    draw = lambda: rng.normal(size=(steps, games, seats)).astype(np.float32)
    return draw(), draw(), rng.random((steps, games)) < end


def slow(credit, advantage, others, done):
    """The definition, summed anew at each step."""
    found = advantage.astype(np.float64)
    for t, game, seat in np.ndindex(*advantage.shape):
        ends = [k for k in range(t) if done[k, game]]
        first = ends[-1] + 1 if ends else 0
        own = advantage[first:t, game, seat].astype(np.float64)
        if credit.form == "mean":
            past = own.mean() if len(own) else 0.0
        else:
            past = sum(
                GAMMA * (GAMMA * credit.past_decay) ** (len(own) - 1 - i) * a for i, a in enumerate(own)
            )
            past *= GAMMA if credit.extra_gamma else 1.0
        rest = np.delete(others[t, game], seat)
        found[t, game, seat] += credit.beta * past * (rest.sum() if credit.others == "sum" else rest.mean())
    return found


def test_three_steps_of_two_players_by_hand():
    """A = (1, 2, 3), B = (10, 20, 30): W = (0, .9, .9 * (.9 + 2)), A* = A + 2 * .9 * W * B."""
    advantage = jnp.array([[[1.0, 10.0]], [[2.0, 20.0]], [[3.0, 30.0]]])
    found = alignment()(advantage, DONE, gamma=GAMMA)
    np.testing.assert_allclose(found[:, 0, 0], [1, 2 + 1.8 * 0.9 * 20, 3 + 1.8 * 2.61 * 30], rtol=1e-6)
    np.testing.assert_allclose(found[:, 0, 1], [10, 20 + 1.8 * 9 * 2, 30 + 1.8 * 26.1 * 3], rtol=1e-6)


def test_the_mean_form_by_hand():
    """Means of the past (0, 1, 1.5); there is no gamma."""
    advantage = jnp.array([[[1.0, 10.0]], [[2.0, 20.0]], [[3.0, 30.0]]])
    found = alignment(form="mean")(advantage, DONE, gamma=GAMMA)
    np.testing.assert_allclose(found[:, 0, 0], [1, 2 + 2 * 1 * 20, 3 + 2 * 1.5 * 30], rtol=1e-6)


def test_two_players_are_the_formula_of_the_source():
    """A*_t = A_t + beta gamma (sum_(k<t) gamma^(t-k) A_k) B_t, within one episode."""
    advantage, _, _ = random_play(0, seats=2)
    done = np.zeros(advantage.shape[:2], bool)
    one, other = advantage[..., 0], advantage[..., 1]
    past = np.stack([sum(GAMMA ** (t - k) * one[k] for k in range(t)) + 0 * one[0] for t in range(len(one))])
    found = alignment(beta=0.7)(advantage, done, gamma=GAMMA)
    np.testing.assert_allclose(found[..., 0], one + 0.7 * GAMMA * past * other, rtol=1e-5)


def test_the_estimator_of_loqa_is_the_form_without_gamma_and_with_decay():
    """d1_k + w gamma (sum_(t<k) (gamma lam)^(k-t-1) d1_t) (G2_k - V2_k)."""
    own, others, _ = random_play(1, seats=2)
    done, lam = np.zeros(own.shape[:2], bool), 0.9
    credit = alignment(beta=1.0, past_decay=lam, extra_gamma=False)
    found = credit(own, done, gamma=GAMMA, others=others)
    k, d1 = 4, own[..., 0]
    past = sum((GAMMA * lam) ** (k - t - 1) * d1[t] for t in range(k))
    np.testing.assert_allclose(found[k, :, 0], d1[k] + GAMMA * past * others[k, :, 1], rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    form=st.sampled_from(["discounted", "mean"]),
    others=st.sampled_from(["sum", "mean"]),
    extra_gamma=st.booleans(),
    past_decay=st.sampled_from([0.0, 0.9, 1.0]),
)
def test_it_equals_a_slow_loop(seed, form, others, extra_gamma, past_decay):
    own, theirs, done = random_play(seed)
    credit = alignment(form=form, others=others, extra_gamma=extra_gamma, past_decay=past_decay)
    found = credit(own, done, gamma=GAMMA, others=theirs)
    np.testing.assert_allclose(found, slow(credit, own, theirs, done), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("form", ["discounted", "mean"])
def test_nothing_flows_over_the_end_of_an_episode_and_its_first_step_is_unchanged(form):
    own, _, done = random_play(2)
    done[3] = True
    credit, changed = alignment(form=form), own.copy()
    changed[:4] += 5
    before, after = (np.asarray(credit(x, done, gamma=GAMMA)) for x in (own, changed))
    np.testing.assert_array_equal(before[4:], after[4:])
    np.testing.assert_array_equal(before[[0, 4]], own[[0, 4]])
    assert (before[1:4] != after[1:4]).all()


@pytest.mark.parametrize("form", ["discounted", "mean"])
def test_exchanging_seats_exchanges_credits(form):
    own, others, done = random_play(3)
    order, credit = np.array([2, 0, 1]), alignment(form=form)
    found = credit(own, done, gamma=GAMMA, others=others)
    exchanged = credit(own[..., order], done, gamma=GAMMA, others=others[..., order])
    np.testing.assert_allclose(exchanged, found[..., order], rtol=1e-5, atol=1e-6)


def test_the_mean_over_three_players_halves_the_sum():
    own, others, done = random_play(4)
    added, halved = (alignment(others=how).shaping(own, others, done, gamma=GAMMA) for how in ("sum", "mean"))
    np.testing.assert_allclose(halved, np.asarray(added) / 2, rtol=1e-6)


def test_the_four_quadrants_make_up_the_term():
    own, others, done = random_play(5)
    whole = np.asarray(alignment().shaping(own, others, done, gamma=GAMMA))
    kept = {
        name: np.asarray(
            alignment(removed=tuple(set(QUADRANTS) - {name})).shaping(own, others, done, gamma=GAMMA)
        )
        for name in QUADRANTS
    }
    np.testing.assert_array_equal(sum(kept.values()), whole)
    for one, other in itertools.combinations(kept.values(), 2):
        assert not ((one != 0) & (other != 0)).any()
    for name, (past, present) in QUADRANTS.items():
        assert (np.sign(kept[name][kept[name] != 0]) == past * present).all()
    np.testing.assert_array_equal(
        whole - kept["vengeful"], alignment(removed=("vengeful",)).shaping(own, others, done, gamma=GAMMA)
    )


def test_it_is_constant_for_gradients():
    own, _, done = random_play(6)
    slope = jax.grad(lambda x: alignment()(x, done, gamma=GAMMA).sum())(jnp.asarray(own))
    assert not slope.any()


@lru_cache
def learnt(credit):
    """All that training of two seats leaves behind."""
    algo, env = ppo((0, 1), credit=credit), probe("match", num_seats=2)
    runner, what, _ = learn(algo, env, seed=0, num_envs=32, num_updates=10, num_steps=15)
    return runner.learner, what


@pytest.mark.parametrize("others_lambda", [None, 1.0])
def test_without_weight_the_whole_training_is_that_of_ppo(others_lambda):
    aligned, plain = learnt(alignment(beta=0.0, others_lambda=others_lambda)), learnt(None)
    jax.tree.map(np.testing.assert_array_equal, aligned, plain)


class Caught(AdvantageAlignment):
    """Gives the others' advantages as everybody's own credit."""

    def __call__(self, advantage, done, *, gamma, others=None):
        return advantage - others


def test_the_others_advantages_are_normalised_and_of_their_own_lambda():
    """With the lambda of one's own they are one's own; with another they are not, and have mean 0."""
    same = ppo((0, 1)).replace(credit=Caught(**vars(alignment(others_lambda=0.9))))
    other = same.replace(credit=same.credit.replace(others_lambda=0.0))
    for algo, zero in ((same, True), (other, False)):
        caught = credits_of(algo)
        assert (np.abs(caught).max() < 1e-5) == zero
        np.testing.assert_allclose(caught.mean((0, 1)), 0.0, atol=1e-4)


def credits_of(algo):
    env, key = probe("recall", num_seats=2), jax.random.key(0)
    runner = start(algo, env, key, 32)
    runner, batch, _ = jit_rollout(algo, env, runner, key, 0, 15)
    learns = np.ones(batch.reward.shape[1:], bool)
    return np.asarray(jax.jit(type(algo).credits)(algo, env, runner.learner, batch, learns))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algo.credit.form=median", "algo.credit.form=median: must be discounted or mean"),
        ("algo.credit.others=max", "algo.credit.others=max: must be sum or mean"),
        (
            "algo.credit.removed=[spite]",
            "algo.credit.removed=spite: must be among cooperative, empathetic, vengeful, spiteful",
        ),
        ("algo.credit.others_lambda=2.0", "algo.credit.others_lambda=2.0: must lie in [0, 1]"),
        ("algo.credit.past_decay=-1.0", "algo.credit.past_decay=-1.0: must lie in [0, 1]"),
        ("seats=[0,tit_for_tat]", "algo.credit: needs at least two learning seats"),
    ],
)
def test_a_wrong_choice_is_named(override, message):
    assert message in "\n".join(errors_of("algo=advantage_alignment", override))


def test_the_config_is_ppo_with_this_credit():
    setup = load("algo=advantage_alignment", "algo.credit.removed=[vengeful,spiteful]")
    assert isinstance(setup.algo, PPO)
    assert setup.algo.credit == alignment(beta=1.0, removed=("vengeful", "spiteful"))


def test_a_swept_weight_trains_as_if_alone():
    small = [*SMALL, "algo=advantage_alignment", "total_steps=64"]
    sweep = learn_once(*small, "+sweep.algo.credit.beta=[0.5,3.0]")
    alone = learn_once(*small, "algo.credit.beta=3.0")
    for name in ("reward", "loss/policy"):
        np.testing.assert_allclose(sweep[name][1], alone[name], rtol=1e-4, atol=1e-6)
    assert abs(sweep["loss/policy"][0] - alone["loss/policy"]).max() > 1e-3
