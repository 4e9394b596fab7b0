"""Memory Sequence: hand-played trials, who is seen, the oracles' and the random player's scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.memory_sequence import MemorySequence
from marl.build import build_env
from marl.config import compose
from tests.probes import jit_reset, jit_step


def game(*overrides, name="memory_sequence") -> MemorySequence:
    env = build_env(compose([f"env={name}", *(f"env.{o}" for o in overrides)]))
    env.check()
    return env


SHORT = ("length=3", "instance=[2,0,1]", "num_trials=2", "demonstrators=1", "oracle_range=1.0e9")


def test_trials_played_by_hand():
    env = game(*SHORT)
    state, ts = jit_reset(env, jax.random.key(0))
    assert ts.obs["vector"][0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1]  # an oracle that knows says 2
    script = [  # action -> reward, ended a trial, own part, what the oracle shows, seen, done
        (2, 1, 0, [0, 0, 1, 0, 1], [1, 0, 0], 1, False),
        (1, -1, 1, [0, 1, 0, 1, -1], [0, 0, 0], 0, False),  # a mistake; in the last trial nobody is seen
        (2, 1, 0, [0, 0, 1, 0, 1], [0, 0, 0], 0, False),
        (0, 1, 0, [1, 0, 0, 0, 1], [0, 0, 0], 0, False),
        (1, 1, 1, [0, 1, 0, 1, 1], [0, 0, 0], 0, True),  # the whole string
    ]
    for i, (action, reward, ended, own, shown, seen, done) in enumerate(script):
        state, ts = jit_step(env, jax.random.key(i), state, jnp.array([action]))
        assert ts.obs["vector"][0].tolist() == [*own, *shown, seen]
        assert (float(ts.reward[0]), float(ts.events["trials"][0]), bool(ts.done)) == (reward, ended, done)
        assert float(ts.events["score"][0]) == max(reward, 0)


def test_without_ends_on_mistakes_a_trial_has_all_its_steps():
    env = game("length=3", "instance=[9,9,9]", name="memory_sequence_in_weights")
    state, ts = jit_reset(env, jax.random.key(0))
    rewards = []
    for i, digit in enumerate((1, 9, 9)):
        state, ts = jit_step(env, jax.random.key(i), state, jnp.array([digit]))
        rewards.append(float(ts.reward[0]))
    assert rewards == [-1, 1, 1]
    assert ts.done
    assert env.fixed_horizon == 3
    assert ts.obs["vector"].shape == (1, 51)


def test_shown_actions_fill_the_slots_only_where_they_are_seen():
    env = game(*SHORT, "demonstrators=2")
    seen = {"vector": jnp.array([[1.0, 0, 0, 0, 1] + 6 * [0.5] + [1.0]])}
    hidden = {"vector": seen["vector"].at[0, -1].set(0)}
    action = jnp.array([[1, 2]])
    assert env.show(seen, action)["vector"][0].tolist() == [1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 1]
    assert env.show(hidden, action)["vector"][0].tolist() == [1, 0, 0, 0, 1] + 7 * [0]
    assert env.alone(seen)["vector"][0].tolist() == [1, 0, 0, 0, 1] + 7 * [0]
    assert env.alone(seen, 1.0)["vector"][0].tolist() == [1, 0, 0, 0, 1] + 6 * [0] + [1]


def trials(env, choose, num_games, num_steps):
    """[3] by number of the trial: mean score, steps; and the share of steps with demonstrators in view."""

    def step(now, key):
        state, ts = now
        act_key, key = jax.random.split(key)
        before = state
        state, ts = jax.vmap(env.step)(jax.random.split(key, num_games), state, choose(act_key, ts))
        at = jax.nn.one_hot(before.trial, env.num_trials)
        seen = now[1].obs["vector"][:, 0, -1]
        facts = jnp.stack([ts.events["score"][:, 0], jnp.ones(num_games), seen])
        return (state, ts), jnp.einsum("fe,ek->fk", facts, at)

    first = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), num_games))
    keys = jax.random.split(jax.random.key(1), num_steps)
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, first, keys)[1].sum(0))()) / num_games


def test_a_random_player_has_half_a_digit_right_a_trial_and_demonstrators_fade():
    guess = lambda key, ts: jax.random.randint(key, ts.reward.shape, 0, 3)
    score, steps, seen = trials(game("demonstrators=1"), guess, 20_000, 60)
    np.testing.assert_allclose(score, 0.5, atol=0.03)  # sum of 3^-i
    np.testing.assert_allclose(seen / steps, [1, 2 / 3, 1 / 3, 0], atol=0.01)


def test_a_random_player_of_ten_digits_earns_minus_19():
    env = game(name="memory_sequence_in_weights")
    guess = lambda key, ts: jax.random.randint(key, ts.reward.shape, 0, 10)
    right = trials(env, guess, 4000, 24)[0].item()
    assert 2 * right - 24 == pytest.approx(-19.2, abs=0.2)


# Digits that who copies an oracle of p = 1 - 1 / (1 + range) has right: sum of q^i to i = 24, q = p + (1 - p) / 3.
BEST = {0.5: 1.25, 1.0: 2.0, 2.0: 3.49, 3.0: 4.94, 4.0: 6.29, 5.0: 7.53, 6.0: 8.64}


@pytest.mark.parametrize("oracle_range", [0.5, 2.0, 6.0])
def test_who_copies_an_oracle_at_the_bound_scores_as_the_table_says(oracle_range):
    env = game(f"oracle_range={oracle_range}", "demonstrators=1", "num_trials=1", "visible_prob=1.0")
    skill = jnp.array([1 - 1 / (1 + oracle_range)])
    copy = lambda key, ts: ts.obs["vector"][:, :, 5:8].argmax(-1).astype(jnp.int32)

    state, ts = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 20_000))
    state = state.replace(skill=jnp.broadcast_to(skill, state.skill.shape))
    show = lambda s, k: jax.vmap(env.oracles)(jax.random.split(k, 20_000), s)
    ts = ts.replace(obs=env.show(ts.obs, show(state, jax.random.key(5))[:, None]))
    alive, total = jnp.ones(20_000), 0.0
    step = jax.jit(
        lambda key, state, action: jax.vmap(env.step)(jax.random.split(key, 20_000), state, action)
    )
    for i in range(24):
        state, ts = step(jax.random.key(i), state, copy(None, ts))
        total += float((alive * ts.events["score"][:, 0]).mean())
        alive = alive * (1 - ts.events["trials"][:, 0])
    assert total == pytest.approx(BEST[oracle_range], rel=0.03)


def test_oracles_are_sorted_and_lie_below_their_bound():
    env = game("demonstrators=5", "oracle_range=2.0")
    skill = np.asarray(jax.jit(jax.vmap(env.draw_skill))(jax.random.split(jax.random.key(0), 1000)))
    assert (np.diff(skill) >= 0).all()
    assert skill.min() >= 0
    assert 0.64 < skill.max() <= 2 / 3
    # mean of 1 - 1/X, X uniform in [1, 3]: 1 - ln(3) / 2
    assert skill.mean() == pytest.approx(1 - np.log(3) / 2, abs=0.01)
    assert not np.asarray(env.novices().draw_skill(jax.random.key(0))).any()


def test_wrong_instances_and_numbers_are_refused():
    with pytest.raises(ValueError, match="instance: must be numbers of shape"):
        game("instance=[1,2]")
    with pytest.raises(ValueError, match=r"visible_prob=2.*must lie in \[0, 1\]"):
        game("visible_prob=2.0")
    with pytest.raises(ValueError, match="num_trials=0: must be at least 1"):
        game("num_trials=0")
