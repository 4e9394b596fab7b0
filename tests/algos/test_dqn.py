import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from algos.replay import add, draw, empty, take
from algos.td import epsilon_at, q_loss, q_optimizer, q_target
from envs.mechanisms.punishment import Punishment
from marl.build import load
from marl.heads import QNetwork
from marl.learner import rollout, start
from marl.networks import MLP, MeanCNN
from tests.probes import GAMMA, Aim, Tempting, dqn, jit_train, learn, probe
from tests.toys import dilemma

KEY = jax.random.key(0)
NETWORKS = pytest.mark.parametrize("core", [0, 8], ids=["feed-forward", "gru"])


def play(algo, env, num_updates=60):
    """The Batch [T=15, E=32, A] of play after training; 15 steps are whole episodes of every probe."""
    return learn(algo, env, seed=0, num_envs=32, num_updates=num_updates, num_steps=15)[2]


def mean_value(batch, **seen):
    """Mean value of the best action over the steps in which exactly this was seen."""
    vector = np.asarray(batch.obs["vector"])
    where = np.ones(vector.shape[:-1], bool)
    for name, value in seen.items():
        where &= vector[..., ("cue", "later").index(name)] == value
    assert where.any()
    return float(np.asarray(batch.extras["value"])[where].mean())


def two_actions(name):
    """A standard probe, with two actions even where they do nothing, so that all share a program."""
    return probe(name).replace(num_actions=2)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# The ring.


@pytest.mark.parametrize(("capacity", "num"), [(12, 4), (10, 4), (5, 7)], ids=["blocks", "wraps", "too many"])
def test_the_ring_holds_what_a_slow_loop_holds(capacity, num):
    replay = empty({"x": jnp.int32(0), "y": jnp.zeros(2)}, capacity)
    slots, position = [None] * capacity, 0
    for turn in range(7):
        items = np.arange(turn * num, (turn + 1) * num)
        replay = jax.jit(add)(
            replay, {"x": jnp.asarray(items, jnp.int32), "y": jnp.float32(np.stack([items, -items], 1))}
        )
        for item in items[-capacity:]:
            slots[position] = item
            position = (position + 1) % capacity
        held = sum(slot is not None for slot in slots)
        assert (int(replay.size), int(replay.position)) == (held, position)
        expected = np.array([0 if slot is None else slot for slot in slots])
        np.testing.assert_array_equal(replay.data["x"], expected)
        np.testing.assert_array_equal(replay.data["y"], np.stack([expected, -expected], 1))


def test_the_ring_takes_only_what_is_marked():
    replay, slots, position = empty(jnp.int32(0), 7), [0] * 7, 0
    for turn in range(9):
        items = np.arange(10 * turn, 10 * turn + 4)
        keep = np.array([turn % 2, 1, turn % 3 == 0, turn % 5 > 1], bool)
        replay = jax.jit(add)(replay, jnp.asarray(items, jnp.int32), jnp.asarray(keep))
        for item in items[keep]:
            slots[position] = item
            position = (position + 1) % 7
        assert replay.data.tolist() == slots
        assert int(replay.position) == position
    assert int(replay.size) == 7


def test_draws_are_uniform_over_what_the_ring_holds():
    replay = add(empty(jnp.float32(0), 10), jnp.array([5.0, 6.0, 7.0, 8.0]))
    found = take(replay, draw(replay, KEY, (20_000,)))
    share = np.bincount(np.asarray(found, int), minlength=10) / 20_000
    expected = [0, 0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25, 0]
    np.testing.assert_allclose(share, expected, atol=0.0123)  # 4 standard errors


# Formulas.


def test_steps_by_signs_move_each_parameter_by_the_learning_rate():
    optimizer = q_optimizer(0.1, 1.0, 0.5, "sign")
    grads = jnp.array([3.0, -1e-6, 0.0])
    for _ in range(2):  # nothing is remembered
        updates, _ = optimizer.update(grads, optimizer.init(grads))
        np.testing.assert_allclose(updates, [-0.1, 0.1, 0.0], rtol=1e-6)


