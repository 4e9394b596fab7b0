"""PyTorch's PPO computes what `algos.ppo` computes, and learns through TorchEnv."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.ppo_loss import ppo_loss as jax_loss
from marl.config import compose
from marl.distributions import distribution
from marl.learner import rollout as jax_rollout
from marl.learner import start
from marl.networks import CNN, MLP
from marl.population import to_learners as jax_to_learners
from marl.returns import gae as jax_gae
from tests.probes import GAMMA, Aim, Locks, ppo, probe
from tests.toys import commons

torch = pytest.importorskip("torch")

from algos.torch.distributions import Categorical  # noqa: E402
from algos.torch.networks import load_flax, to_flax  # noqa: E402
from algos.torch.ppo import PPO, gae  # noqa: E402
from algos.torch.rollout import to_learners, to_seats  # noqa: E402
from tests.torch_tools import assert_near, learn, tensors  # noqa: E402

pytestmark = pytest.mark.torch
SEATS = (0, 1, 0, 1)
NETS = {
    "mlp": MLP(hidden=(8, 8), activation="tanh", core=0),
    "gru": MLP(hidden=(8,), activation="silu", core=6),
    "cnn": CNN(hidden=(8,), activation="relu", core=0, features=(3, 4)),
}
EACH_NET = pytest.mark.parametrize("name", NETS)


def game():
    """Masks, a grid of codes and a vector; ends by chance."""
    return commons(num_seats=4, horizon=0, noise=0.5, end_prob=0.2)


@functools.lru_cache
def pair(name, **changes):
    """(env, JAX's rule, its learner, a Batch that it played) of a network."""
    env = game()
    fields = {"num_steps": 6, "num_minibatches": 1, "num_epochs": 2, "separate_critic": name == "gru"}
    algo = ppo(SEATS, network=NETS[name], **(fields | changes))
    runner = start(algo, env, jax.random.key(0), 5)
    runner, batch, _ = jax.jit(jax_rollout, static_argnums=5)(algo, env, runner, jax.random.key(1), 0, 6)
    return env, algo, runner.learner, batch


def twin(algo, env, learner):
    made = PPO(algo, env)
    made.load(learner)
    return made


@EACH_NET
def test_loss_and_gradients_are_those_of_jax(name):
    """One batch of random actions, credits and targets, with the network in the loop."""
    env, algo, learner, batch = pair(name)
    rng = np.random.default_rng(0)
    shape = batch.reward.shape
    part = {
        "obs": batch.obs,
        "action_mask": batch.action_mask,
        "action": batch.action,
        "start": np.broadcast_to(np.asarray(batch.start)[..., None], shape),
        "log_prob": np.asarray(batch.extras["log_prob"]) + rng.normal(0, 0.3, shape).astype(np.float32),
        "credit": rng.normal(size=shape).astype(np.float32),
        "target": rng.normal(size=shape).astype(np.float32),
    }
    part = jax.tree.map(lambda x: jax_to_learners(jnp.asarray(x), SEATS, 1), part)  # [P, T, B, ...]
    carry = jax.tree.map(lambda x: jax_to_learners(x, SEATS, 0), batch.carry)
    weights = {"clip_eps": algo.clip_eps, "vf_coef": algo.vf_coef, "ent_coef": algo.ent_coef}

    def loss(params, carry, part):
        _, out, value = algo._net(env).apply(params, carry, part["obs"], part["start"])
        return jax_loss(distribution(env.action_space, out, part["action_mask"]), value, part, **weights)

    want, grads = jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)))(learner.params, carry, part)
    torch_ppo = twin(algo, env, learner)
    time_second = lambda x: torch.tensor(np.asarray(x)).transpose(1, 2)
    if name == "gru":
        given = jax.tree.map(time_second, part)
    else:
        given = jax.tree.map(lambda x: torch.tensor(np.asarray(x)).flatten(1, 2), part)
    found, metrics = torch_ppo.loss(given, tensors(carry))
    found.sum().backward()
    assert_near(found.detach().numpy(), want[0])
    assert_near({k: v.numpy() for k, v in metrics.items()}, want[1])
    named = dict(torch_ppo.net.named_parameters())
    assert_near(to_flax({k: p.grad for k, p in named.items()}), grads)


@EACH_NET
def test_a_whole_update_is_that_of_jax(name):
    """Advantages, bounded gradients and Adam: with one minibatch nothing is drawn at random."""
    env, algo, learner, batch = pair(name)
    want, metrics = jax.jit(algo.update)(env, learner, batch, jax.random.key(2))
    torch_ppo = twin(algo, env, learner)
    found = torch_ppo.update(tensors(batch), torch.Generator())
    assert_near(torch_ppo.learner(), want)
    assert_near({k: v.numpy() for k, v in found.items()}, metrics, 1e-4)


