"""PyTorch's DQN computes what `algos.dqn` computes, and learns through TorchEnv."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marl.config import compose
from marl.learner import rollout as jax_rollout
from marl.learner import start
from marl.networks import CNN, MLP
from tests.probes import Tempting, dqn, probe
from tests.toys import commons, dilemma

torch = pytest.importorskip("torch")

from algos.torch.dqn import DQN  # noqa: E402
from algos.torch.networks import to_flax  # noqa: E402
from tests.torch_tools import assert_near, learn, tensors  # noqa: E402

pytestmark = pytest.mark.torch
SEATS = (0, 1, 0, 1)
NETS = {
    "mlp": {"network": MLP(hidden=(8, 8), activation="elu", core=0)},
    "cnn": {
        "network": CNN(hidden=(8,), activation="relu", core=0, features=(3,)),
        "dueling": True,
        "double": False,
        "loss": "mse",
    },
}
EACH_NET = pytest.mark.parametrize("name", NETS)


@functools.lru_cache
def pair(name):
    """(env, JAX's rule, its learner after an update, the Batch of that update, the learner before)."""
    env = commons(num_seats=4, horizon=3, noise=0.5)
    algo = dqn(SEATS, num_steps=6, buffer_size=80, learning_starts=16, num_updates=3, tau=0.5, **NETS[name])
    algo = algo.replace(target_every=2)
    runner = start(algo, env, jax.random.key(0), 5)
    runner, batch, _ = jax.jit(jax_rollout, static_argnums=5)(algo, env, runner, jax.random.key(1), 0, 6)
    after, _ = jax.jit(algo.update)(env, runner.learner, batch, jax.random.key(2))
    return env, algo, after, batch, runner.learner


def twin(algo, env, learner):
    made = DQN(algo, env)
    made.load(learner)
    return made


@EACH_NET
def test_loss_and_gradients_are_those_of_jax(name):
    """On what the replay holds, with networks whose targets lag behind."""
    env, algo, learner, _, _ = pair(name)
    networks = learner.networks
    items = jax.tree.map(lambda x: x[:, :48], learner.replay.data)
    loss = lambda params, target, items: algo._loss(env, params, target, items)
    gradient = jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)))
    want, grads = gradient(networks.params, networks.target, items)
    torch_dqn = twin(algo, env, learner)
    found, metrics = torch_dqn.loss(tensors(jax.tree.map(lambda x: x[:, :, 0], items)))
    found.sum().backward()
    assert_near(found.detach().numpy(), want[0])
    assert_near({k: v.numpy() for k, v in metrics.items()}, want[1])
    named = dict(torch_dqn.net.named_parameters())
    of_stage = jax.tree.map(lambda x: x[:, 0], grads)
    assert_near(to_flax({k: p.grad for k, p in named.items()}), of_stage)


@EACH_NET
def test_gradient_steps_and_targets_are_those_of_jax(name):
    env, algo, learner, _, _ = pair(name)
    items = jax.tree.map(lambda x: x[:, :48], learner.replay.data)

    @jax.jit
    @jax.vmap
    def steps(networks, items):
        for number in (4, 5, 6):
            networks, _ = algo._gradient_step(env, networks, items, jnp.int32(number))
        return networks

    torch_dqn = twin(algo, env, learner)
    for _ in range(3):
        torch_dqn._descend(torch_dqn.loss(tensors(jax.tree.map(lambda x: x[:, :, 0], items)))[0])
    assert_near(torch_dqn.learner().networks, steps(learner.networks, items))


@EACH_NET
def test_the_replay_and_the_counts_are_those_of_jax(name):
    """Two updates: the second overwrites part of the first."""
    env, algo, after, batch, before = pair(name)
    after, _ = jax.jit(algo.update)(env, after, batch, jax.random.key(3))
    torch_dqn = twin(algo, env, before)
    for _ in range(2):
        torch_dqn.update(tensors(batch), torch.Generator())
    found = torch_dqn.learner()
    for field in ("replay", "num_steps", "num_gradients"):
        want = getattr(after, field)
        assert jax.tree.structure(getattr(found, field)) == jax.tree.structure(want)
        jax.tree.map(np.testing.assert_array_equal, getattr(found, field), want)


def test_no_step_is_taken_before_there_is_enough_to_learn_from():
    env, algo, _, batch, _ = pair("mlp")
    torch_dqn = DQN(algo.replace(learning_starts=61, buffer_size=130), env)
    before = to_flax(dict(torch_dqn.net.named_parameters()))
    metrics = torch_dqn.update(tensors(batch), torch.Generator())  # brings 60 of each learner
    assert_near(to_flax(dict(torch_dqn.net.named_parameters())), before, 0.0)
    assert np.isfinite(list(metrics.values())).all()
    torch_dqn.update(tensors(batch), torch.Generator())
    assert torch_dqn.learner().num_gradients.tolist() == [3, 3]


def test_the_configuration_of_jax_is_read():
    cfg = compose(["algo=dqn", "algo.tau=0.25", "network.hidden=[5]"])
    made = DQN.from_config(cfg.algo, dilemma(), (0, 1))
    assert made.rule.tau == 0.25
    assert made.net.actions.kernel.shape == (2, 5, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"by_stage": True}, "algo.by_stage=true"), ({"core": 8}, "network.core=8: backend=torch")],
)
def test_what_has_no_twin_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        DQN(dqn(**changes), dilemma())


def test_the_action_answers_the_observation():
    batch = learn(DQN, dqn(), probe("match"))
    assert batch.reward.mean() > 0.98
    assert abs(float(batch.extras["value"].mean()) - 1) < 0.1


def test_illegal_actions_are_never_chosen():
    batch = learn(DQN, dqn(), Tempting(num_seats=1))
    assert batch.reward.max() <= 1  # an illegal one pays 10
    assert batch.reward.mean() > 0.98


def test_each_type_learns_its_role():
    batch = learn(DQN, dqn((0, 1, 0, 1)), probe("roles", num_seats=4))
    assert (batch.reward.mean((0, 1)) > 0.98).all()
