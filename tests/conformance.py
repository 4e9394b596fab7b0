"""What every environment must do, alone and inside any mechanisms; `check` raises AssertionError."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from marl.distributions import distribution, num_params
from marl.environment import clip_to_space, mask_size

EAGER_STEPS = 3


def random_action(env, mask, key):
    """A legal action for every seat, as a policy without preferences samples it."""
    params = jnp.zeros((env.num_agents, num_params(env.action_space)))
    action = distribution(env.action_space, params, mask).sample(key)
    return clip_to_space(env.action_space, action)


def advance(env, carry, key, time):
    """Restart if the game is over, as training does, then step. `carry`: state, ts, whether it is over."""
    reset_key, act_key, step_key = jax.random.split(key, 3)
    state, ts, over = carry
    state, ts = jax.lax.cond(over, lambda s, t: env.reset(reset_key), lambda s, t: (s, t), state, ts)
    mask = ts.action_mask
    action = random_action(env, mask, act_key)
    state, ts = env.step(step_key, state, action)
    over = (time + 1) % env.fixed_horizon == 0 if env.fixed_horizon else ts.done
    return (state, ts, over), (mask, action, ts)


def nothing_yet(env, key):
    state, ts = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(env.reset, key))
    return state, ts, jnp.bool_(True)


@functools.partial(jax.jit, static_argnames="steps")
def play(env, key, steps):
    """Random legal play: masks acted on, actions, TimeSteps reached; leaves [steps, ...]."""
    keys, times = jax.random.split(key, steps), jnp.arange(steps)
    step = lambda carry, x: advance(env, carry, *x)
    return jax.lax.scan(step, nothing_yet(env, key), (keys, times))[1]


def check(env, key, steps=64):
    """Play at random and check all that TimeStep and Environment promise."""
    check_types(env, key)
    trace = play(env, key, steps)
    assert_equal(trace, play(env, key, steps), exact=True)
    mask, _, ts = jax.tree.map(np.asarray, trace)
    check_masks(env.action_space, mask)
    check_all_legal(env, mask)
    assert np.isfinite(ts.reward).all(), "a reward is not finite"
    for name, value in ts.events.items():
        assert np.isfinite(value).all(), f"event {name} is not finite"
    check_observations(env, ts.obs)
    check_ends(env, ts)


def check_types(env, key):
    """Shapes and dtypes are those of the contract, and the same after reset and after step."""
    A = env.num_agents
    state, ts = jax.eval_shape(env.reset, key)
    action = jax.eval_shape(lambda key, mask: random_action(env, mask, key), key, ts.action_mask)
    before, after = (state, ts), jax.eval_shape(env.step, key, state, action)
    paths, form = jax.tree.flatten_with_path(before)
    assert form == jax.tree.structure(after), f"step changes the structure {form}"
    for (path, old), new in zip(paths, jax.tree.leaves(after), strict=True):
        name = jax.tree_util.keystr(path)
        assert (old.shape, old.dtype) == (new.shape, new.dtype), (
            f"{name}: {old} after reset, {new} after step"
        )
        assert not any((old.weak_type, new.weak_type)), f"{name} is weakly typed"
    of = lambda x: (x.shape, x.dtype)
    assert of(ts.reward) == ((A,), jnp.float32)
    assert of(ts.action_mask) == ((A, mask_size(env.action_space)), jnp.bool_)
    assert of(ts.terminated) == of(ts.truncated) == ((), jnp.bool_)
    assert ts.seat_terminated is None or of(ts.seat_terminated) == ((A,), jnp.bool_)
    for name, event in ts.events.items():
        assert of(event) == ((A,), jnp.float32), f"event {name} is {event}"
    assert ts.obs.keys() <= {"grid", "vector", "stage", "role", "over"}
    assert ("stage" in ts.obs) == (env.num_stages > 1), "obs['stage'] stands for several stages"
    for name in ("stage", "role", "over"):
        assert name not in ts.obs or of(ts.obs[name]) == ((A,), jnp.int32)
    if "vector" in ts.obs:
        assert ts.obs["vector"].ndim == 2
        assert ts.obs["vector"].shape[0] == A
        assert ts.obs["vector"].dtype == jnp.float32
    if "grid" in ts.obs:
        assert ts.obs["grid"].dtype == jnp.uint8
        assert ts.obs["grid"].shape == (A, *ts.obs["grid"].shape[1:3], len(env.grid_codes))


def check_all_legal(env, mask):
    """A game that says that every action is always legal forbids none; mask is [steps, A, N]."""
    assert mask.all() or not env.all_legal, "all_legal, but an action is forbidden"


def check_masks(space, mask):
    """Some action is legal for every seat (of every component); mask is [steps, A, N]."""
    if isinstance(space, spaces.Discrete):
        assert mask.any(-1).all(), "a seat has no legal action"
    elif isinstance(space, spaces.MultiDiscrete):
        parts = np.split(mask, np.cumsum(space.nvec)[:-1], axis=-1)
        assert all(part.any(-1).all() for part in parts), "a seat has no legal action"


def check_observations(env, obs):
    """Numbers are finite and grid codes below their layer's bound; leaves [steps, A, ...]."""
    if "vector" in obs:
        assert np.isfinite(obs["vector"]).all(), "an observation is not finite"
    if "grid" in obs:
        assert (obs["grid"] < np.asarray(env.grid_codes)).all(), "a grid code is out of range"
    if "stage" in obs:
        assert np.isin(obs["stage"], range(env.num_stages)).all(), "a stage is out of range"


def check_ends(env, ts):
    """Episodes end exactly with the clock where the horizon is fixed, and are cut only if they can be."""
    done = ts.terminated | ts.truncated
    if env.fixed_horizon:
        expected = np.arange(1, len(done) + 1) % env.fixed_horizon == 0
        assert (done == expected).all(), "the game does not end with its fixed horizon"
    elif env.ends_every:
        assert not np.delete(done, np.s_[env.ends_every - 1 :: env.ends_every]).any(), "an end between"
    if not env.can_truncate:
        assert not ts.truncated.any(), "a game was cut that says it cannot be"


def check_eager(env, key):
    """A few steps give the same with and without compilation; without takes seconds for large games."""
    carry, keys, found = nothing_yet(env, key), jax.random.split(key, EAGER_STEPS), []
    with jax.disable_jit():
        for time in range(EAGER_STEPS):
            carry, out = advance(env, carry, keys[time], jnp.int32(time))
            found.append(out)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *found)
    assert_equal(stacked, play(env, key, EAGER_STEPS), exact=False)


def assert_equal(found, expected, exact):
    """Trees are equal; floats up to rounding unless `exact`."""
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        name, a, b = jax.tree_util.keystr(path), np.asarray(a), np.asarray(b)
        if exact or not np.issubdtype(a.dtype, np.floating):
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)
