"""The estimator of LOQA and Advantage Alignment's Coin Game against its loss, by hand, and at work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from algos.advantage_alignment import AdvantageAlignment
from algos.loqa import LOQA, Learner
from algos.td import answer_prob
from marl.algorithm import Batch
from marl.learner import rollout, start
from marl.networks import MLP
from marl.past_policies import PastPlay
from tests.probes import Aim, Tempting, jit_rollout, jit_train, learn, probe
from tests.toys import commons, dilemma

KEY = jax.random.key(0)
GAMMA, DECAY, TEMPERATURE = 0.9, 0.8, 2.0
CREDIT = AdvantageAlignment(
    beta=1.0,
    past_decay=DECAY,
    others_lambda=1.0,
    form="discounted",
    extra_gamma=False,
    others="sum",
    removed=(),
)
SWITCH = pytest.mark.parametrize("normaliser_gradient", [True, False], ids=["LOQA", "AdAlign"])


def loqa(seats=(0, 0), core=0, credit=CREDIT, **changes):
    """A small LOQA; `core` is the width of the GRUs."""
    net = MLP(hidden=(16,), activation="tanh", core=core)
    fields = {
        "learning_rate": 1e-2,
        "critic_learning_rate": 1e-2,
        "gamma": GAMMA,
        "gae_lambda": 0.0,
        "epsilon": 0.0,
        "temperature": TEMPERATURE,
        "tau": 0.2,
        "ent_coef": 0.01,
        "max_grad_norm": 1.0,
        "num_steps": 6,
        "normalise": False,
        "normaliser_gradient": True,
        "time_input": True,
    }
    return LOQA(credit=credit, network=net, critic_network=net, seats=seats, **(fields | changes))


class Told(LOQA):
    """LOQA with values that are given instead of learnt."""

    values: tuple = struct.field(default=())

    def _data(self, env, learner, batch):
        return batch.extras

    def _values(self, env, critics, data):
        return self.values


def told(batch, pi, next_pi, q, next_q, **changes):
    """[T, E, A] credits of a batch of which only this is known."""
    fields = loqa(**changes)
    algo = Told(**{name: getattr(fields, name) for name in fields.__dataclass_fields__}, values=(q, next_q))
    return algo.credits(
        None, Learner(*[None] * 5), batch.replace(extras={"pi": pi, "next_pi": next_pi}), None
    )


def batch_of(reward, action, done=None, terminated=None):
    """A Batch of rewards [T, E, A] and actions [T, E, A], all else missing."""
    none = np.zeros(reward.shape[:2], bool)
    empty = dict.fromkeys(("obs", "action_mask", "extras", "bootstrap", "carry", "last", "last_carry"))
    done = none if done is None else done
    terminated = none if terminated is None else terminated
    return Batch(reward=reward, action=action, done=done, terminated=terminated, **empty)


def random_play(steps=5, games=3, num=3):
    """A batch [T, E, 2] and keyword arguments for `told`, of random numbers."""
    keys = jax.random.split(KEY, 4)
    shape = (steps + 1, games, 2, num)
    pi, q = jax.nn.softmax(jax.random.normal(keys[0], shape)), jax.random.normal(keys[1], shape)
    reward = jax.random.normal(keys[2], (steps, games, 2))
    action = jax.random.randint(keys[3], (steps, games, 2), 0, num)
    return batch_of(reward, action), {"pi": pi[:-1], "next_pi": pi[1:], "q": q[:-1], "next_q": q[1:]}


# The loss whose gradient it is.


def box(x):
    """The magic box: 1, whose gradient is that of x."""
    return jnp.exp(x - jax.lax.stop_gradient(x))


def loaded_dice_loss(log_prob, own, reward, advantage, end_value, q, action, beta, normaliser_gradient):
    """Loss of one game's first seat, [].

    log_prob [T] of its actions (to differentiate by), own [T] its advantages; of the other: reward [T],
    advantage [T] (return less critic), value [] of the last state, q [T, N] and action [T].
    """
    steps, returns = len(own), [end_value]
    for t in reversed(range(steps)):
        returns.insert(0, reward[t] + GAMMA * returns[0])
    total = 0.0
    for t in range(steps):
        influence = 0.0  # of the actions after t on the other's return from t + 1 on
        for k in range(t + 1, steps):
            node = box(log_prob[t + 1 : k + 1].sum()) - box(log_prob[t + 1 : k].sum())
            influence += (GAMMA * DECAY) ** (k - t - 1) * advantage[k] * node
        answer = (q[t].at[action[t]].set(reward[t] + GAMMA * (returns[t + 1] + influence))) / TEMPERATURE
        normaliser = jax.nn.logsumexp(answer)
        if not normaliser_gradient:
            normaliser = jax.lax.stop_gradient(normaliser)
        total += log_prob[t] * own[t] + beta * own[t] * (answer[action[t]] - normaliser)
    return -total / steps


@SWITCH
def test_the_weights_are_the_gradient_of_the_loaded_dice_loss(normaliser_gradient):
    batch, known = random_play()
    beta = 0.7
    found = told(batch, **known, credit=CREDIT.replace(beta=beta), normaliser_gradient=normaliser_gradient)
    value, next_value = ((known[pi] * known[q]).sum(-1) for pi, q in (("pi", "q"), ("next_pi", "next_q")))
    own = batch.reward + GAMMA * next_value - value
    for game in range(3):
        return_, returns = next_value[-1, game, 1], []
        for t in reversed(range(5)):
            return_ = batch.reward[t, game, 1] + GAMMA * return_
            returns.insert(0, return_)
        advantage = jnp.array(returns) - value[:, game, 1]
        others = (batch.reward[:, game, 1], advantage, next_value[-1, game, 1], known["q"][:, game, 1])
        slope = jax.grad(loaded_dice_loss)(
            jnp.linspace(-2.0, -0.5, 5),
            own[:, game, 0],
            *others,
            batch.action[:, game, 1],
            beta,
            normaliser_gradient,
        )
        np.testing.assert_allclose(found[:, game, 0], -5 * slope, rtol=1e-5, atol=1e-5)


def by_hand(**changes):
    """Three steps of one game; the policies always play action 0 and all values are 0."""
    zero, sure = jnp.zeros((3, 1, 2, 2)), jnp.zeros((3, 1, 2, 2)).at[..., 0].set(1.0)
    reward = jnp.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])[:, None]
    batch = batch_of(reward, jnp.zeros((3, 1, 2), jnp.int32))
    return told(batch, sure, sure, zero, zero, gamma=0.5, **changes)[:, 0, 0]


def test_three_steps_by_hand():
    """Own errors 1, 2, 3; the other's returns 8, 8, 6: gamma / temperature = 1/4, gamma decay = 0.4."""
    w = 0.25
    alignment = [1.0, 2.0 + w * 1.0 * 8.0, 3.0 + w * (0.4 * 1.0 + 2.0) * 6.0]
    np.testing.assert_allclose(by_hand(normaliser_gradient=False), alignment, rtol=1e-6)
    rest = 1 / (1 + np.exp(8.0 / 2))  # 1 - softmax((8, 0) / 2) at both earlier steps
    loqa_ = [1.0, 2.0 + w * rest * 8.0, 3.0 + w * (0.4 * rest + 2.0 * rest) * 6.0]
    np.testing.assert_allclose(by_hand(), loqa_, rtol=1e-5)