def test_gradients_are_cut_to_a_norm_and_then_number_by_number():
    """Of (3, 4) with norm 1 there is (.6, .8), cut at .7 (.6, .7); Adam keeps a tenth of it."""
    optimizer = q_optimizer(1.0, 1.0, 0.7, "adam")
    state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(jnp.zeros(2)))[1]
    np.testing.assert_allclose(optax.tree.get(state, "mu"), [0.06, 0.07], rtol=1e-6)


def test_targets_by_hand():
    """Online values prefer action 2, then 1; the target network prefers 0. Action 2 is illegal in row 3."""
    online = jnp.tile(jnp.array([1.0, 2.0, 3.0]), (4, 1))
    target = jnp.tile(jnp.array([9.0, 5.0, 4.0]), (4, 1))
    reward, terminated = jnp.array([1.0, 1.0, 1.0, 1.0]), jnp.array([False, True, False, False])
    mask = jnp.array([[1, 1, 1], [0, 0, 0], [1, 1, 0], [0, 1, 1]], bool)
    of = functools.partial(q_target, reward=reward, terminated=terminated, gamma=0.5)
    assert of(online, target, mask).tolist() == [3.0, 1.0, 3.5, 3.0]  # double
    assert of(target, target, mask).tolist() == [5.5, 1.0, 5.5, 3.5]
    assert of(target, target, None).tolist() == [5.5, 1.0, 5.5, 5.5]


def test_losses_by_hand():
    q, action = jnp.array([[0.0, 1.0], [2.0, 0.0]]), jnp.array([1, 0])
    target = jnp.array([1.5, 5.0])  # errors 0.5 and 3
    loss, metrics = q_loss(q, action, target, kind="huber")
    assert float(loss) == pytest.approx((0.5 * 0.25 + 2.5) / 2)
    assert {k: float(v) for k, v in metrics.items()} == pytest.approx(
        {"td": 1.3125, "td_error": 1.75, "q": 1.5}
    )
    assert float(q_loss(q, action, target, kind="mse")[0]) == pytest.approx((0.125 + 4.5) / 2)


def test_epsilon_falls_as_scheduled():
    at = lambda schedule: epsilon_at(jnp.array([0, 25, 50, 100, 900]), 0.9, 0.1, 100.0, schedule)
    np.testing.assert_allclose(at("linear"), [0.9, 0.7, 0.5, 0.1, 0.1], rtol=1e-5)
    left = np.exp([0, -0.25, -0.5, -1, -9])
    np.testing.assert_allclose(at("exponential"), 0.1 + 0.8 * left, rtol=1e-5)


def test_a_duelling_head_adds_differences_of_mean_zero_to_the_value_of_the_state():
    net = QNetwork(MLP(hidden=(8,), activation="tanh", core=0), num_actions=3, dueling=True)
    obs, start = {"vector": jax.random.normal(KEY, (1, 5, 4))}, jnp.zeros((1, 5), bool)
    params = net.init(KEY, (), obs, start)
    q = net.apply(params, (), obs, start)[1]
    heads = params["params"]
    shifted = {"params": heads | {"actions": heads["actions"] | {"bias": jnp.full(3, 7.0)}}}
    np.testing.assert_allclose(net.apply(shifted, (), obs, start)[1], q, atol=1e-5)
    stateless = {"params": heads | {"state": jax.tree.map(jnp.zeros_like, heads["state"])}}
    differences = net.apply(stateless, (), obs, start)[1]
    np.testing.assert_allclose(differences.mean(-1), 0.0, atol=1e-6)
    assert np.ptp(q - differences, axis=-1).max() < 1e-5  # the same for all actions: the state's value
    assert np.ptp(q.mean(-1)) > 0.1


# Each standard probe, by name.


