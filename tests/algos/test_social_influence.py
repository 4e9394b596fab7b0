"""Social influence: its divergences by hand, what a model learns of who follows whom, and its neutral setting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.social_influence import influence
from marl.build import load
from marl.learner import rollout, start
from marl.program import Program
from marl.validation import ConfigError

KEY = jax.random.key(0)
SMALL = ["network.hidden=[8]", "algo.model.hidden=[8]", "algo.model_width=8", "algo.num_steps=8"]


@functools.cache
def played(*overrides):
    """An algorithm, its game, a runner before and the batch after 8 steps of 16 games."""
    setup = load("algo=social_influence", *SMALL, *overrides)
    runner = start(setup.algo, setup.env, KEY, 16)
    after, batch, _ = jax.jit(rollout, static_argnums=5)(setup.algo, setup.env, runner, KEY, 0, 8)
    return setup.algo, setup.env, after, batch


def test_influence_by_hand():
    """Two own actions, of probability 3/4 and 1/4, after which one other plays 0 with probability .9 and .1.

    Before the action is known it is .75 * .9 + .25 * .1 = .7, so that the first is worth
    .9 log(.9/.7) + .1 log(.1/.3), and the second .1 log(.1/.7) + .9 log(.9/.3).
    """
    logits = jnp.log(jnp.array([[[0.9, 0.1]], [[0.1, 0.9]]]))  # [N, A-1, N']
    log_pi = jnp.log(jnp.array([0.75, 0.25]))
    found = [float(influence(logits, log_pi, jnp.int32(action), "kl")) for action in (0, 1)]
    assert found == pytest.approx([0.116316, 0.794160], abs=1e-5)
    # jsd of the first: the middle is .8; half of .9 log(.9/.8) + .1 log(.1/.2) + .7 log(.7/.8) + .3 log(.3/.2)
    assert float(influence(logits, log_pi, jnp.int32(0), "jsd")) == pytest.approx(0.032429, abs=1e-5)


def test_influence_is_summed_over_the_others():
    logits = jax.random.normal(KEY, (5, 3, 2, 4))  # [B, N, A-1, N']
    log_pi, action = jax.nn.log_softmax(jax.random.normal(KEY, (5, 3))), jnp.array([0, 1, 2, 0, 1])
    apart = sum(influence(logits[:, :, [j]], log_pi, action, "kl") for j in range(2))
    np.testing.assert_allclose(influence(logits, log_pi, action, "kl"), apart, rtol=1e-5)
    assert (apart > 0).all()


def test_nobody_influences_who_ignores_others():
    """A model in which nothing follows from one's own action: exactly the same prediction for each, and 0 nats."""
    algo, env, runner, batch = played("env=prisoners_dilemma")
    learner = runner.learner
    deaf = jax.tree.map(lambda x: x, learner.model)
    deaf["params"]["own_layer"]["kernel"] = jnp.zeros_like(deaf["params"]["own_layer"]["kernel"])
    deaf["params"]["head"]["bias"] += jax.random.normal(KEY, deaf["params"]["head"]["bias"].shape)
    heard = jax.tree.map(lambda x: 20 * x, learner.model)
    none = algo.influence(env, learner.replace(model=deaf), batch)
    assert np.abs(none).max() < 1e-6
    assert algo.influence(env, learner.replace(model=heard), batch).max() > 0.1


def test_a_model_learns_who_follows_whom():
    """Seat 1 does what seat 0 did in the step before, seat 0 plays at random: log 2 nats for seat 0, 0 for 1."""
    algo, env, runner, batch = played(
        "env=prisoners_dilemma", "algo.model_steps=300", "algo.model_learning_rate=0.03"
    )
    leads = jax.random.bernoulli(KEY, 0.5, (9, 16)).astype(jnp.int32)
    batch = batch.replace(
        action=jnp.stack([leads[1:], leads[:-1]], axis=-1),
        obs=jax.tree.map(jnp.zeros_like, batch.obs),
        done=jnp.zeros_like(batch.done).at[3].set(True),
        extras=batch.extras | {"log_pi": jnp.full((8, 16, 2, 2), -jnp.log(2.0))},
    )
    model, _, found = jax.jit(lambda x: algo._learn_model(env, x, batch))(runner.learner)
    counted = np.asarray(jax.jit(algo.influence)(env, runner.learner.replace(model=model), batch))
    assert (counted[3] == 0).all()  # the end of an episode
    rest = np.delete(counted, 3, axis=0)
    assert rest[..., 0].mean() == pytest.approx(np.log(2), abs=0.05)
    assert rest[..., 1].mean() < 0.1
    assert found["model"] == pytest.approx(np.log(2), abs=0.1)  # before it learnt


def test_without_its_weight_it_is_ppo():
    algo, env, runner, batch = played("env=prisoners_dilemma", "algo.influence_weight=0.0")
    plain = load("algo=ppo", "network.hidden=[8]", "algo.num_steps=8", "env=prisoners_dilemma").algo
    found, metrics = jax.jit(algo.update)(env, runner.learner, batch, KEY)
    expected, _ = jax.jit(plain.update)(env, runner.learner.policy, batch, KEY)
    assert jax.tree.all(jax.tree.map(jnp.allclose, found.policy, expected))
    assert metrics["influence"] > 0


def test_the_weight_follows_its_schedule():
    schedule = ["algo.schedule_updates=[0,2]", "algo.schedule_shares=[0.0,1.0]", "algo.influence_weight=3.0"]
    algo, env, runner, batch = played("env=prisoners_dilemma", *schedule)
    learner, seen = runner.learner, []
    update = jax.jit(algo.update)
    for _ in range(4):
        learner, metrics = update(env, learner, batch, KEY)
        seen.append(float(metrics["influence_weight"]))
    assert seen == pytest.approx([0.0, 1.5, 3.0, 3.0])


def test_it_trains_with_memory_and_shared_seats_in_a_grid_game():
    chunk = ["num_envs=4", "num_seeds=1", "total_steps=64", "log_every=2"]
    own = ["env=cleanup_8x8_light", "algo.model.core=4", "seats=shared"]
    program = Program(load("algo=social_influence", *SMALL, *chunk, *own))
    runners = program.start()
    program.compile(runners)
    metrics = program.run_chunk(runners, 0)[1]
    assert np.isfinite(metrics["loss/influence"]).all()
    assert np.isfinite(metrics["loss/model"]).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algo.divergence=tv", r"^algo\.divergence=tv: must be one of kl, jsd$"),
        ("algo.schedule_updates=[0,1]", r"must rise and be as many as algo\.schedule_shares$"),
        ("seats=[0,tit_for_tat]", r"models all seats, so it must hold all of them$"),
    ],
)
def test_what_does_not_fit_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load("algo=social_influence", "env=prisoners_dilemma", override)