def test_the_answer_is_a_softmax_in_which_the_return_stands_for_the_value():
    q, return_ = jnp.array([[1.0, 9.0, 2.0]]), jnp.array([3.0])
    expected = np.exp(1.5) / (np.exp(0.5) + np.exp(1.5) + np.exp(1.0))
    assert float(answer_prob(q, jnp.array([1]), return_, temperature=2.0)[0]) == pytest.approx(expected)


def test_without_weight_it_is_a_plain_actor_critic():
    batch, known = random_play()
    found = told(batch, **known, credit=CREDIT.replace(beta=0.0))
    np.testing.assert_array_equal(found, told(batch, **known, credit=None))
    value, next_value = ((known[pi] * known[q]).sum(-1) for pi, q in (("pi", "q"), ("next_pi", "next_q")))
    np.testing.assert_allclose(found, batch.reward + GAMMA * next_value - value, rtol=1e-5, atol=1e-6)


@SWITCH
def test_nothing_crosses_the_end_of_an_episode(normaliser_gradient):
    batch, known = random_play()
    batch = batch.replace(done=jnp.zeros((5, 3), bool).at[2].set(True))
    of = lambda reward: told(batch.replace(reward=reward), **known, normaliser_gradient=normaliser_gradient)
    plain = of(batch.reward)
    before, after = of(batch.reward.at[:3].add(5.0)), of(batch.reward.at[3:].add(5.0))
    np.testing.assert_array_equal(plain[3:], before[3:])
    np.testing.assert_array_equal(plain[:3], after[:3])
    assert np.abs(plain - before)[:3].max() > 1
    assert np.abs(plain - after)[3:].max() > 1