@pytest.mark.parametrize("core", [0, pytest.param(8, marks=pytest.mark.slow)], ids=["feed-forward", "gru"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("constant", {(0, 0): 1.0}),
        ("sign", {(1, 0): 1.0, (-1, 0): -1.0}),
        ("delayed", {(0, 0): GAMMA, (0, 1): 1.0}),
        ("cut", {(0, 0): GAMMA / (1 - GAMMA), (0, 1): 1 / (1 - GAMMA)}),
        ("choice", {(0, 0): 1.0}),
        ("match", {(1, 0): 1.0, (-1, 0): 1.0}),
    ],
)
def test_values_of_the_probes(core, name, values):
    """`cut` is worth less than 3 later if its truncation is read as an end, 7.6 if as the restarted state."""
    batch = play(dqn(core=core), two_actions(name))
    for (cue, later), value in values.items():
        assert mean_value(batch, cue=cue, later=later) == pytest.approx(value, abs=0.05)
    if name in ("choice", "match"):
        assert (np.asarray(batch.reward) == 1).all()


@NETWORKS
def test_only_memory_recalls_a_cue(core):
    """160 episodes of chance: the mean reward lies within 0.3 of 0 (four standard deviations)."""
    batch = play(dqn(core=core), probe("recall"))
    per_episode = 3 * float(batch.reward.mean())
    if core:
        assert per_episode > 0.98
        assert mean_value(batch, cue=1) == pytest.approx(GAMMA**2, abs=0.05)
    else:
        assert abs(per_episode) < 0.3


def test_illegal_actions_are_neither_explored_nor_valued():
    """Forbidden actions would pay 10."""
    _, (tally, _), batch = learn(
        dqn(), Tempting(num_seats=1), seed=0, num_envs=32, num_updates=60, num_steps=15
    )
    reward = np.asarray(tally.reward)[:, 0] / np.asarray(tally.steps)
    assert (reward <= 1).all()
    assert reward[0] == pytest.approx(0.5, abs=0.125)  # 256 random legal moves: 4 standard errors
    cue = np.asarray(batch.obs["vector"])[..., 0]
    np.testing.assert_array_equal(batch.action, np.where(cue > 0, 2, 3))
    np.testing.assert_allclose(batch.extras["value"], 1.0, atol=0.05)


# Seats.


def test_each_type_learns_its_role():
    runner, _, batch = learn(
        dqn((0, 1, 0, 1)), probe("roles", num_seats=4), seed=0, num_envs=32, num_updates=60, num_steps=15
    )
    assert (np.asarray(batch.reward) == 1).all()
    kernel = np.asarray(runner.learner.networks.params["params"]["actions"]["kernel"])  # [P, M, H, N]
    assert kernel.shape == (2, 1, 16, 2)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1
    assert runner.learner.replay.data["reward"].shape == (2, 8192, 1)  # 16 rollouts of 2 seats


# The update itself.


def small(**changes):
    """A DQN whose replay holds three rollouts of 256: 768 of the 800 transitions asked for."""
    return dqn(buffer_size=800, **changes)


def fresh(**changes):
    """The runner before the probe `match`."""
    return start(small(**changes), probe("match"), KEY, 32)


def trained(first=None, updates=(0, 1), **changes):
    """The runner after two updates, which take 32 gradient steps."""
    first = first or fresh(**changes)
    return jit_train(small(**changes), probe("match"), first, KEY, jnp.array(updates))[0]


def test_four_updates_are_two_and_two():
    """The third fills the replay, and then it learns, although it never holds 800."""
    whole = trained(updates=(0, 1, 2, 3), learning_starts=800)
    half = trained(learning_starts=800)
    equal(whole, trained(half, updates=(2, 3), learning_starts=800))
    assert whole.learner.replay.data["reward"].shape == (1, 768, 1)
    assert (half.learner.num_gradients.tolist(), whole.learner.num_gradients.tolist()) == ([0], [2 * 16])
    assert whole.learner.num_steps.tolist() == [4 * 8 * 32]


