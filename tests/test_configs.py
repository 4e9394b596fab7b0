"""Every YAML composes, builds and learns one step; bad input is named, all of it at once."""

import importlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from marl.build import build, load
from marl.config import ConfigError, compose, describe, groups
from marl.environment import event_names
from marl.learner import start, train
from marl.program import Program
from marl.targets import check_targets
from tests.files import written

SMALL = [
    "num_envs=4",
    "num_seeds=1",
    "total_steps=16",
    "log_every=1",
    "algo.num_steps=4",
    "network.hidden=[8]",
]


LEARNING = [name for name in groups()["algo"] if "network" in written("algo", name)]
TORSOS = [name for name in groups()["network"] if name != "table"]


def game_for(name):
    """Overrides that choose a game which tells the events that an algorithm reads, if it reads any."""
    module, _, kind = compose([f"algo={name}"]).algo._target_.rpartition(".")
    reads = set(getattr(importlib.import_module(module), kind).reads)
    if not reads:
        return []
    tells = lambda game: reads <= set(event_names(load(f"env={game}", *SMALL).env))
    return [f"env={next(filter(tells, groups()['env']))}", "seats=shared"]


def learn_once(*overrides):
    """Metrics of one chunk of training."""
    program = Program(load(*overrides))
    runners = program.start()
    program.compile(runners)
    return program.run_chunk(runners, 0)[1]


@pytest.mark.parametrize("name", groups()["env"])
def test_every_environment_composes_and_builds(name):
    setup = load(f"env={name}", *SMALL)
    _, ts = jax.eval_shape(setup.env.reset, jax.random.key(0))
    assert ts.reward.shape == (setup.env.num_agents,)


def trace_once(*overrides):
    """Shapes of what an update tells, (tally, losses), [1, ...]; nothing is compiled."""
    setup = load(*overrides)
    num_envs, updates = setup.cfg.num_envs, jnp.arange(1)
    begin = lambda key: start(setup.algo, setup.env, key, num_envs)
    learn = lambda key: train(setup.algo, setup.env, begin(key), key, updates)
    return jax.eval_shape(learn, jax.random.key(0))[1]


@pytest.mark.parametrize("name", LEARNING)
def test_every_algorithm_fits_a_game(name):
    overrides = [f"algo={name}", *game_for(name), *SMALL]
    tally, losses = trace_once(*overrides)
    assert tally.reward.shape == (1, load(*overrides).env.num_agents)
    assert losses


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_every_algorithm_learns_one_step(name):
    metrics = learn_once(f"algo={name}", *game_for(name), *SMALL)
    assert np.isfinite(metrics["reward"]).all()


@pytest.mark.parametrize("name", TORSOS)
def test_every_network_fits_a_grid_game(name):
    tally, losses = trace_once("env=coin_game", f"network={name}", *SMALL)
    assert tally.reward.shape == (1, 2)
    assert losses["value_error"].shape == (1,)


@pytest.mark.parametrize(
    "name", [name if name == "cnn_gru" else pytest.param(name, marks=pytest.mark.slow) for name in TORSOS]
)
def test_every_network_learns_one_step_in_a_grid_game(name):
    metrics = learn_once("env=coin_game", f"network={name}", *SMALL)
    assert np.isfinite(metrics["loss/value_error"]).all()


BESIDE = ("figure", "num_seeds", "seed", "total_steps", "log_every")  # what no object is built of


@pytest.mark.parametrize("name", groups()["experiment"])
def test_every_experiment_plans_its_runs_at_every_scale_and_states_claims(name):
    from marl.experiment import BOUNDS, plan

    figure, seen = compose([f"experiment={name}"]).figure, set()
    for scale in figure.scales:
        runs = plan(name, [], scale)
        for cfg in runs.values():
            if not isinstance(cfg.seats, str):  # learners of earlier runs of the figure are not there yet
                cfg.seats = ["random" if seat in runs else seat for seat in cfg.seats]
            kind = json.dumps({k: v for k, v in OmegaConf.to_container(cfg).items() if k not in BESIDE})
            if kind not in seen:
                Program(build(cfg))
            seen.add(kind)
        for claim in figure.claims[scale]:
            assert {claim.run, claim.get("minus", claim.run)} <= runs.keys() or figure.get("after")
            assert sum(kind in claim for kind in BOUNDS) == 1
            assert {claim.statistic, claim.get("minus_statistic", "low")} <= {"iqm", "mean", "low", "high"}


@pytest.mark.parametrize("group", sorted(groups()))
def test_every_choice_says_what_it_is(group):
    silent = [name for name in groups()[group] if not describe(group, name)]
    assert silent == []


def errors_of(*overrides):
    with pytest.raises(ConfigError) as caught:
        build(compose(overrides))
    return caught.value.errors


def test_all_errors_are_named_in_one_message():
    wrong = [
        "env=prisoner_dilemma",
        "algo.learning_rate=-1",
        "algo.gama=0.9",
        "num_envs=0",
        "seed=abc",
        "algo.gamma=nan",
    ]
    found = errors_of(*wrong)
    assert len(found) == 6
    text = "\n".join(found)
    assert "env=prisoner_dilemma: no such env, did you mean prisoners_dilemma?" in text
    assert "algo.gama: no such key, did you mean algo.gamma?" in text
    assert "algo.learning_rate=-1: must be greater than 0" in text
    assert "num_envs=0: must be at least 1" in text
    assert "seed=abc: must be a whole number" in text
    assert "algo.gamma=nan: must be a finite number" in text