@pytest.mark.parametrize("env", [Locks(num_seats=1), Aim(num_seats=1)], ids=["multi-discrete", "box"])
def test_a_whole_update_is_that_of_jax_in_other_action_spaces(env):
    algo = ppo(num_minibatches=1, num_epochs=2, advantage_eps=0.5)
    runner = start(algo, env, jax.random.key(0), 5)
    runner, batch, _ = jax.jit(jax_rollout, static_argnums=5)(algo, env, runner, jax.random.key(1), 0, 8)
    want, _ = jax.jit(algo.update)(env, runner.learner, batch, jax.random.key(2))
    torch_ppo = twin(algo, env, runner.learner)
    torch_ppo.update(tensors(batch), torch.Generator())
    assert_near(torch_ppo.learner(), want)


def test_gradients_summed_over_pieces_are_the_gradient():
    env, algo, learner, batch = pair("mlp")
    learners = []
    for pieces in (1, 4):
        torch_ppo = twin(algo.replace(num_accumulations=pieces), env, learner)
        torch_ppo.update(tensors(batch), torch.Generator())
        learners.append(torch_ppo.learner())
    assert_near(*learners)


def test_gae_is_that_of_jax():
    rng = np.random.default_rng(0)
    reward, value, next_value = rng.normal(size=(3, 7, 5, 2)).astype(np.float32)
    done = rng.random((7, 5, 1)) < 0.3
    terminated = done & (rng.random((7, 5, 1)) < 0.5)
    arrays = (reward, value, next_value, terminated, done)
    want = jax_gae(*map(jnp.asarray, arrays), gamma=0.96, gae_lambda=0.9)
    found = gae(*map(torch.tensor, arrays), gamma=0.96, gae_lambda=0.9)
    assert_near(tuple(x.numpy() for x in found), want)


def test_seats_are_folded_as_in_jax():
    x = np.arange(3 * 5 * 4 * 2).reshape(3, 5, 4, 2)
    found = to_learners(torch.tensor(x), SEATS, 1)
    np.testing.assert_array_equal(found, jax_to_learners(jnp.asarray(x), SEATS, 1))
    np.testing.assert_array_equal(to_seats(found, SEATS, 1), x)


def test_actions_have_the_probabilities_that_they_are_told_to_have():
    """40000 draws: a frequency has a standard error of at most 0.0025."""
    logits = torch.tensor([0.3, -1.0, torch.finfo(torch.float32).min, 1.2])
    drawn = Categorical(logits.expand(40000, 4)).sample(torch.Generator().manual_seed(0))
    found = torch.bincount(drawn, minlength=4) / 40000
    np.testing.assert_allclose(found, logits.softmax(-1), atol=0.01)
    assert found[2] == 0


def test_parameters_of_another_network_are_refused_by_name():
    env, algo, learner, _ = pair("mlp")
    wrong = PPO(algo.replace(network=MLP(hidden=(9, 8), activation="tanh", core=0)), env)
    with pytest.raises(ValueError, match=r"differ in torso\.Dense_0\.bias, torso\.Dense_0\.kernel"):
        load_flax(wrong.net, learner.params)


def test_the_configuration_of_jax_is_read():
    cfg = compose(["env=coin_game", "algo.clip_eps=0.3", "network.hidden=[5]"])
    made = PPO.from_config(cfg.algo, game(), SEATS)
    assert made.rule.clip_eps == 0.3
    assert made.net.actor.kernel.shape == (2, 5, 3)
    with pytest.raises(ValueError, match=r"algo\.credit"):
        PPO(made.rule.replace(credit=lambda x, done, gamma: x), game())
    with pytest.raises(ValueError, match=r"algo\.group_size: backend=torch has no groups"):
        PPO(made.rule.replace(group_size=2), game())


@pytest.mark.parametrize("core", [0, 8], ids=["feed-forward", "gru"])
def test_the_action_answers_the_observation(core):
    batch = learn(PPO, ppo(core=core), probe("match"))
    assert batch.reward.mean() > 0.98
    assert abs(float(batch.extras["value"].mean()) - 1) < 0.1


def test_a_truncation_is_worth_the_state_reached():
    """Read as a termination the later value would be below 3, with the restarted state's about 7.6."""
    batch = learn(PPO, ppo(), probe("cut"))
    value, later = batch.extras["value"], batch.obs["vector"][..., 1] > 0
    assert float(value[later].mean()) == pytest.approx(1 / (1 - GAMMA), abs=0.1)
    assert float(value[~later].mean()) == pytest.approx(GAMMA / (1 - GAMMA), abs=0.1)


def test_only_memory_recalls_a_cue():
    rewards = [learn(PPO, ppo(core=core), probe("recall")).reward.mean() * 3 for core in (0, 8)]
    assert abs(rewards[0]) < 0.3  # 160 episodes of chance: four standard deviations
    assert rewards[1] > 0.98


def test_each_type_learns_its_role():
    batch = learn(PPO, ppo((0, 1, 0, 1)), probe("roles", num_seats=4))
    assert (batch.reward.mean((0, 1)) > 0.98).all()
