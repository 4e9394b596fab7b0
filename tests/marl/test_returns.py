import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl.returns import align, discounted_sum, gae, group_relative, less_group, n_step

GAMMA, LAMBDA = 0.9, 0.7


@pytest.fixture(scope="module")
def play():
    """[T, E, A] random rewards and values; [T, E] terminations and truncations mixed."""
    T, E, A = 23, 5, 3
    rng = np.random.default_rng(0)
    kind = rng.choice(3, size=(T, E), p=[0.7, 0.15, 0.15])  # goes on, terminated, truncated
    kind[-1, :3] = [0, 1, 2]
    reward, value, next_value = rng.normal(size=(3, T, E, A)).astype(np.float32)
    return {
        "reward": reward,
        "value": value,
        "next_value": next_value,
        "terminated": kind == 1,
        "done": kind > 0,
    }


def by_stream(function, play, *names):
    """Apply a loop over one time series to each of [T, E, A]; terminated and done lack A."""
    T, E, A = play["reward"].shape
    out = np.zeros((T, E, A))
    for e in range(E):
        for a in range(A):
            series = [play[n][:, e, a] if play[n].ndim == 3 else play[n][:, e] for n in names]
            out[:, e, a] = function(*series)
    return out


def slow_gae(reward, value, next_value, terminated, done):
    """The definition: a sum of TD errors up to the end of the episode or the batch."""
    advantage = []
    for t in range(len(reward)):
        total, weight = 0.0, 1.0
        for k in range(t, len(reward)):
            future = 0.0 if terminated[k] else next_value[k]
            total += weight * (reward[k] + GAMMA * future - value[k])
            weight *= GAMMA * LAMBDA
            if done[k]:
                break
        advantage.append(total)
    return advantage


def slow_sum(reward, done, last_value):
    out = []
    for t in range(len(reward)):
        total, weight = 0.0, 1.0
        for k in range(t, len(reward)):
            total += weight * reward[k]
            weight *= GAMMA
            if done[k]:
                break
        else:
            total += weight * last_value
        out.append(total)
    return out


def slow_n_step(num_steps):
    def of_series(reward, next_value, terminated, done):
        out = []
        for t in range(len(reward)):
            total = 0.0
            for k in range(t, min(t + num_steps, len(reward))):
                total += GAMMA ** (k - t) * reward[k]
                if done[k]:
                    break
            out.append(total + (0.0 if terminated[k] else GAMMA ** (k - t + 1) * next_value[k]))
        return out

    return of_series


def fast_gae(play, gamma=GAMMA, gae_lambda=LAMBDA):
    return gae(**play, gamma=gamma, gae_lambda=gae_lambda)


def test_gae_equals_the_sum_of_td_errors(play):
    advantage, target = fast_gae(play)
    slow = by_stream(slow_gae, play, "reward", "value", "next_value", "terminated", "done")
    np.testing.assert_allclose(advantage, slow, atol=1e-5)
    np.testing.assert_allclose(target, slow + play["value"], atol=1e-5)


def test_gae_takes_one_time_series_too(play):
    alone = {k: v[:, 1, 2] if v.ndim == 3 else v[:, 1] for k, v in play.items()}
    np.testing.assert_allclose(fast_gae(alone)[0], fast_gae(play)[0][:, 1, 2], atol=1e-6)


def test_gae_without_lambda_is_the_td_error(play):
    future = np.where(play["terminated"][..., None], 0.0, play["next_value"])
    expected = play["reward"] + GAMMA * future - play["value"]
    np.testing.assert_allclose(fast_gae(play, gae_lambda=0.0)[0], expected, atol=1e-6)


def test_gae_with_lambda_one_is_the_discounted_return_minus_the_value():
    rng = np.random.default_rng(1)
    reward, value, reached = rng.normal(size=(3, 12, 4)).astype(np.float32)
    next_value = np.concatenate([value[1:], reached[-1:]])
    terminated = done = np.zeros((12, 4), bool)
    terminated[[3, 7], [0, 2]] = True
    advantage, target = gae(reward, value, next_value, terminated, done, gamma=GAMMA, gae_lambda=1.0)
    return_ = discounted_sum(reward, done, reached[-1], gamma=GAMMA)
    np.testing.assert_allclose(advantage, return_ - value, atol=1e-5)
    np.testing.assert_allclose(target, return_, atol=1e-5)


@pytest.mark.parametrize(
    ("terminated", "expected"),
    # gamma 0.5, lambda 0.5; deltas of the steps: 1 + 0.5*2 - 4 = -2, then 3 + 0.5*future - 2
    [(True, [-2 + 0.25 * 1.0, 1.0]), (False, [-2 + 0.25 * 5.0, 5.0])],
)
def test_only_a_termination_makes_the_future_worthless(terminated, expected):
    advantage, target = gae(
        jnp.array([1.0, 3.0]),
        jnp.array([4.0, 2.0]),
        jnp.array([2.0, 8.0]),
        jnp.array([False, terminated]),
        jnp.array([False, True]),
        gamma=0.5,
        gae_lambda=0.5,
    )
    assert advantage.tolist() == expected
    assert target.tolist() == [expected[0] + 4.0, expected[1] + 2.0]


