"""Q-learning a stage: what is kept, who learns when, by hand and against a numpy step; and values that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.stage_dqn import all_inputs, q_values
from marl.build import load
from marl.learner import rollout, start
from marl.validation import ConfigError

KEY = jax.random.key(0)
SMALL = ("env=population_game", "algo=stage_dqn", "num_envs=1", "algo.hidden=8", "algo.batch_size=4")
SMALL += ("algo.buffer_size=[64,64,64]", "env.rounds=2", "env.horizon=50")
PUNISHED = (*SMALL, "algo.num_steps=4", "env.punishment.kind=both", "env.reputation.updated_by=both")


class Training:
    """Rounds of a configuration, one at a time, with what they left behind."""

    def __init__(self, *overrides):
        setup = load(*overrides)
        self.env, self.algo = setup.env, setup.algo
        self.runner = start(self.algo, self.env, KEY, 1)
        self._round = jax.jit(self._play)
        self.time = 0

    def _play(self, runner, key, clock):
        play_key, learn_key = jax.random.split(key)
        runner, batch, _ = rollout(self.algo, self.env, runner, play_key, clock, self.algo.num_steps)
        learner, metrics = self.algo.update(self.env, runner.learner, batch, learn_key)
        return runner.replace(learner=learner), batch, metrics

    def round(self):
        before = self.runner.learner
        self.time += 1
        clock = (self.time - 1) * self.algo.num_steps
        self.runner, batch, _ = self._round(self.runner, jax.random.fold_in(KEY, self.time), clock)
        batch = batch.replace(last=(), carry=(), last_carry=(), terminated=(), done=())
        return before, self.runner.learner, jax.tree.map(lambda x: np.asarray(x)[:, 0], batch)


@pytest.fixture(scope="module")
def punished():
    training = Training(*PUNISHED)
    return training, [training.round() for _ in range(40)]


def pair(batch):
    role = batch.obs["role"][1]
    return int((role == 1).argmax()), int((role == 2).argmax())


def last_rows(net, seat):
    return np.asarray(net.replay)[seat, int(net.size[seat]) - 1]


def test_both_players_keep_their_moves_with_all_they_brought(punished):
    training, rounds = punished
    _, after, batch = rounds[0]
    start, stop = training.env.stage_columns[1]
    for seat in pair(batch):
        seen, row = batch.obs["vector"][1, seat, start:stop], last_rows(after.nets[1], seat)
        decides = batch.action_mask[:, seat].sum(-1) > 1
        earned = batch.reward[1, seat] + sum(batch.reward[t, seat] for t in (2, 3) if not decides[t])
        assert row[: stop - start].tolist() == seen.tolist()
        assert row[stop - start :][:3].tolist() == [batch.action[1, seat], earned, 0]
    assert after.nets[1].size.sum() == 2


def test_punishers_keep_what_punishing_brought_them(punished):
    _, rounds = punished
    for before, after, batch in rounds[:5]:
        decides = batch.action_mask[2:].sum(-1) > 1
        assert decides.sum() == 4, "the other player and a third party, of two moves"
        added = after.nets[2].size - before.nets[2].size
        assert added.tolist() == decides.sum(0).tolist()
        t, seat = 3, int(decides[1].argmax())
        reward = batch.reward[t, seat]
        assert last_rows(after.nets[2], seat)[-3:].tolist() == [batch.action[t, seat], reward, 0]
        assert reward in (0, 2, -10)


def test_the_host_alone_learns_to_select_and_from_every_round(punished):
    _, rounds = punished
    seen, chose = np.zeros((5, 5)), np.zeros(5)
    for before, after, batch in rounds[:25]:
        host, _ = pair(batch)
        chooses = batch.action_mask[0].sum(-1) > 1
        seen[chooses], chose[chooses] = batch.obs["vector"][0, chooses, :5], batch.action[0, chooses]
        added = np.asarray(after.nets[0].size - before.nets[0].size)
        assert added.tolist() == [int(seat == host) for seat in range(5)]
        row = last_rows(after.nets[0], host)
        assert row[:6].tolist() == [*seen[host], chose[host]]


def test_nobody_else_changes(punished):
    _, rounds = punished
    before, after, _ = rounds[-1]
    for stage, net in enumerate(after.nets):
        grew = np.asarray(net.size > before.nets[stage].size)
        changed = np.asarray((net.params != before.nets[stage].params).any(1))
        assert (changed == (grew & np.asarray(net.size >= 4))).all()


def test_exploration_falls_to_its_floor_in_four_gradient_steps(punished):
    _, rounds = punished
    move = [learner.nets[1] for _, learner, _ in rounds]
    seen = {
        int(n): round(float(e), 4)
        for net in move
        for n, e in zip(net.num_gradients, net.epsilon, strict=True)
    }
    step = (0.8889 - 0.01) * 0.30006666666666665
    assert [seen[n] for n in range(4)] == [round(0.8889 - n * step, 4) for n in range(4)]
    assert seen[4] == 0.01


def numpy_step(params, target, row, gamma, rate, sizes):
    """One step of gradient descent by hand on a batch of equal rows: Adam's first step is rate * sign."""
    inputs, hidden, outputs = sizes
    first = params[: (inputs + 1) * hidden].reshape(inputs + 1, hidden)
    second = params[(inputs + 1) * hidden : -outputs].reshape(outputs, hidden)
    z = np.append(row[:inputs], 1) @ first
    h = np.maximum(z, 0)
    action, reward, ended = int(row[inputs]), row[inputs + 1], row[inputs + 2]
    ahead = np.asarray(q_values(jnp.asarray(target), sizes, jnp.asarray(row[None, inputs + 3 :])))[0].max()
    error = np.clip((h @ second.T + params[-outputs:])[action] - reward - gamma * (1 - ended) * ahead, -1, 1)
    g_second, g_bias = np.zeros_like(second), np.zeros(outputs)
    g_second[action], g_bias[action] = error * h, error
    g_first = np.outer(np.append(row[:inputs], 1), error * second[action] * (z > 0))
    grads = np.concatenate([g_first.ravel(), g_second.ravel(), g_bias])
    return params - rate * np.sign(grads)


