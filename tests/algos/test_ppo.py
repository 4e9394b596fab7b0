import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from algos.ppo_loss import ppo_loss
from envs.matrix_game import MatrixGame
from marl.distributions import Categorical
from marl.learner import start
from tests.probes import GAMMA, Aim, Locks, Tempting, jit_rollout, jit_train, learn, ppo, probe
from tests.toys import dilemma

NETWORKS = pytest.mark.parametrize("core", [0, 8], ids=["feed-forward", "gru"])
MEMORY_SLOW = pytest.mark.parametrize(
    "core", [0, pytest.param(8, marks=pytest.mark.slow)], ids=["feed-forward", "gru"]
)
GRU_SLOW = pytest.mark.parametrize("core", [0, pytest.param(8, marks=pytest.mark.slow)])


def play(algo, env, num_updates=60):
    """The Batch [T=15, E=32, A] of play after training; 15 steps are whole episodes of every probe."""
    _, _, batch = learn(algo, env, seed=0, num_envs=32, num_updates=num_updates, num_steps=15)
    return batch


def mean_value(batch, **seen):
    """Mean value over the steps in which exactly this was seen: the cue, and whether it was later."""
    vector = np.asarray(batch.obs["vector"])
    where = np.ones(vector.shape[:-1], bool)
    for name, value in seen.items():
        where &= vector[..., ("cue", "later").index(name)] == value
    assert where.any()
    return float(np.asarray(batch.extras["value"])[where].mean())


# Each standard probe, by name.


@MEMORY_SLOW
def test_a_constant_reward_is_the_value(core):
    batch = play(ppo(core=core), probe("constant"))
    np.testing.assert_allclose(batch.extras["value"], 1.0, atol=0.05)


@MEMORY_SLOW
def test_the_value_depends_on_the_observation(core):
    batch = play(ppo(core=core), probe("sign"))
    assert mean_value(batch, cue=1) == pytest.approx(1.0, abs=0.05)
    assert mean_value(batch, cue=-1) == pytest.approx(-1.0, abs=0.05)


@MEMORY_SLOW
def test_a_later_reward_is_discounted(core):
    batch = play(ppo(core=core), probe("delayed"))
    assert mean_value(batch, later=0) == pytest.approx(GAMMA, abs=0.05)
    assert mean_value(batch, later=1) == pytest.approx(1.0, abs=0.05)


@MEMORY_SLOW
def test_a_truncation_is_worth_the_state_reached(core):
    """Read as a termination the later value would be below 3, with the restarted state's about 7.6."""
    batch = play(ppo(core=core), probe("cut"))
    assert mean_value(batch, later=0) == pytest.approx(GAMMA / (1 - GAMMA), abs=0.1)
    assert mean_value(batch, later=1) == pytest.approx(1 / (1 - GAMMA), abs=0.1)


@GRU_SLOW
def test_the_better_action_is_found(core):
    batch = play(ppo(core=core), probe("choice"))
    assert batch.reward.mean() > 0.98
    np.testing.assert_allclose(batch.extras["value"], 1.0, atol=0.1)


@MEMORY_SLOW
def test_the_action_answers_the_observation(core):
    batch = play(ppo(core=core), probe("match"))
    assert batch.reward.mean() > 0.98
    assert mean_value(batch, cue=1) == pytest.approx(1.0, abs=0.1)
    assert mean_value(batch, cue=-1) == pytest.approx(1.0, abs=0.1)


@NETWORKS
def test_only_memory_recalls_a_cue(core):
    """160 episodes of chance: the mean reward lies within 0.3 of 0 (four standard deviations)."""
    batch = play(ppo(core=core), probe("recall"))
    per_episode = 3 * batch.reward.mean()
    if core:
        assert per_episode > 0.98
        assert mean_value(batch, cue=1) == pytest.approx(GAMMA**2, abs=0.15)
    else:
        assert abs(per_episode) < 0.3


@GRU_SLOW
def test_two_choices_at_once_each_find_their_target(core):
    batch = play(ppo(core=core), Locks(num_seats=1))
    hits = (np.asarray(batch.action)[:, :, 0] == Locks.target).mean((0, 1))
    assert (hits > 0.98).all()