def test_nothing_flows_back_over_an_end(play):
    end = np.flatnonzero(play["done"][:, 0])[1]
    later = dict(play, reward=play["reward"].copy())
    later["reward"][end + 1 :, 0] += 100.0
    of_all = {
        "gae": lambda p: fast_gae(p)[0],
        "sum": lambda p: discounted_sum(p["reward"], p["done"], p["value"][0], gamma=GAMMA),
        "n_step": lambda p: fast_n_step(p, 4),
    }
    for name, function in of_all.items():
        before, after = function(play), function(later)
        assert (before[: end + 1, 0] == after[: end + 1, 0]).all(), name
        assert (before[end + 1, 0] != after[end + 1, 0]).all(), name
        assert (before[:, 1:] == after[:, 1:]).all(), name


def test_discounted_sum_equals_the_loop(play):
    last_value = np.random.default_rng(2).normal(size=play["reward"].shape[1:]).astype(np.float32)
    play = play | {"last": np.broadcast_to(last_value, play["reward"].shape)}
    slow = by_stream(lambda r, d, v: slow_sum(r, d, v[0]), play, "reward", "done", "last")
    fast = discounted_sum(play["reward"], play["done"], last_value, gamma=GAMMA)
    np.testing.assert_allclose(fast, slow, atol=1e-5)


def test_discounted_sum_by_hand():
    reward, done = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([False, True, False, False])
    found = discounted_sum(reward, done, jnp.float32(16.0), gamma=0.5)
    assert found.tolist() == [2.0, 2.0, 12.0, 16.0]
    done = done.at[-1].set(True)
    assert discounted_sum(reward, done, jnp.float32(16.0), gamma=0.5).tolist() == [2.0, 2.0, 8.0, 8.0]


def fast_n_step(play, num_steps):
    names = ("reward", "next_value", "terminated", "done")
    return n_step(*(jnp.asarray(play[n]) for n in names), gamma=GAMMA, num_steps=num_steps)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 50])
def test_n_step_equals_the_loop(play, num_steps):
    slow = by_stream(slow_n_step(num_steps), play, "reward", "next_value", "terminated", "done")
    np.testing.assert_allclose(fast_n_step(play, num_steps), slow, atol=1e-5)


def test_n_step_by_hand():
    no = jnp.zeros(4, bool)
    reward, next_value = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([10.0, 20.0, 30.0, 40.0])
    cut = no.at[2].set(True)
    two = lambda terminated, done: n_step(
        reward, next_value, terminated, done, gamma=0.5, num_steps=2
    ).tolist()
    assert two(no, no) == [1 + 1 + 5, 2 + 2 + 7.5, 4 + 4 + 10, 8 + 20]
    assert two(no, cut) == [7.0, 11.5, 4 + 15, 28.0]
    assert two(cut, cut) == [7.0, 4.0, 4.0, 28.0]


def test_discounts_may_be_traced(play):
    swept = jax.vmap(lambda gamma: fast_gae(play, gamma=gamma)[0])(jnp.array([0.5, GAMMA]))
    np.testing.assert_allclose(swept[1], fast_gae(play)[0], atol=1e-6)


def test_align_adds_the_axes_that_the_mask_lacks():
    aligned = align(jnp.array([[True, False]]), jnp.zeros((1, 2, 3)))
    assert aligned.shape == (1, 2, 1)
    assert aligned.ravel().tolist() == [1.0, 0.0]


def test_group_relative_by_hand():
    """Two groups of two games and two steps, gamma 0.5; an end cuts the first game's return."""
    reward = jnp.array([[1.0, 0.0, 2.0, 4.0], [8.0, 2.0, 0.0, 2.0]])
    done = jnp.array([[True, False, False, False], [True, True, True, True]])
    # returns [1, 1, 2, 5] and [8, 2, 0, 2]
    expected = [[0.0, 0.0, -3.0, 3.0], [6.0, -6.0, -2.0, 2.0]]
    np.testing.assert_allclose(group_relative(reward, done, gamma=0.5, group_size=2), expected)


def test_less_group_takes_the_mean_of_the_others_away_by_hand():
    x = jnp.array([[1.0, 0.0, 5.0, 4.0, 4.0, 1.0]])[..., None]  # two groups of three games
    found = less_group(x, 3)
    np.testing.assert_allclose(found[..., 0], [[-1.5, -3.0, 4.5, 1.5, 1.5, -3.0]])


def test_group_relative_leaves_out_the_game_itself_in_every_group_and_seat(play):
    reward, done = np.tile(play["reward"], (1, 6, 1))[:, :24], np.tile(play["done"], (1, 6))[:, :24]
    found = np.asarray(group_relative(reward, done, gamma=GAMMA, group_size=8))
    return_ = np.asarray(discounted_sum(reward, done, jnp.zeros((24, 3)), gamma=GAMMA))
    for first in (0, 8, 16):
        for game in range(first, first + 8):
            others = [g for g in range(first, first + 8) if g != game]
            expected = return_[:, game] - return_[:, others].mean(1)
            np.testing.assert_allclose(found[:, game], expected, atol=1e-5)
    np.testing.assert_allclose(found.reshape(len(found), 3, 8, 3).sum(2), 0.0, atol=1e-5)