def test_null_sets_back_what_an_experiment_chose_where_the_rule_has_none():
    chosen = ["experiment=cook2024/fig5_left", "algo.value_clip_eps=0.1"]
    assert compose(chosen).algo.value_clip_eps == 0.1
    assert compose([*chosen, "algo.value_clip_eps=null"]).algo.value_clip_eps is None
    assert errors_of(*chosen, "algo.gamma=null") == ["algo.gamma=null: must be a finite number"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algo.num_minibatches=7", "algo.num_minibatches=7: must divide num_envs * algo.num_steps = 2048"),
        (
            "algo.num_accumulations=3",
            "algo.num_accumulations=3: must divide num_envs * algo.num_steps / algo.",
        ),
        ("algo.group_size=3", "algo.group_size=3: must be at least 1 and divide num_envs = 64"),
        ("algo.group_size=0", "algo.group_size=0: must be at least 1 and divide num_envs = 64"),
        (
            "algo.group_size=8",
            "algo.group_size=8: needs whole episodes, algo.num_steps=32 a multiple of the game's",
        ),
        ("algo.learning_rate=inf", "algo.learning_rate=inf: must be a finite number"),
        ("algo.gamma=1.5", "algo.gamma=1.5: must lie in [0, 1]"),
        ("algo.separate_critic=3", "algo.separate_critic=3: must be true or false"),
        ("num_seeds=2.5", "num_seeds=2.5: must be a whole number"),
        ("seats=[0]", "seats=[0]: must be independent, shared or a list of 2 entries"),
        ("seats=typed", "seats=typed: this game has no types of seats"),
        ("seats=[0,2]", "learners must be 0..P-1"),
        ("seats=[0,tit_for_tut]", "no player tit_for_tut, did you mean tit_for_tat?"),
        ("network.activation=swish", "network.activation=swish: must be tanh, relu, elu, silu or leaky_relu"),
        ("network=cnn", "network: this game has no grid to convolve; use network=mlp"),
        ("algo.critic_learning_rate=0.0", "algo.critic_learning_rate=0.0: must be greater than 0"),
        ("+sweep.algo.entcoef=[1]", "sweep.algo.entcoef: no such key"),
        ("num_envs", "num_envs: not of the form key=value"),
        ("mechanism=[sanctions]", "mechanism=sanctions: no such mechanism, did you mean sanction?"),
    ],
)
def test_bad_input_is_named_with_what_is_allowed(override, message):
    assert message in "\n".join(errors_of(override))


def test_recurrent_minibatches_are_cut_along_games():
    assert errors_of("network=gru", "num_envs=6") == ["algo.num_minibatches=4: must divide num_envs = 6"]


def test_sweeping_what_fixes_a_shape_is_refused():
    with pytest.raises(ConfigError, match="not a number-only field"):
        Program(load("+sweep.algo.num_steps=[8,16]"))


def test_whole_floats_become_integers_and_integers_floats():
    cfg = compose(["total_steps=1e6", "algo.gamma=1"])
    assert (cfg.total_steps, type(cfg.total_steps)) == (1_000_000, int)
    assert type(cfg.algo.gamma) is float


def test_targets_outside_our_packages_are_refused_unless_plugged_in():
    cfg = compose(["env._target_=os.system"])
    with pytest.raises(ConfigError, match=re.escape("_target_ os.system is outside envs, algos, marl")):
        build(cfg)
    nested = {"algo": {"credit": {"_target_": "shutil.rmtree"}}, "plugins": []}
    with pytest.raises(ConfigError, match=re.escape("shutil.rmtree")):
        check_targets(nested)
    check_targets({"env": {"_target_": "my_games.Game"}, "plugins": ["my_games"]})


def test_a_figure_calls_only_functions_that_are_marked_for_it():
    check_targets({"figure": {"plot": {"_target_": "marl.plots.bars"}}})
    for target in ("marl.plots.pyplot", "marl.run.run", "envs.coin_game.CoinGame"):
        with pytest.raises(ConfigError, match=f"{re.escape(target)} is no function marked for_figures"):
            check_targets({"figure": {"measure": {"_target_": target}}})


def test_swept_values_train_as_if_alone():
    sweep = learn_once(*SMALL, "mechanism=[sanction]", "+sweep.mechanism.sanction.fine=[0.5,3.0]")
    for i, fine in enumerate((0.5, 3.0)):
        alone = learn_once(*SMALL, "mechanism=[sanction]", f"mechanism.sanction.fine={fine}")
        np.testing.assert_allclose(sweep["reward"][i], alone["reward"], rtol=1e-5)


def test_swept_keys_multiply():
    program = Program(load("+sweep.algo.ent_coef=[0.0,0.1]", "+sweep.algo.gamma=[0.9,0.95,0.99]"))
    assert program.points[1] == {"algo.ent_coef": 0.0, "algo.gamma": 0.95}
    assert len(program.points) == 6


def test_a_new_entry_of_a_group_is_written_with_a_plus():
    weights = load("mechanism=[gifting,reputation]", "+mechanism.reputation.weights.gave=2.0").env.weights
    assert weights == {"cooperated": 1.0, "defected": -1.0, "gave": 2.0}
    assert (
        "mechanism.reputation.weights.gave: no such key"
        in errors_of("mechanism=[gifting,reputation]", "mechanism.reputation.weights.gave=2.0")[0]
    )
    assert (
        "unknown_event"
        in errors_of("mechanism=[reputation]", "+mechanism.reputation.weights.unknown_event=1")[0]
    )