@GRU_SLOW
def test_a_continuous_action_moves_to_its_target(core):
    batch = play(ppo(core=core, learning_rate=3e-3, ent_coef=0.1), Aim(num_seats=1), num_updates=200)
    assert batch.action.mean() == pytest.approx(Aim.target, abs=0.1)
    assert batch.action.std() < 0.2
    assert batch.reward.mean() > -0.05


def test_illegal_actions_are_never_chosen():
    _, (tally, _), batch = learn(
        ppo(), Tempting(num_seats=1), seed=0, num_envs=32, num_updates=60, num_steps=15
    )
    assert (np.asarray(tally.reward) <= np.asarray(tally.steps)[:, None]).all()  # an illegal one pays 10
    cue = np.asarray(batch.obs["vector"])[..., 0]
    right = np.asarray(batch.action) == np.where(cue > 0, 2, 3)
    assert right.mean() > 0.98


# Seats.


def test_each_type_learns_its_role():
    batch = play(ppo((0, 1, 0, 1)), probe("roles", num_seats=4))
    assert (np.asarray(batch.reward).mean((0, 1)) > 0.98).all()


def test_seats_that_share_a_learner_play_alike():
    batch = play(ppo((0, 0, 0, 0)), probe("roles", num_seats=4))
    action = np.asarray(batch.action).mean((0, 1))
    assert np.ptp(action) < 0.1  # whatever it is that they play
    assert abs(batch.reward.mean()) < 0.1  # it suits two of the four


def test_seats_that_share_a_learner_all_learn_a_common_task():
    batch = play(ppo((0, 0, 0, 0)), probe("match", num_seats=4))
    assert (np.asarray(batch.reward).mean((0, 1)) > 0.98).all()


def test_advantages_are_normalised_per_learner():
    """A type whose rewards are a thousand times larger learns as the other does."""
    env = probe("roles", num_seats=4)
    scale = np.array([1, 1000, 1, 1000], np.float32)
    batch = play(ppo((0, 1, 0, 1)), env.replace(by_action=env.by_action * scale))
    assert ((np.asarray(batch.reward).mean((0, 1)) / scale) > 0.98).all()


@pytest.mark.parametrize(("eps", "credit"), [(1e-8, 1.0), (0.03, 0.25)])
def test_what_is_added_to_their_deviation_keeps_small_advantages_small(eps, credit):
    advantage = jnp.array([0.01, -0.01] * 4).reshape(4, 2, 1)
    found = ppo(advantage_eps=eps)._credit(advantage, None, jnp.zeros((4, 2), bool))
    np.testing.assert_allclose(found, 100 * credit * advantage, rtol=1e-4)


def one_shot(payoff):
    """A game of one round that ends by its own rules, so that nothing is bootstrapped."""
    return MatrixGame(
        payoff=np.array(payoff, np.float32), continuation_prob=0.0, horizon=0, ends_by_chance=True
    )


def play_each_other(payoff):
    """Independent learners: P(action 0) and mean entropy of each update, and the Batch of later play."""
    algo = ppo((0, 1), learning_rate=1e-3, ent_coef=0.3)
    _, (tally, metrics), batch = learn(
        algo, one_shot(payoff), seed=0, num_envs=32, num_updates=400, num_steps=15
    )
    heads = np.asarray(tally.events["cooperated"]) / np.asarray(tally.steps)[:, None]
    return heads, np.asarray(metrics["entropy"]), batch


def test_matching_pennies_goes_to_mixed_play():
    """With an entropy bonus the one fixed point is half and half; plain gradients would circle it.

    Over 200 updates of 256 games the frequency has a standard error of 0.002 at the fixed point;
    0.05 leaves room for the circling that has not yet died down.
    """
    heads, entropy, _ = play_each_other([[[1, -1], [-1, 1]], [[-1, 1], [1, -1]]])
    np.testing.assert_allclose(heads[200:].mean(0), 0.5, atol=0.05)
    assert entropy[200:].min() > 0.55  # log 2 = 0.69


def test_coordination_settles_on_one_action():
    heads, _, batch = play_each_other([[[1, 1], [0, 0]], [[0, 0], [1, 1]]])
    action = np.asarray(batch.action)
    assert (action[..., 0] == action[..., 1]).mean() > 0.95
    assert np.abs(heads[-1] - 0.5).min() > 0.45


# The update itself.