# Critics.


@pytest.mark.parametrize("core", [0, 4], ids=["feed-forward", "gru"])
def test_targets_step_by_step(core):
    """Episodes of 3 steps, 9 a batch: Q of the next action, or of the policy in the state that was cut."""
    env, algo = dilemma(3), loqa(core=core, num_steps=9, epsilon=0.5)
    runner = start(algo, env, KEY, 4)
    learner = runner.learner.replace(target=jax.tree.map(lambda x: x + 0.3, runner.learner.target))
    _, batch, _ = jit_rollout(algo, env, runner.replace(learner=learner), KEY, 0, 9)
    data = jax.tree.map(lambda x: x.reshape(*x.shape[:1], 8, *x.shape[3:]), algo._data(env, learner, batch))
    target = jax.tree.map(lambda x: x[0], learner.target)
    found = algo._goal(env, target, data)
    critic = functools.partial(algo._critic(env).apply, target)
    no = jnp.zeros((1, 8), bool)
    for t in range(9):
        if t % 3 == 0:
            memory = jnp.zeros((8, core)) if core else ()
        seen = lambda obs, time: {"vector": jnp.concatenate([obs, np.full((8, 1), time / 3)], -1)[None]}
        now = batch.obs["vector"][t].reshape(8, 4)
        memory = jax.tree.map(lambda x: x[0], critic(memory, seen(now, t % 3), no)[0])
        cut = t % 3 == 2
        then = (batch.bootstrap["obs"]["vector"][t] if cut else batch.obs["vector"][t + 1]).reshape(8, 4)
        q = critic(memory, seen(then, t % 3 + 1), no)[1][0]
        taken = batch.action[min(t + 1, 8)].reshape(8)
        value = (q * batch.bootstrap["pi"][t].reshape(8, 2)).sum(-1) if cut else q[np.arange(8), taken]
        np.testing.assert_allclose(found[t], batch.reward[t].reshape(8) + GAMMA * value, rtol=2e-5)


def test_a_termination_is_worth_nothing_and_an_open_end_its_policys_value():
    env, algo = commons(num_seats=2, horizon=0, end_prob=0.3), loqa(normaliser_gradient=False)
    runner = start(algo, env, KEY, 16)
    _, batch, _ = jit_rollout(algo, env, runner, KEY, 0, 6)
    data = jax.jit(algo._data)(env, runner.learner, batch)
    ended = np.asarray(batch.terminated)
    assert ended.any()
    assert not ended.all()
    data = jax.tree.map(lambda x: x.reshape(*x.shape[:1], 32, *x.shape[3:]), data)
    goal = algo._goal(env, jax.tree.map(lambda x: x[0], runner.learner.target), data).reshape(6, 16, 2)
    np.testing.assert_array_equal(goal[ended], batch.reward[ended])
    open_end = ~ended[-1]
    choice, pi = (np.asarray(data[k]).reshape(6, 16, 2, 3)[-1, open_end] for k in ("next_choice", "next_pi"))
    np.testing.assert_array_equal(choice, pi)


def test_the_target_critic_follows_and_only_the_actor_acts():
    env, algo = dilemma(3), loqa(num_steps=3)
    runner = start(algo, env, KEY, 4)
    after, (_, metrics) = jit_train(algo, env, runner, KEY, jnp.arange(1))
    mix = jax.tree.map(lambda old, new: 0.8 * old + 0.2 * new, runner.learner.critic, after.learner.critic)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), mix, after.learner.target
    )
    acting = algo.for_acting(after.learner)
    assert jax.tree.leaves(acting) == jax.tree.leaves(after.learner.actor)
    assert isinstance(acting, Learner)
    assert np.isfinite([float(x[0]) for x in metrics.values()]).all()