def test_nothing_is_learned_before_the_replay_is_filled():
    waiting, done = (trained(learning_starts=n).learner for n in (513, 512))
    equal(fresh().learner.networks, waiting.networks)
    assert waiting.replay.size.tolist() == [512]
    assert (waiting.num_gradients.tolist(), done.num_gradients.tolist()) == ([0], [16])
    assert np.abs(done.networks.params["params"]["actions"]["bias"]).max() > 0


def test_the_target_network_is_a_copy_or_an_average():
    old = fresh().learner.networks.target
    copied = trained(target_every=32).learner.networks
    equal(copied.target, copied.params)
    equal(trained(target_every=33).learner.networks.target, old)
    average = trained(target_every=32, tau=0.25).learner.networks
    expected = jax.tree.map(lambda new, old: 0.25 * new + 0.75 * old, average.params, old)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), average.target, expected)


def test_acting_explores_as_often_as_epsilon_says_and_greedy_play_never():
    algo, env = dqn(epsilon_start=0.4), probe("match")
    runner = start(algo, env, KEY, 20_000)
    act = jax.jit(algo.act, static_argnames="greedy")
    best = act(env, runner.learner, (), runner.ts, KEY, greedy=True)[0]
    sampled = act(env, algo.for_acting(runner.learner), (), runner.ts, KEY)[0]
    assert (best != sampled).mean() == pytest.approx(0.2, abs=0.0114)  # half of the random moves; 4 s.e.


def test_the_state_reached_is_replayed_as_it_was_before_the_restart():
    env, algo = two_actions("cut"), dqn()
    batch = play(algo, env)
    items = algo._items(env, batch)  # in the order of time, then games
    later = np.asarray(items["next_obs"]["vector"])[0, :, 0, 1].reshape(15, 32)
    assert (later == 1).all()  # a restarted state shows 0
    assert (np.asarray(batch.obs["vector"])[:, :, 0, 1] == 0).mean() == pytest.approx(4 / 15)


def test_the_stored_state_gives_the_values_of_play_again():
    """Also where episodes begin within a rollout."""
    algo, env = dqn(core=8), two_actions("recall")
    runner, _, batch = learn(algo, env, seed=0, num_envs=32, num_updates=60, num_steps=15)
    items = algo.replace(num_steps=15)._items(env, batch)
    items, params = jax.tree.map(lambda x: x[0], (items, runner.learner.networks.params))
    obs, start = jax.tree.map(lambda x: x.swapaxes(0, 1), (items["obs"], items["start"]))
    q = algo._values(env, params, items["carry"], obs, start)[1]
    np.testing.assert_allclose(q.max(-1), batch.extras["value"][..., 0], atol=1e-5)


def sequences(algo, env, seed=0):
    """Parameters and target [M, ...] of a fresh learner, and items [B=3, L=8, ...] with random contents."""
    rng = np.random.default_rng(seed)
    runner = start(algo, env, KEY, 3)
    networks, data = jax.tree.map(lambda x: x[0], (runner.learner.networks, runner.learner.replay.data))
    fill = lambda x: (
        rng.normal(size=(3, *x.shape[1:])) if x.dtype == jnp.float32 else rng.random((3, *x.shape[1:])) < 0.4
    )
    items = jax.tree.map(lambda x: jnp.asarray(fill(x), x.dtype), data)
    target = jax.tree.map(lambda x: x + 0.3, networks.params)
    return networks.params, target, items


