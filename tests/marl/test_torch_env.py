"""TorchEnv: the games of `marl.batched`, shared with torch without copies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl import batched
from marl.environment import clip_to_space
from tests.probes import Aim
from tests.toys import commons, dilemma

torch = pytest.importorskip("torch")

from marl import torch_env  # noqa: E402
from marl.torch_env import TorchEnv  # noqa: E402

pytestmark = pytest.mark.torch
NUM_ENVS, STEPS = 4, 10
GAMES = pytest.mark.parametrize(
    "env",
    [dilemma(horizon=4), commons(horizon=4, noise=0.5), commons(horizon=0, end_prob=0.3)],
    ids=["fixed", "fixed-masked", "by-chance"],
)
step = jax.jit(batched.step)


def legal(ts, generator):
    """[E, A] int64, uniform over the legal actions."""
    return torch.rand(ts.action_mask.shape, generator=generator).masked_fill(~ts.action_mask, -1).argmax(-1)


def play(env, seed, **options):
    """The actions, (ts, final) of each step as numpy, and the last env."""
    games = TorchEnv(env, NUM_ENVS, seed, **options)
    generator = torch.Generator().manual_seed(7)
    ts, actions, seen = games.reset(), [], []
    for _ in range(STEPS):
        actions.append(legal(ts, generator))
        ts, final = games.step(actions[-1])
        seen.append(jax.tree.map(lambda x: x.numpy().copy(), (ts, final)))
    return actions, seen, games


@GAMES
def test_the_games_are_those_of_jax(env):
    actions, seen, _ = play(env, 3)
    games, _ = batched.start(env, jax.random.key(3), NUM_ENVS)
    ends = 0
    for action, (ts, final) in zip(actions, seen, strict=True):
        games, want, want_final = step(env, games, jnp.asarray(action.numpy(), jnp.int32))
        jax.tree.map(np.testing.assert_array_equal, ts, want)
        np.testing.assert_array_equal(final.action_mask, want_final.action_mask)
        jax.tree.map(np.testing.assert_array_equal, final.obs, want_final.obs)
        ends += int(ts.done.sum())
    assert ends >= 2 * NUM_ENVS


@GAMES
def test_a_seed_names_a_trajectory(env):
    same = play(env, 3)[1], play(env, 3)[1]
    jax.tree.map(np.testing.assert_array_equal, *same)
    if env.fixed_horizon is None:
        with pytest.raises(AssertionError):
            jax.tree.map(np.testing.assert_array_equal, same[0], play(env, 4)[1])


def test_final_is_what_was_reached_and_ts_what_follows():
    env = commons(horizon=4)
    _, seen, _ = play(env, 0)
    ts, final = seen[3]
    assert ts.truncated.all()
    assert final.obs["vector"].sum() > 0  # somebody took
    assert ts.obs["vector"].sum() == 0  # nobody took in a new game
    assert final.reward is ts.reward or (final.reward == ts.reward).all()


@pytest.mark.parametrize("env", [dilemma(horizon=4), commons(horizon=0)], ids=["fixed", "by-chance"])
def test_when_games_may_have_ended_is_known(env):
    games = TorchEnv(env, NUM_ENVS, 0)
    games.reset()
    assert not games.may_have_ended
    told = []
    for _ in range(8):
        games.step(torch.zeros(NUM_ENVS, env.num_agents, dtype=torch.long))
        told.append(games.may_have_ended)
    assert told == ([False, False, False, True] * 2 if env.fixed_horizon else [True] * 8)


@pytest.fixture
def handed(monkeypatch):
    """What goes into and comes out of each step in JAX, in pairs."""
    seen, play = [], torch_env._step
    monkeypatch.setattr(torch_env, "_step", lambda *x: seen.append((x, play(*x))) or seen[-1][1])
    return seen


def test_tensors_are_jax_memory_in_both_directions(handed):
    games = TorchEnv(commons(horizon=0, end_prob=0.3), NUM_ENVS, 0)
    games.reset()
    action = torch.zeros(NUM_ENVS, 3, dtype=torch.int32)
    ts, final = games.step(action)
    (_, _, given), (_, (obs, mask, facts, ends), (final_obs, final_mask)) = handed[0]
    pairs = [(ts.obs[k], obs[k]) for k in obs] + [(final.obs[k], final_obs[k]) for k in obs]
    pairs += [(ts.action_mask, mask), (final.action_mask, final_mask), (action, given)]
    pairs += [(ts.reward, facts), (ts.terminated, ends)]  # the first rows of what is handed over
    for tensor, array in pairs:
        assert tensor.data_ptr() == array.unsafe_buffer_pointer()
    assert {x.dtype for x, _ in pairs} == {torch.float32, torch.int32, torch.uint8, torch.bool}


@pytest.mark.parametrize("copy", [False, True])
def test_writing_into_a_tensor_changes_the_array_of_jax_unless_it_is_a_copy(handed, copy):
    games = TorchEnv(commons(horizon=0), NUM_ENVS, 0, copy=copy)
    games.reset()
    ts, _ = games.step(torch.ones(NUM_ENVS, 3, dtype=torch.int32))
    ts.obs["vector"].zero_()
    array = handed[0][1][1][0]["vector"]  # who took: everybody
    assert array.sum() == (NUM_ENVS * 3 if copy else 0)


def test_a_copied_mask_is_fresh_in_every_step():
    games = TorchEnv(dilemma(), NUM_ENVS, 0, copy=True)
    for ts in (games.reset(), games.step(torch.zeros(NUM_ENVS, 2, dtype=torch.int32))[0]):
        assert ts.action_mask.all()
        ts.action_mask.zero_()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.int8])
def test_any_integer_type_is_an_action(dtype):
    games = TorchEnv(dilemma(), NUM_ENVS, 0)
    games.reset()
    ts, _ = games.step(torch.ones(NUM_ENVS, 2, dtype=dtype))
    assert (ts.reward == 1).all()  # both defect


def test_box_actions_are_cut_to_their_bounds_and_lose_their_gradient():
    env = Aim(num_seats=1)
    games = TorchEnv(env, NUM_ENVS, 0)
    games.reset()
    action = torch.full((NUM_ENVS, 1, 1), 100.0, dtype=torch.float64, requires_grad=True)
    ts, _ = games.step(action)
    bound = clip_to_space(env.action_space, jnp.float32(100.0))
    np.testing.assert_allclose(ts.reward, -jnp.square(bound - Aim.target)[0] * np.ones((NUM_ENVS, 1)))
    assert not ts.reward.requires_grad


def test_wrong_actions_are_named():
    games = TorchEnv(dilemma(), NUM_ENVS, 0)
    with pytest.raises(RuntimeError, match="call reset first"):
        games.step(torch.zeros(NUM_ENVS, 2))
    games.reset()
    with pytest.raises(ValueError, match=r"action: has shape \(4,\), must be \(4, 2\)"):
        games.step(torch.zeros(NUM_ENVS, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"action: is torch.float32, must be of whole numbers"):
        games.step(torch.zeros(NUM_ENVS, 2))
    with pytest.raises(TypeError, match="action: must be a torch tensor, not ndarray"):
        games.step(np.zeros((NUM_ENVS, 2), np.int32))


def test_a_device_that_is_not_there_is_named():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="device=cuda: JAX has no such device"):
        TorchEnv(dilemma(), NUM_ENVS, 0, device="cuda")


@pytest.mark.gpu
def test_on_a_gpu_tensors_stay_there():
    if not torch.cuda.is_available() or jax.default_backend() != "gpu":
        pytest.skip("needs a GPU for JAX and for PyTorch")
    _, seen, games = play(commons(horizon=0, end_prob=0.3), 0, device="cpu")
    assert games.device.type == "cpu"
    on_gpu = TorchEnv(commons(horizon=0, end_prob=0.3), NUM_ENVS, 0, device="cuda")
    ts = on_gpu.reset()
    assert ts.reward.is_cuda
    generator = torch.Generator().manual_seed(7)
    for want, _ in seen:
        action = legal(jax.tree.map(lambda x: x.cpu(), ts), generator).cuda()
        ts, _ = on_gpu.step(action)
        np.testing.assert_allclose(ts.reward.cpu(), want.reward, rtol=1e-6)