@NETWORKS
def test_the_update_sees_the_policy_that_played(core):
    """Without steps every ratio is 1, also where episodes begin within a rollout."""
    env, key = probe("recall"), jax.random.key(0)
    runner, _, _ = learn(ppo(core=core), env, seed=0, num_envs=32, num_updates=60, num_steps=15)
    still = ppo(core=core, learning_rate=0.0)
    after, (_, metrics) = jit_train(still, env, runner, key, jnp.arange(60))
    jax.tree.map(np.testing.assert_array_equal, after.learner.params, runner.learner.params)
    np.testing.assert_allclose(metrics["kl"], 0.0, atol=1e-6)


def test_loss_by_hand():
    """Ratios 2, 0.5, 1.1 with clip 0.2: the first is clipped for a gain, the second for a loss."""
    prob = np.array([0.4, 0.3, 0.55])
    logits = jnp.log(jnp.stack([prob, 1 - prob], axis=-1))
    batch = {
        "action": jnp.zeros(3, jnp.int32),
        "log_prob": jnp.log(jnp.array([0.2, 0.6, 0.5])),
        "credit": jnp.array([1.0, -2.0, -1.0]),
        "target": jnp.array([1.0, 0.0, 2.0]),
    }
    value = jnp.array([0.0, 0.0, 1.5])
    loss, metrics = ppo_loss(Categorical(logits), value, batch, clip_eps=0.2, vf_coef=0.5, ent_coef=0.1)
    policy = -(1.2 * 1 + 0.8 * -2 + 1.1 * -1) / 3
    value_error = 0.5 * (1 + 0 + 0.25) / 3
    entropy = -(prob * np.log(prob) + (1 - prob) * np.log(1 - prob)).mean()
    expected = {
        "policy": policy,
        "value_error": value_error,
        "entropy": entropy,
        "kl": -np.log([2, 0.5, 1.1]).mean(),
    }
    for name, number in expected.items():
        assert float(metrics[name]) == pytest.approx(number, rel=1e-5), name
    assert float(loss) == pytest.approx(policy + 0.5 * value_error - 0.1 * entropy, rel=1e-5)


def test_a_clipped_value_counts_with_the_larger_error():
    # old 0, bound .2, target 1: 0.5 counts as .2; -1 is worse than its bound; .1 is within it
    batch = {"action": jnp.zeros(3, jnp.int32), "credit": jnp.zeros(3), "target": jnp.ones(3)}
    batch |= {"log_prob": jnp.full(3, jnp.log(0.5)), "value": jnp.zeros(3)}
    weights = {"clip_eps": 0.2, "vf_coef": 1.0, "ent_coef": 0.0, "value_clip_eps": 0.2}
    loss = ppo_loss(Categorical(jnp.zeros((3, 2))), jnp.array([0.5, -1.0, 0.1]), batch, **weights)[0]
    assert float(loss) == pytest.approx((0.8**2 + 2**2 + 0.9**2) / 6)


def test_clipping_stops_the_gradient_only_where_the_step_went_too_far():
    """Ratio 2 with credit 1 is clipped; ratio 2 with credit -1, and ratio 0.5 with credit 1, are not."""

    def slope(old_prob, credit):
        batch = {
            "action": jnp.zeros(1, jnp.int32),
            "log_prob": jnp.log(jnp.array([old_prob])),
            "credit": jnp.array([credit]),
            "target": jnp.zeros(1),
        }
        weights = {"clip_eps": 0.2, "vf_coef": 0.0, "ent_coef": 0.0}
        loss = lambda x: ppo_loss(Categorical(jnp.array([[x, 0.0]])), jnp.zeros(1), batch, **weights)[0]
        return float(jax.grad(loss)(0.0))  # the probability is 0.5 now

    # d ratio / d logit = ratio * (1 - p)
    assert slope(0.25, 1.0) == 0.0
    assert slope(0.25, -1.0) == pytest.approx(2 * 0.5)
    assert slope(1.0, 1.0) == pytest.approx(-0.5 * 0.5)
    assert slope(1.0, -1.0) == 0.0


class Scaled(struct.PyTreeNode):
    """A credit: the advantage times `factor`."""

    factor: float

    def __call__(self, advantage, done, *, gamma):
        return self.factor * advantage


def after_learning(credit):
    """The learner and the metrics after training two independent seats, and the Batch of later play."""
    algo, env = ppo((0, 1), credit=credit), probe("match", num_seats=2)
    runner, what, batch = learn(algo, env, seed=0, num_envs=32, num_updates=60, num_steps=15)
    return (runner.learner, what), batch


