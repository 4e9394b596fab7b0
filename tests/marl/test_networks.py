import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from marl.heads import ActorCritic, initial_carry
from marl.networks import CNN, MLP, Convolution, MeanCNN, Table, expand_codes

T, B, NUM_PARAMS, CODES = 6, 3, 5, (3, 4)


def torso(kind, core):
    rest = {"activation": "tanh", "core": core, "grid_codes": CODES}
    return MLP(hidden=(8,), **rest) if kind == "mlp" else CNN(features=(4,), hidden=(8,), **rest)


def observe(seed=0):
    """obs of T steps of B games: uint8 codes and a vector."""
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, n, (T, B, 4, 5)) for n in CODES]
    grid = np.stack(codes, axis=-1).astype(np.uint8)
    return {"grid": jnp.asarray(grid), "vector": jnp.asarray(rng.normal(size=(T, B, 2)).astype(np.float32))}


@pytest.fixture(scope="module")
def start():
    """[T, B] episodes that begin in the middle, at the first step and at the last."""
    return jnp.zeros((T, B), bool).at[3, 0].set(True).at[0, 1].set(True).at[5, 1].set(True)


@pytest.fixture(
    scope="module", params=[(k, c, s) for k in ("mlp", "cnn") for c in (0, 7) for s in (False, True)]
)
def made(request, start):
    """A network, its parameters, a random carry, and its outputs for `observe()`."""
    kind, core, separate = request.param
    net = ActorCritic(torso(kind, core), torso(kind, core) if separate else None, NUM_PARAMS)
    params = net.init(jax.random.key(0), initial_carry(net, (B,)), observe(), start)
    carry = initial_carry(net, (B,))
    carry = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), carry)
    apply = jax.jit(net.apply)
    return net, params, carry, apply, apply(params, carry, observe(), start)


def test_expand_codes_by_hand():
    grid = jnp.array([[[0, 3], [1, 0]], [[2, 1], [0, 2]]], jnp.uint8)  # [H=2, W=2, L=2]
    planes = expand_codes(grid, CODES)
    assert planes.dtype == jnp.float32
    assert planes.tolist() == [
        [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]],
        [[0, 1, 1, 0, 0], [0, 0, 0, 1, 0]],
    ]


def test_expand_codes_of_yes_or_no_layers_is_the_layer_itself():
    grid = jnp.array([[[0, 1], [1, 1]]], jnp.uint8)
    assert expand_codes(grid, (2, 2)).tolist() == grid.astype(jnp.float32).tolist()
    assert expand_codes(grid[..., :1], (2,)).tolist() == grid[..., :1].astype(jnp.float32).tolist()


def test_output_shapes(made):
    net, _, carry, _, (after, out, value) = made
    assert out.shape == (T, B, NUM_PARAMS)
    assert value.shape == (T, B)
    width = net.torso.core * (1 if net.critic_torso is None else 2)
    assert net.carry_size == width
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, carry) == ((B, width) if width else ())


def test_a_run_over_time_equals_single_steps_with_the_carry_zeroed_by_hand(made, start):
    _, params, carry, apply, (after, out, value) = made
    obs = observe()
    never = jnp.zeros((1, B), bool)
    for t in range(T):
        carry = jax.tree.map(lambda x: jnp.where(start[t][:, None], 0.0, x), carry)  # noqa: B023
        now = jax.tree.map(lambda x: x[t : t + 1], obs)  # noqa: B023
        carry, one_out, one_value = apply(params, carry, now, never)
        np.testing.assert_allclose(one_out[0], out[t], atol=1e-6)
        np.testing.assert_allclose(one_value[0], value[t], atol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), carry, after)


def test_the_past_matters_until_an_episode_begins(made, start):
    net, params, carry, apply, (_, out, value) = made
    obs = observe()
    other = jax.tree.map(lambda x, y: x.at[:2].set(y[:2]), obs, observe(seed=1))  # another past
    elsewhere = jax.tree.map(lambda x: x + 1, carry)
    _, new_out, new_value = apply(params, elsewhere, other, start)
    changed = np.abs(new_out - out).max(-1) + np.abs(new_value - value) > 0
    assert changed[:2, 0].all()  # the observation itself differs
    assert changed[2, 0] == bool(net.carry_size)  # remembered
    assert not changed[3:, 0].any()  # game 0 began anew at step 3
    assert not changed[5, 1]  # game 1 at step 5
    assert changed[2:, 2].all() == bool(net.carry_size)  # game 2 never


def test_a_separate_critic_shares_nothing_with_the_policy(made, start):
    net, params, carry, apply, _ = made

    def policy(params):
        return apply(params, carry, observe(), start)[1].sum()

    grads = jax.grad(policy)(params)["params"]
    moved = {
        name for name, tree in grads.items() if any((np.asarray(x) != 0).any() for x in jax.tree.leaves(tree))
    }
    assert "actor" in moved
    assert moved.isdisjoint({"critic", "critic_torso"})
    assert ("critic_torso" in grads) == (net.critic_torso is not None)