@pytest.mark.parametrize(("burn_in", "double"), [(0, False), (3, True)])
def test_the_loss_of_sequences_is_that_of_a_slow_loop(burn_in, double):
    algo, env = dqn(core=8, burn_in=burn_in, double=double), two_actions("recall")
    params, target, items = sequences(algo, env)
    found = jax.jit(lambda *x: algo._loss(env, *x)[0])(params, target, items)
    apply = jax.jit(algo._net(env).apply)
    nets, no = [jax.tree.map(lambda x: x[0], p) for p in (params, target)], jnp.zeros((1, 3), bool)
    data = jax.tree.map(np.asarray, items)
    carries, losses = [data["carry"][:, 0]] * 2, []
    for time in range(8):
        now, later = ({"vector": data[k]["vector"][None, :, time]} for k in ("obs", "next_obs"))
        carries = [np.asarray(c) * ~data["start"][:, time, None] for c in carries]
        states = [apply(p, c, now, no) for p, c in zip(nets, carries, strict=True)]
        carries = [s[0][0] for s in states]
        ahead = [np.asarray(apply(p, c, later, no)[1][0]) for p, c in zip(nets, carries, strict=True)]
        for i in range(3):
            legal = np.flatnonzero(data["next_mask"][i, time]) if data["next_mask"][i, time].any() else [0]
            best = max(legal, key=lambda a, i=i, ahead=ahead: ahead[0 if double else 1][i, a])
            future = 0.0 if data["terminated"][i, time] else GAMMA * ahead[1][i, best]
            value = states[0][1][0, i, data["action"][i, time]]
            error = abs(float(data["reward"][i, time] + future - value))
            losses += [0.5 * error**2 if error < 1 else error - 0.5] * (time >= burn_in)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


# Stages.


def staged(num_rounds=4):
    """A dilemma with two stages of punishment after each round: three kinds of step."""
    inner = Punishment(env=dilemma(num_rounds), cost=1.0, fine=3.0, mode="stage", idle=0)
    return Punishment(env=inner, cost=1.0, fine=3.0, mode="stage", idle=0)


def staged_items(algo, env, stage, next_stage):
    """As `sequences`, feed-forward [B=3, L=1], all in one stage."""
    params, target, items = sequences(algo, env)
    put = lambda obs, stage: obs | {"stage": jnp.full((3, 1), stage, jnp.int32)}
    items["next_mask"] = jnp.ones_like(items["next_mask"])
    return (
        params,
        target,
        items | {"obs": put(items["obs"], stage), "next_obs": put(items["next_obs"], next_stage)},
    )


def test_a_game_of_stages_tells_them():
    env = staged()
    env.check()
    assert env.num_stages == 3
    runner = start(dqn((0, 1)), env, KEY, 2)
    state, stages = jax.tree.map(lambda x: x[0], runner.state), [int(runner.ts.obs["stage"][0, 0])]
    step = jax.jit(env.step)
    for _ in range(4):
        state, ts = step(KEY, state, jnp.array([0, 0]))
        stages.append(int(ts.obs["stage"][0]))
    assert stages == [0, 2, 1, 2, 0]


@functools.cache
def staged_loss():
    """Jitted (loss, gradient) of the parameters, for any target network; and those of a fresh learner."""
    algo, env = dqn((0, 1), by_stage=True, loss="mse"), staged()
    params, target, items = staged_items(algo, env, 1, 2)
    items |= {"terminated": jnp.zeros((3, 1), bool)}
    loss = lambda params, target: algo._loss(env, params, target, items)[0]
    return jax.jit(jax.value_and_grad(loss)), params, target


def test_samples_of_a_stage_change_only_the_network_of_that_stage():
    loss, params, target = staged_loss()
    grads = jax.tree.leaves(loss(params, target)[1])
    for size in (np.abs(np.asarray(g)).reshape(3, -1).max(1) for g in grads):
        assert (size > 0).tolist() == [False, True, False]