def test_a_credit_that_returns_the_advantage_changes_nothing():
    with_credit, without = after_learning(Scaled(1.0)), after_learning(None)
    jax.tree.map(np.testing.assert_array_equal, with_credit, without)


def test_a_credit_reaches_the_policy_and_not_the_value_target():
    """Turned around, the policy learns to lose; its critic still tells the value: -1."""
    _, batch = after_learning(Scaled(-1.0))
    assert batch.reward.mean() < -0.98
    assert batch.extras["value"].mean() == pytest.approx(-1.0, abs=0.1)


@pytest.mark.parametrize("core", [pytest.param(0, marks=pytest.mark.slow), 8], ids=["feed-forward", "gru"])
def test_a_gradient_summed_over_pieces_is_the_gradient(core):
    whole, pieces = (
        learn(
            ppo(core=core, num_accumulations=n),
            probe("match"),
            seed=0,
            num_envs=32,
            num_updates=3,
            num_steps=15,
        )[0]
        for n in (1, 4)
    )
    for one, other in zip(
        jax.tree.leaves(whole.learner.params), jax.tree.leaves(pieces.learner.params), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


# Groups of games that share draws.


def test_games_of_a_group_are_a_baseline_to_learn_by():
    batch = play(ppo((0, 1), group_size=8, vf_coef=0.0), Locks(num_seats=2))
    hits = (np.asarray(batch.action) == Locks.target).mean((0, 1, 2))
    assert (hits > 0.98).all()


def test_the_credit_of_a_group_is_its_return_less_the_others():
    """One-step games of a group share the cue, so that only the action's part of the reward is left."""
    algo, env = ppo((0, 1), group_size=8), Tempting(num_seats=2)
    runner = start(algo, env, jax.random.key(0), 32)
    _, batch, _ = jit_rollout(algo, env, runner, jax.random.key(1), 0, 8)
    found = np.asarray(jax.jit(algo.credits)(env, runner.learner, batch, np.ones((32, 2), bool)))
    groups = np.asarray(batch.reward).reshape(8, 4, 8, 2)
    expected = ((8 * groups - groups.sum(2, keepdims=True)) / 7).reshape(8, 32, 2)
    expected = expected / expected.std((0, 1))  # the mean is 0 already
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.reshape(8, 4, 8, 2).sum(2), 0.0, atol=1e-4)
    cue = np.asarray(batch.obs["vector"]).reshape(8, 4, 8, 2)
    assert (cue == cue[:, :, :1]).all()


def test_the_credit_of_a_group_with_a_critic_is_its_advantage_less_the_others():
    """Two games of a group differ by their actions and by what the critic says of the states reached."""
    algo, env = ppo((0, 0), group_size=8, group_critic=True), dilemma(horizon=5)
    algo = algo.replace(num_steps=10)
    runner = start(algo, env, jax.random.key(0), 32)
    _, batch, _ = jit_rollout(algo, env, runner, jax.random.key(1), 0, 10)
    found = np.asarray(jax.jit(algo.credits)(env, runner.learner, batch, np.ones((32, 2), bool)))
    advantage = np.asarray(algo.replace(group_size=1)._advantage(env, runner.learner, batch)[0])
    groups = advantage.reshape(10, 4, 8, 2)
    expected = ((8 * groups - groups.sum(2, keepdims=True)) / 7).reshape(10, 32, 2)
    np.testing.assert_allclose(found, expected / expected.std(), atol=1e-4)
    credit = SimpleNamespace(others_lambda=1.0)
    algo.replace(credit=credit)._check_groups(env)  # others by another lambda are fine


# The entropy bonus.


def test_the_entropy_bonus_falls_linearly_and_stays():
    algo = ppo(ent_coef=0.1, final_ent_coef=0.02, annealed_updates=4.0, num_epochs=2, num_minibatches=4)
    env, key = probe("match"), jax.random.key(0)
    runner, found = start(algo, env, key, 32), []
    for i in range(6):
        learner = jax.tree.map(lambda x: x[0], runner.learner)
        found.append(float(algo._annealed(learner, algo.ent_coef, algo.final_ent_coef)))
        runner, _ = jit_train(algo, env, runner, key, jnp.arange(i, i + 1))
    np.testing.assert_allclose(found, [0.1, 0.08, 0.06, 0.04, 0.02, 0.02], rtol=1e-5)