@pytest.mark.parametrize("names", [("vector",), ("grid",), ("grid", "vector")])
def test_mlp_reads_whatever_there_is(names):
    obs = {k: v for k, v in observe().items() if k in names}
    net = torso("mlp", 0)
    params = net.init(jax.random.key(0), (), obs, None)
    width = {"vector": 2, "grid": 4 * 5 * 5}
    assert params["params"]["Dense_0"]["kernel"].shape == (sum(width[n] for n in names), 8)


def test_a_convolution_is_the_library_s():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    params = Convolution(6).init(jax.random.key(1), x)
    assert params["params"]["kernel"].shape == (3, 3, 3, 6)
    params = jax.tree.map(lambda p: p + 0.1, params)
    ours, theirs = Convolution(6).apply(params, x), nn.Conv(6, (3, 3)).apply(params, x)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_cnn_without_a_grid_says_so():
    with pytest.raises(ValueError, match="network=mlp"):
        torso("cnn", 0).init(jax.random.key(0), (), {"vector": jnp.zeros((1, 1, 2))}, None)


def test_heads_start_small():
    """The first policy is nearly uniform: the actor's weights have gain 0.01, the critic's 1."""
    net = ActorCritic(torso("mlp", 0), None, 2)
    params = net.init(jax.random.key(0), (), observe(), jnp.zeros((T, B), bool))["params"]
    column_norm = lambda name: np.linalg.norm(params[name]["kernel"], axis=0)
    np.testing.assert_allclose(column_norm("actor"), 0.01, rtol=1e-5)
    np.testing.assert_allclose(column_norm("critic"), 1.0, rtol=1e-5)


def actor_critic_of_tables():
    table = Table(hidden=(), activation="tanh", core=0, grid_codes=(2,))
    return ActorCritic(table, table.clone(), 2)


def test_a_table_has_one_row_for_each_combination_and_nothing_else():
    rows = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]], np.float32)
    net, start = actor_critic_of_tables(), jnp.zeros((1, 5), bool)
    obs = {"vector": jnp.asarray(rows)[None]}
    params = net.init(jax.random.key(0), (), obs, start)
    assert jax.tree.map(jnp.shape, params["params"]) == {
        "actor": {"kernel": (8, 2)},
        "critic": {"kernel": (8, 1)},
    }
    _, out, value = net.apply(params, (), obs, start)
    places = [0, 1, 2, 5, 7]  # the first entry is the lowest binary digit
    np.testing.assert_allclose(out[0], params["params"]["actor"]["kernel"][np.array(places)], rtol=1e-6)
    np.testing.assert_allclose(value[0], params["params"]["critic"]["kernel"][np.array(places), 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({"vector": jnp.zeros((1, 1, 11))}, "a table of 11 entries has 2\\^11 rows, more than 1024"),
        ({"grid": jnp.zeros((1, 1, 2, 2, 1), jnp.uint8)}, "a table reads only vectors"),
    ],
)
def test_a_table_of_what_is_too_large_or_a_grid_is_refused(obs, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(actor_critic_of_tables().init, jax.random.key(0), (), obs, jnp.zeros((1, 1), bool))


def test_layers_before_the_heads_belong_to_one_head_each():
    net = ActorCritic(MLP((4,), "leaky_relu", 3, head_hidden=(6, 5)), None, NUM_PARAMS)
    obs, start = {"vector": jnp.ones((1, 1, 2))}, jnp.zeros((1, 1), bool)
    params = net.init(jax.random.key(0), initial_carry(net, (1,)), obs, start)
    shapes = {name: x["kernel"].shape for name, x in params["params"].items() if name != "torso"}
    expected = {
        f"{head}_{i}": shape for head in ("actor", "critic") for i, shape in enumerate([(3, 6), (6, 5)])
    }
    assert shapes == expected | {"actor": (5, NUM_PARAMS), "critic": (5, 1)}
    other = jax.tree.map(lambda x: x, params)
    other["params"]["critic_0"]["kernel"] += 1.0
    apply = lambda params: net.apply(params, initial_carry(net, (1,)), obs, start)
    (_, out, value), (_, same, changed) = apply(params), apply(other)
    assert (out == same).all()
    assert (value != changed).all()


def test_convolutions_within_the_planes_are_those_of_xla_and_their_mean():
    net = MeanCNN(features=(3, 4), hidden=(), activation="tanh", core=0, grid_codes=CODES)
    grid = np.random.default_rng(0).integers(0, 3, (T, B, 6, 7, 2)).astype(np.uint8)
    no_start = jnp.zeros((T, B), bool)
    params = net.init(jax.random.key(1), (), {"grid": grid}, no_start)
    found = net.apply(params, (), {"grid": grid}, no_start)[1]
    x = expand_codes(jnp.asarray(grid), CODES).reshape(T * B, 6, 7, -1)
    for i in range(2):
        names = ("NHWC", "HWIO", "NHWC")
        kernel = params["params"][f"kernel_{i}"]
        x = jnp.tanh(jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=names))
    np.testing.assert_allclose(found.reshape(T * B, -1), x.mean((1, 2)), rtol=2e-4, atol=1e-5)
    with pytest.raises(ValueError, match="at most 2 layers fit"):
        net.clone(features=(3, 4, 5)).init(jax.random.key(1), (), {"grid": grid}, no_start)
