"""Layers of state spaces: against a loop, across starts of episodes, their first values, and as a core."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl import s5
from marl.heads import ActorCritic, initial_carry
from marl.networks import MLP, Cells
from tests.probes import learn, ppo, probe

T, B, H, N = 9, 3, 4, 6
START = np.zeros((T, B), bool)
START[3, 0] = START[0, 1] = START[5, 1] = START[6, 1] = True


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    """A layer whose states last long enough to tell what is forgotten."""
    return s5.init(jax.random.key(0), H, N, (0.1, 1.0))


@pytest.fixture(scope="module")
def apply():
    return jax.jit(s5.apply)


def by_loop(params, carry, x, start):
    """The formulas of the module, step by step in double precision."""
    p = {k: np.asarray(v, np.float64) for k, v in params.items()}
    value, inward, outward = (p[k][..., 0] + 1j * p[k][..., 1] for k in ("eigenvalue", "inward", "outward"))
    decay = np.exp(value * np.exp(p["log_step"]))
    h = carry[:, : N // 2] + 1j * carry[:, N // 2 :]
    out = []
    for now, begins in zip(x, start, strict=True):
        h = np.where(begins[:, None], 0, h)
        h = decay * h + now @ ((decay - 1) / value * inward.T).reshape(H, -1)
        y = 2 * (h @ outward.T).real + p["skip"] * now
        z = np.asarray(jax.nn.gelu(y))
        out.append(now + z / (1 + np.exp(-(z @ p["gate"] + p["gate_bias"]))))
    return np.concatenate([h.real, h.imag], axis=-1), np.stack(out)


def test_a_layer_equals_a_loop_over_the_steps(params, apply):
    carry, x = numbers(B, N), numbers(T, B, H, seed=1)
    for found, expected in zip(apply(params, carry, x, START), by_loop(params, carry, x, START), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_states_at_once_are_those_in_turn_and_so_are_their_gradients():
    whole = lambda *shape, seed: jnp.asarray(numbers(*shape, seed=seed) + 1j * numbers(*shape, seed=seed + 1))
    arguments = (
        0.8 * whole(N, seed=0) / jnp.abs(whole(N, seed=0)),
        whole(T, B, N, seed=2),
        whole(B, N, seed=4),
    )
    size = lambda scan: lambda *args: (jnp.abs(scan(*args, START)) ** 2).sum()
    scans = (s5.at_once, s5.in_turn)
    np.testing.assert_allclose(*(jax.jit(scan)(*arguments, START) for scan in scans), atol=1e-5)
    one, other = (jax.jit(jax.grad(size(scan), argnums=(0, 1, 2)))(*arguments) for scan in scans)
    for found, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_an_episode_that_begins_equals_a_sequence_of_its_own(params, apply):
    carry, x = numbers(B, N), numbers(T, B, H, seed=1)
    after, out = apply(params, carry, x, START)
    alone_after, alone = apply(params, np.zeros((B, N), np.float32), x[3:], np.zeros((T - 3, B), bool))
    np.testing.assert_allclose(out[3:, 0], alone[:, 0], atol=1e-5)
    np.testing.assert_allclose(after[0], alone_after[0], atol=1e-5)
    assert np.abs(out[3:, 2] - alone[:, 2]).max() > 1e-3  # game 2 goes on


def test_layers_one_on_the_other_keep_their_own_memories(apply):
    layers = s5.init_all(jax.random.key(2), 2, H, N, (0.1, 1.0))
    carry, x = numbers(B, 2 * N), numbers(T, B, H, seed=1)
    after, out = jax.jit(s5.apply_all)(layers, carry, x, START)
    for i in range(2):
        own = jax.tree.map(lambda leaf: leaf[i], layers)  # noqa: B023
        memory, x = apply(own, carry[:, i * N : (i + 1) * N], x, START)
        np.testing.assert_allclose(after[:, i * N : (i + 1) * N], memory, atol=1e-5)
    np.testing.assert_allclose(out, x, atol=1e-5)
    assert np.abs(layers["gate"][0] - layers["gate"][1]).max() > 0.1


def test_the_first_eigenvalues_are_those_of_hippo():
    """N = 2: p = (sqrt .5, sqrt 1.5), so the antisymmetric part is sqrt(.75) and L = -1/2 + i sqrt(.75)."""
    values, vectors = s5.hippo(2)
    np.testing.assert_allclose(values, [-0.5 + 1j * 0.75**0.5], atol=1e-12)
    assert vectors.shape == (2, 1)
    values, _ = s5.hippo(8)
    n = np.arange(8)
    lower = -np.sqrt(2 * n + 1)[:, None] * np.sqrt(2 * n + 1)
    matrix = np.tril(lower, -1) - np.diag(n + 1.0)
    normal = matrix + np.sqrt(n + 0.5)[:, None] * np.sqrt(n + 0.5)
    found = np.linalg.eigvals(normal)
    np.testing.assert_allclose(np.sort(found.imag[found.imag > 0]), np.sort(values.imag), rtol=1e-9)
    np.testing.assert_allclose(found.real, -0.5, atol=1e-9)


def test_step_sizes_are_log_uniform():
    steps = np.asarray(s5.init(jax.random.key(0), 2, 400, (0.001, 0.1))["log_step"]) / np.log(10)
    assert -3 <= steps.min() < -2.9
    assert -1.1 < steps.max() <= -1
    assert steps.mean() == pytest.approx(-2, abs=0.15)  # 200 draws: 3.7 standard deviations


def test_gradients_are_finite_even_with_an_eigenvalue_that_would_grow(params):
    grown = params | {"eigenvalue": params["eigenvalue"].at[0, 0].set(3.0)}
    x = numbers(200, B, H)
    loss = lambda p: jnp.square(s5.apply(p, jnp.zeros((B, N)), x, jnp.zeros((200, B), bool))[1]).mean()
    value, grads = jax.jit(jax.value_and_grad(loss))(grown)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_an_odd_memory_is_refused():
    with pytest.raises(ValueError, match=r"network\.core=5: must be even"):
        s5.init(jax.random.key(0), H, 5, (0.001, 0.1))


def deep(**changes):
    rest = {"activation": "tanh", "grid_codes": (3, 4), "core": 6, "core_kind": "s5", "core_layers": 2}
    return Cells(
        features=(5, 4), grid_activation="leaky_relu", hidden=(8,), head_hidden=(7,), **rest | changes
    )


def test_a_network_of_cells_layers_and_deep_heads_by_its_shapes():
    net = ActorCritic(deep(), None, 3)
    obs = {"grid": jnp.ones((T, B, 3, 3, 2), jnp.uint8), "vector": jnp.ones((T, B, 2))}
    carry = initial_carry(net, (B,))
    assert carry.shape == (B, 12)
    params = jax.jit(net.init)(jax.random.key(0), carry, obs, START)["params"]
    kernels = {k: v["kernel"].shape for k, v in params.items() if "kernel" in v}
    assert kernels == {"actor_0": (8, 7), "actor": (7, 3), "critic_0": (8, 7), "critic": (7, 1)}
    shapes = jax.tree.map(jnp.shape, params["torso"])
    assert shapes["Cell_0"]["kernel"] == (5, 5)  # planes of the codes
    assert shapes["Dense_0"]["kernel"] == (3 * 3 * 4 + 2, 8)
    assert shapes["core"]["gate"] == (2, 8, 8)
    after, out, value = net.apply({"params": params}, carry, obs, START)
    assert (after.shape, out.shape, value.shape) == ((B, 12), (T, B, 3), (T, B))


def test_an_unknown_core_is_refused():
    net = MLP(hidden=(4,), activation="tanh", core=4, core_kind="lstm")
    with pytest.raises(ValueError, match=r"network\.core_kind=lstm: must be gru or s5"):
        jax.jit(net.init)(
            jax.random.key(0), jnp.zeros((1, 4)), {"vector": jnp.zeros((1, 1, 2))}, START[:1, :1]
        )


def test_ppo_recalls_a_cue_with_it():
    """As the GRU in tests/algos/test_ppo.py: the cue of the first step is answered in the third."""
    network = MLP(hidden=(16,), activation="tanh", core=8, core_kind="s5")
    algo = ppo(network=network)
    batch = learn(algo, probe("recall"), seed=0, num_envs=32, num_updates=200, num_steps=15)[2]
    assert 3 * batch.reward.mean() > 0.98