def test_a_gradient_step_is_that_of_deep_q_learning():
    setup = load(*SMALL)
    sizes, rng = (4, 8, 2), np.random.default_rng(0)
    params, target = rng.normal(size=(2, 5 * 8 + 9 * 2)).astype(np.float32)
    row = np.array([2, 1, -5, 7, 1, 3.0, 0, 0, 1, -6, 8], np.float32)
    net = setup.algo.init(KEY, setup.env, jax.tree.map(lambda x: x[None], setup.env.reset(KEY)[1])).nets[1]
    own = (params, target, jax.tree.map(lambda x: x[0], net.opt_state), jnp.float32(0.5), jnp.int32(0))
    step = lambda: setup.algo._gradient_step(setup.env, 1, own, jnp.tile(row, (4, 1)))
    (new, new_target, *_), _ = step()
    wanted = numpy_step(params, target, row, 0.9, 0.1, sizes)
    np.testing.assert_allclose(new, wanted, atol=1e-4)
    np.testing.assert_array_equal(new_target, target)


def test_a_stage_of_few_inputs_is_evaluated_on_all_of_them_once():
    inputs, code = all_inputs(3, 2)
    assert inputs.shape == (9, 2)
    assert (inputs @ code).tolist() == list(range(9))
    setup = load(*SMALL, "env.reputation.seen_in=[]")
    assert setup.env.stage_values == (None, 3)
    rng = np.random.default_rng(1)
    params, target = rng.normal(size=(2, 3 * 8 + 9 * 2)).astype(np.float32)
    rows = np.column_stack(
        [rng.integers(0, 3, (4, 2)), rng.integers(0, 2, 4), [3, 0, 4, 1], np.zeros(4), [[0, 2]] * 4]
    )
    net = setup.algo.init(KEY, setup.env, jax.tree.map(lambda x: x[None], setup.env.reset(KEY)[1])).nets[1]
    own = (params, target, jax.tree.map(lambda x: x[0], net.opt_state), jnp.float32(0.5), jnp.int32(0))
    step = lambda env: setup.algo._gradient_step(env, 1, own, jnp.asarray(rows, jnp.float32))

    class Plain:
        stage_values = (None, None)
        stage_columns, stage_actions = setup.env.stage_columns, setup.env.stage_actions

    for one, other in zip(jax.tree.leaves(step(setup.env)), jax.tree.leaves(step(Plain)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_where_turns_end_the_last_move_leads_to_nothing():
    training = Training(*SMALL, "algo.ends=true")
    rows = []
    for _ in range(4):
        _, after, batch = training.round()
        rows.append(last_rows(after.nets[1], pair(batch)[0])[4 + 2])
    assert rows == [0, 1, 0, 1]


def test_in_the_centipede_moves_earn_the_total_and_a_turn_teaches_once():
    training = Training(
        *(o for o in SMALL if o != "env=population_game"),
        "env=population_centipede",
        "env.rounds=4",
        "algo.reward=total",
        "algo.choice_learns=turn",
        "algo.ends=true",
        "algo.epsilon_start=[0.0,0.0,0.0]",
    )
    total, taught, turns = np.zeros(5), 0, 40
    for _ in range(4 * turns):
        before, after, batch = training.round()
        total += batch.reward.sum(0)
        host, guest = pair(batch)
        for seat in (host, guest):
            if after.nets[1].size[seat] > before.nets[1].size[seat]:
                assert last_rows(after.nets[1], seat)[5] == total[seat]
        learned = np.asarray(after.nets[0].size - before.nets[0].size)
        if learned.any():
            assert last_rows(after.nets[0], host)[6] == total[host]
            taught += learned.sum()
            total[:] = 0
    assert taught == turns, "once a turn, also where it stopped early"
    moves = int(after.nets[1].size.sum())
    assert turns < moves < 4 * turns, "some stopped early"


def test_in_a_dilemma_without_punishment_defection_is_learned():
    setup = Training(
        *SMALL[:3], "algo.hidden=16", "algo.batch_size=32", "env.reputation.seen_in=[]", "env.horizon=50"
    )
    played = [setup.round()[2] for _ in range(1500)]
    moves = np.concatenate([batch.action[1][list(pair(batch))] for batch in played[-300:]])
    assert moves.mean() > 0.95


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algo.num_steps=4"], "algo.num_steps=4: must be 2, a round's steps"),
        (["num_envs=2"], "num_envs=2: must be at most 1 with StageDQN"),
        (["seats=shared"], "seats: stage_dqn learns for each seat alone"),
        (["algo.reward=some"], "algo.reward=some: must be one of increment, total"),
        (["algo.learning_rate=[0.1]"], "algo.learning_rate: must hold 2 numbers, one a stage"),
        (["env=prisoners_dilemma"], "algo stage_dqn needs a game of rounds and stages"),
    ],
)
def test_what_does_not_fit_is_said(overrides, message):
    kept = [o for o in SMALL if not o.startswith("env")] if "env=prisoners_dilemma" in overrides else SMALL
    with pytest.raises(ConfigError, match=message.replace(".", r"\.").replace("[", r"\[")):
        load(*kept, *overrides)