def test_the_target_is_that_of_the_next_stages_network():
    """A target network that says s more moves the target by gamma s: the loss bends by gamma squared."""
    loss, params, target = staged_loss()

    def shifted(stage, by):
        heads = target["params"]
        bias = heads["actions"]["bias"].at[stage].add(by)
        moved = {"params": heads | {"actions": heads["actions"] | {"bias": bias}}}
        return float(loss(params, moved)[0])

    assert shifted(0, 1.0) == shifted(1, 1.0) == shifted(2, 0.0)
    assert shifted(2, 1.0) - 2 * shifted(2, 0.0) + shifted(2, -1.0) == pytest.approx(GAMMA**2, rel=1e-3)


def test_every_stage_has_its_learning_rate_and_its_epsilon():
    rates, epsilon = np.array([1e-2, 0.0, 1e-3], np.float32), np.array([0.0, 1.0, 0.5], np.float32)
    algo = dqn((0, 1), by_stage=True, learning_rate=rates, epsilon_start=epsilon, epsilon_end=epsilon)
    env = staged()
    algo.check(env)
    first = start(algo, env, KEY, 32)
    runner = jit_train(algo, env, first, KEY, jnp.arange(1))[0]
    moved = jax.tree.map(
        lambda a, b: np.abs(np.asarray(a - b)).reshape(2, 3, -1).max((0, 2)),
        runner.learner.networks.params,
        first.learner.networks.params,
    )
    for per_stage in jax.tree.leaves(moved):
        assert per_stage[1] == 0
        assert per_stage[0] > per_stage[2] > 0
    count = runner.learner.networks.opt_state[1][0].count
    assert count.tolist() == [[16] * 3] * 2


# What is refused.


def test_bad_fields_and_unsuited_games_are_named():
    env = probe("match")
    cases = [
        (dqn(), Aim(num_seats=1), "algo dqn needs Discrete actions, not Box"),
        (dqn(loss="l1"), env, "algo.loss=l1: must be one of huber, mse"),
        (dqn(epsilon_schedule="step"), env, "algo.epsilon_schedule=step: must be one of linear, exponential"),
        (dqn(learning_starts=9000), env, "algo.learning_starts=9000: must be at most algo.buffer_size=8192"),
        (dqn(burn_in=8), env, "algo.burn_in=8: must be at least 0 and below algo.num_steps=8"),
        (dqn(learning_rate=np.ones(2)), env, r"algo.learning_rate=\[1.0, 1.0\]: must be one number"),
        (
            dqn(by_stage=True, epsilon_end=np.ones(2)),
            staged(),
            r"algo.epsilon_end=.*: must be one number or 3, one a stage",
        ),
    ]
    for algo, game, message in cases:
        with pytest.raises(ValueError, match=message):
            algo.check(game)
    dqn(epsilon_end=np.zeros(1)).check(env)


def test_only_decisions_are_kept_and_counted_and_a_death_is_terminal():
    """A crowd in which seats die and come back: two learners, one for each kind."""
    env = load("env=schelling_small", "env.max_age=6.0", "env.radius=1", "env.num_per_kind=20").env
    net = MeanCNN(features=(4,), hidden=(), activation="relu", core=0)
    algo = dqn(env.seat_types, network=net, num_steps=3, buffer_size=600, decisions_only=True)
    runner = start(algo, env, KEY, 1)
    _, batch, _ = jax.jit(lambda r: rollout(algo, env, r, KEY, 0, 30))(runner)
    learner = jax.jit(lambda b: algo.update(env, runner.learner, b, KEY)[0])(batch)
    decided = np.asarray(batch.action_mask).sum(-1)[:, 0] > 1  # [T, A]
    count = [decided[:, :20].sum(), decided[:, 20:].sum()]
    assert decided.sum() < decided.size
    assert learner.num_steps.tolist() == count
    assert learner.replay.size.tolist() == count
    died = np.asarray(batch.terminated)[:, 0]  # [T, A]
    stored = np.asarray(learner.replay.data["terminated"])[0, : count[0], 0]
    np.testing.assert_array_equal(stored, died[:, :20][decided[:, :20]])
    assert stored.sum() > 0
    assert (np.asarray(batch.ends)[:, 0] == died).all()