# At work.


@pytest.mark.parametrize("core", [0, pytest.param(8, marks=pytest.mark.slow)], ids=["feed-forward", "gru"])
@pytest.mark.parametrize("name", ["choice", "match"])
def test_the_better_action_is_found(core, name):
    algo = loqa(seats=(0,), core=core, credit=None, num_steps=8, time_input=False)
    _, _, batch = learn(algo, probe(name), seed=0, num_envs=32, num_updates=120, num_steps=15)
    assert batch.reward.mean() > 0.95


def test_only_memory_recalls_a_cue():
    algo = loqa(seats=(0,), core=8, credit=None, num_steps=9, time_input=False)
    _, _, batch = learn(algo, probe("recall"), seed=0, num_envs=32, num_updates=200, num_steps=15)
    assert 3 * float(batch.reward.mean()) > 0.9


def test_forbidden_actions_are_never_played_even_in_exploration():
    algo = loqa(seats=(0,), credit=None, num_steps=8, time_input=False, epsilon=0.2)
    _, _, batch = learn(algo, Tempting(num_seats=1), seed=0, num_envs=32, num_updates=60, num_steps=15)
    assert batch.reward.max() <= 1
    assert batch.reward.mean() > 0.8  # 1 - epsilon / 2 is the best


def test_exploration_is_uniform_and_greedy_play_has_none():
    env, algo = dilemma(3), loqa(epsilon=1.0)
    runner = start(algo, env, KEY, 2000)
    act = functools.partial(algo.act, env, runner.learner, runner.carry, runner.ts, KEY)
    action, carry, extras = act()
    assert abs(float(action.mean()) - 0.5) < 0.04
    assert len(set(np.asarray(act(greedy=True)[0]).ravel().tolist())) == 1
    np.testing.assert_allclose(extras["pi"], 0.5, atol=0.1)
    np.testing.assert_array_equal(carry.time, 1.0)


@jax.jit
def after_one_update(algo, env, spoil):
    """Actor parameters after one update of a batch with 7 more reward where `spoil` [E, A]."""
    runner = start(algo, env, KEY, 4)
    _, batch, _ = rollout(algo, env, runner, KEY, 0, algo.num_steps)
    batch = batch.replace(reward=batch.reward + 7.0 * spoil)
    learner = algo.update(env, runner.learner, batch, KEY)[0]
    return getattr(learner, "current", learner).actor


def changed(a, b):
    return any(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x != y).any()), a, b)))


@pytest.mark.parametrize("past", [False, True], ids=["independent", "past"])
def test_the_others_rewards_count_in_the_credit_alone(past):
    """Against the past only seat (game mod 2) learns, yet the snapshot's reward moves it; not if beta is 0."""
    env = dilemma(3)
    learns = np.arange(2) == np.arange(4)[:, None] % 2
    spoil = ~learns if past else np.broadcast_to([False, True], (4, 2))
    for beta, moves in ((1.0, True), (0.0, False)):
        algo = loqa(seats=(0, 0) if past else (0, 1), credit=CREDIT.replace(beta=beta), num_steps=3)
        algo = (
            PastPlay(algo=algo, size=2, push_every=1, current_fraction=0.0, games_per_snapshot=1)
            if past
            else algo
        )
        plain, spoilt = (after_one_update(algo, env, x) for x in (np.zeros((4, 2), bool), spoil))
        first = (plain, spoilt) if past else jax.tree.map(lambda x: x[0], (plain, spoilt))
        assert changed(*first) == moves


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="algo loqa needs Discrete actions"):
        loqa(seats=(0,), credit=None).check(Aim(num_seats=1))
    with pytest.raises(ValueError, match=r"algo.normaliser_gradient=true: must be false unless two seats"):
        loqa(seats=(0, 0, 0)).check(commons(num_seats=3))
    with pytest.raises(ValueError, match=r"algo.credit: needs at least two learning seats"):
        loqa(seats=(0,)).check(dilemma())
    loqa(seats=(0, 0, 0), normaliser_gradient=False).check(commons(num_seats=3))