def test_an_entropy_bonus_that_ends_where_it_began_changes_nothing():
    env = probe("match")
    sizes = {"seed": 0, "num_envs": 32, "num_updates": 3, "num_steps": 15}
    plain = learn(ppo(ent_coef=0.1), env, **sizes)[0]
    level = learn(ppo(ent_coef=0.1, final_ent_coef=0.1, annealed_updates=2.0), env, **sizes)[0]
    for one, other in zip(
        jax.tree.leaves(plain.learner.params), jax.tree.leaves(level.learner.params), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_step_sizes_fall_to_their_share():
    env, key = probe("match"), jax.random.key(0)
    moved = []
    for share in (None, 1.0, 0.0):
        fields = {} if share is None else {"final_learning_share": share, "annealed_updates": 2.0}
        algo = ppo(num_epochs=1, num_minibatches=1, **fields)
        runners = [start(algo, env, key, 32)]
        for i in range(3):
            runners.append(jit_train(algo, env, runners[-1], key, jnp.arange(i, i + 1))[0])
        at = [jax.tree.leaves(runner.learner.params) for runner in runners]
        apart = lambda one, other: sum(float(jnp.abs(a - b).sum()) for a, b in zip(one, other, strict=True))
        moved.append([apart(*pair) for pair in itertools.pairwise(at)])
    plain, level, falling = moved
    np.testing.assert_allclose(level, plain, rtol=1e-4)
    np.testing.assert_allclose(falling[0], plain[0], rtol=1e-4)
    assert falling[1] < 0.7 * plain[1]
    assert falling[2] == 0


def test_annealing_needs_both_numbers():
    env = probe("match")
    for fields in ({"final_ent_coef": 0.1}, {"final_learning_share": 0.1}, {"annealed_updates": 5.0}):
        with pytest.raises(ValueError, match="give both or neither"):
            ppo(**fields).check(env)


def test_groups_need_whole_episodes_and_no_critic_of_others():
    env = dilemma(horizon=8)
    ppo((0, 1), group_size=2, num_steps=16).check(env)
    with pytest.raises(ValueError, match=r"whole episodes, algo\.num_steps=12 a multiple of the game's 8"):
        ppo((0, 1), group_size=2, num_steps=12).check(env)
    with pytest.raises(ValueError, match="fixed number of steps, which it has not"):
        ppo(group_size=2).check(probe("choice"))
    with pytest.raises(ValueError, match=r"algo\.group_critic=true: needs algo\.group_size above 1"):
        ppo((0, 1), group_critic=True).check(env)
    credit = SimpleNamespace(others_lambda=1.0)
    with pytest.raises(ValueError, match=r"needs algo\.credit\.others_lambda=null"):
        ppo((0, 1), group_size=2, credit=credit).check(env)


@pytest.mark.parametrize("separate", [False, True])
def test_the_critics_own_step_size_moves_nothing_but_the_critic(separate):
    """With a rate of 0 elsewhere (1e-30, for it divides), and Adam's first steps of one rate each."""
    env, key = probe("match"), jax.random.key(0)
    fields = {"separate_critic": separate, "num_epochs": 1, "num_minibatches": 1, "max_grad_norm": 1e9}
    algo = ppo(learning_rate=1e-30, critic_learning_rate=0.01, **fields)
    before = start(algo, env, key, 32)
    after, _ = jit_train(algo, env, before, key, jnp.arange(1))
    moved = jax.tree.map(
        lambda x, y: float(np.abs(x - y).max()), before.learner.params, after.learner.params
    )["params"]
    for name, parts in moved.items():
        steps = np.array(jax.tree.leaves(parts))
        if name.startswith("critic"):
            assert steps.max() == pytest.approx(0.01, rel=0.05), name
        else:
            assert (steps < 1e-20).all(), name


def test_a_critics_step_size_that_is_the_policys_changes_nothing():
    own, same = (
        learn(
            ppo(critic_learning_rate=rate), probe("match"), seed=0, num_envs=32, num_updates=3, num_steps=15
        )[0]
        for rate in (None, 1e-2)
    )
    for one, other in zip(
        jax.tree.leaves(own.learner.params), jax.tree.leaves(same.learner.params), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
