"""Policies for users: what they play, what an exported file holds, and what is refused."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from marl.build import load_run
from marl.config import compose
from marl.policy import load_policy, load_trained
from marl.policy_file import MAX_HEADER_BYTES, export
from marl.run import run
from marl.validation import ConfigError

TINY = [
    "env.horizon=6",
    "mechanism=[reputation,gifting_fixed_budget]",
    "network=gru",
    "network.hidden=[4]",
    "network.core=4",
    "num_envs=4",
    "num_seeds=2",
    "total_steps=64",
    "log_every=1",
    "algo.num_steps=8",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(compose(TINY), folder)
    return folder


@pytest.fixture(scope="module")
def exported(trained):
    path = trained.parent / "policy.safetensors"
    export(load_trained(trained), path)
    return path


def views(policy, num, seed=0):
    """`num` different observations of one seat, leaves [num, ...]."""
    ts = jax.jit(jax.vmap(policy.env.reset))(jax.random.split(jax.random.key(seed), num))[1]
    draw = lambda x: jax.random.uniform(jax.random.key(seed), (num, *x.shape[2:]))
    return {name: draw(x) for name, x in ts.obs.items()}


def play(policy, steps=3):
    """Actions and memories of a few steps in a batch of games."""
    obs, carry = views(policy, 32), policy.initial_carry(32)
    seen = []
    for time in range(steps):
        action, carry = policy.act(obs, carry, jax.random.key(time))
        seen += [action, carry]
    return [np.asarray(x) for x in seen]


def assert_same_play(one, other):
    for a, b in zip(play(one), play(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_three_lines_choose_an_action_for_one_view_and_for_batches(trained):
    policy = load_policy(trained)
    obs = {name: x[0] for name, x in views(policy, 1).items()}
    action, carry = policy.act(obs, policy.initial_carry(), jax.random.key(0))
    assert (action.shape, action.dtype, carry.shape) == ((), np.int32, (4,))
    obs = {name: x.reshape(2, 3, -1) for name, x in views(policy, 6).items()}
    action, carry = policy.act(obs, policy.initial_carry(2, 3), jax.random.key(0), greedy=True)
    assert (action.shape, carry.shape) == ((2, 3), (2, 3, 4))


def test_a_policy_acts_as_its_learner_did_in_training(trained):
    setup, learners = load_run(trained)
    learner = jax.tree.map(lambda x: x[1], learners)
    policies = [load_policy(f"{trained}:1", seat) for seat in (0, 1)]
    obs = views(policies[0], 32)
    ts = jax.jit(jax.vmap(setup.env.reset))(jax.random.split(jax.random.key(0), 32))[1]
    ts = ts.replace(obs={name: np.stack([x, x], 1) for name, x in obs.items()})
    carry = setup.algo.initial_carry(setup.env, ts)
    action, carry, _ = setup.algo.act(setup.env, learner, carry, ts, jax.random.key(0), greedy=True)
    for seat, policy in enumerate(policies):
        own, memory = policy.act(obs, policy.initial_carry(32), jax.random.key(0), greedy=True)
        np.testing.assert_array_equal(own, action[:, seat])
        np.testing.assert_allclose(memory, carry[:, seat], rtol=1e-5, atol=1e-6)


def test_illegal_actions_are_never_chosen(trained):
    policy = load_policy(trained)
    allowed = np.arange(32) % 3
    mask = np.arange(3) == allowed[:, None]
    action, _ = policy.act(views(policy, 32), policy.initial_carry(32), jax.random.key(0), mask)
    np.testing.assert_array_equal(action, allowed)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({}, "reads vector"),
        ({"vector": np.zeros((2, 99))}, r"obs has vector \[2, 99\]; this policy reads vector"),
    ],
)
def test_another_observation_is_named(trained, obs, message):
    policy = load_policy(trained)
    with pytest.raises(ValueError, match=message):
        policy.act(obs, policy.initial_carry(2), jax.random.key(0))


def test_an_exported_policy_acts_bit_for_bit_as_the_run_and_holds_only_what_acting_needs(trained, exported):
    for seat in (0, 1):
        assert_same_play(load_policy(trained, seat), load_policy(exported, seat))
    with safe_open(exported, framework="numpy") as file:
        names = set(file.keys())
    assert names
    assert not [name for name in names if "opt_state" in name]


def test_a_moved_run_a_relative_path_and_a_copied_file_load(trained, exported, tmp_path, monkeypatch):
    reference = load_policy(trained)
    shutil.copytree(trained, tmp_path / "renamed")
    shutil.copy(exported, tmp_path / "copy.safetensors")
    monkeypatch.chdir(tmp_path)
    for name in ("renamed", "./renamed:0", "copy.safetensors", "../" + tmp_path.name + "/renamed"):
        assert_same_play(reference, load_policy(name))


def test_export_and_load_again_gives_the_same_file(exported, tmp_path):
    again = tmp_path / "again.safetensors"
    export(load_trained(exported), again)
    assert again.read_bytes() == exported.read_bytes()


@pytest.mark.parametrize(
    ("name", "seat", "message"),
    [
        ("{run}:7", 0, "the run has seeds 0 to 1"),
        ("{run}:x", 0, "the run has seeds 0 to 1"),
        ("{run}", 5, r"seat=5: only the seats \[0, 1\]"),
        ("{run}/nothing", 0, "is not a run folder"),
    ],
)
def test_a_policy_that_is_not_there_is_named(trained, name, seat, message):
    with pytest.raises(ConfigError, match=message):
        load_policy(name.format(run=trained), seat)


@pytest.mark.parametrize("name", ["policy.pkl", "nowhere/policy.safetensors"])
def test_an_export_to_a_bad_place_is_refused_and_writes_nothing(trained, tmp_path, name):
    with pytest.raises(ConfigError, match="export="):
        export(load_trained(trained), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def parts(path):
    """(tensors, spec) of an exported file."""
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["policy"])  # noqa: SIM118


def first(tensors):
    return sorted(tensors)[0]


def with_spec(**changes):
    return lambda tensors, spec: (tensors, spec | changes)


def with_tensor(change, name=None):
    def damage(tensors, spec):
        old = tensors.pop(first(tensors))
        return {name or "x": change(old), **tensors}, spec

    return damage


def in_place(change):
    def damage(tensors, spec):
        key = first(tensors)
        return tensors | {key: change(tensors[key])}, spec

    return damage


def target(path, value):
    def damage(tensors, spec):
        node = spec
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        return tensors, spec

    return damage


HACK = "touch HACKED"
DAMAGES = {
    "shape": (in_place(lambda x: np.concatenate([x, x])), "this configuration needs float32"),
    "dtype": (in_place(lambda x: x.astype(np.float64)), "this configuration needs float32"),
    "integers": (in_place(lambda x: x.astype(np.int32)), "int32.*this configuration needs float32"),
    "contents": (in_place(lambda x: x + 1), "its arrays have changed"),
    "extra": (lambda t, s: (t | {"../../evil": np.zeros(2, np.float32)}, s), "../../evil: there, not needed"),
    "renamed": (with_tensor(lambda x: x, "../../../etc/passwd"), "needed, not there"),
    "newer": (with_spec(format=2), "its format is 2, this version reads 1"),
    "no format": (with_spec(format=None), "its format is None"),
    "a list": (lambda t, s: (t, [s]), "its format is None"),
    "seats": (with_spec(seats=[0, 7]), r"its game has no seats \[0, 7\]"),
    "same seat": (with_spec(seats=[0, 0]), "its game has no seats"),
    "seat kind": (with_spec(seats=[0, True]), "entries seats"),
    "huge learner": (with_spec(learners=[0, 10**12]), "entries learners"),
    "negative": (with_spec(learners=[0, -1]), "entries learners"),
    "other learner": (with_spec(learners=[0, 0]), "this configuration needs"),
    "env gone": (with_spec(env=None), "entries env"),
    "plugins": (
        with_spec(plugins=["os"], env={"_target_": "os.system", "command": HACK}),
        "os.system is outside",
    ),
    "system": (
        with_spec(algo={"_target_": "os.system", "command": HACK}),
        "os.system is outside envs, algos, marl",
    ),
    "imported": (
        with_spec(env={"_target_": "marl.checkpoint.os.system", "command": HACK}),
        "os.system is no class or function written in envs",
    ),
    "writer": (
        with_spec(env={"_target_": "marl.checkpoint.write_atomically", "path": "HACKED", "content": ""}),
        "write_atomically is no class or function written in envs",
    ),
    "nested": (target(["algo", "network", "_target_"], "subprocess.getoutput"), "getoutput is outside"),
    "in a list": (
        target(["mechanism", "reputation", "weights"], [{"_target_": "os.system", "command": HACK}]),
        "os.system is outside",
    ),
    "interpolation": (target(["env", "horizon"], "${oc.env:HOME}"), "interpolation"),
    "bad value": (target(["env", "horizon"], -1), "env.horizon=-1: must be at least 0"),
    "unknown key": (target(["env", "colour"], "red"), "colour"),
    "state as game": (
        with_spec(env={"_target_": "envs.matrix_game.State", "last_action": 0, "time": 0}),
        "State",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_tampered_file_is_refused_in_one_line_and_nothing_runs(exported, tmp_path, monkeypatch, name):
    damage, message = DAMAGES[name]
    tensors, spec = damage(*parts(exported))
    path = tmp_path / "evil.safetensors"
    path.write_bytes(safetensors.numpy.save(tensors, {"policy": json.dumps(spec)}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as refusal:
        load_policy(path)
    assert len(str(refusal.value).splitlines()) == 1
    assert len(str(refusal.value)) < 600
    assert os.listdir(tmp_path) == ["evil.safetensors"]


class Evil:
    def __reduce__(self):
        return os.system, ("touch HACKED",)


def npz_with_a_pickle(path, good):
    with path.open("wb") as file:
        np.savez(file, params=np.array([Evil()], object))


def absurd_header(path, good):
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def long_header(path, good):
    size = MAX_HEADER_BYTES + 1
    path.write_bytes(size.to_bytes(8, "little") + b" " * size)


def deep_spec(path, good):
    text = "[" * 100_000 + "]" * 100_000
    path.write_bytes(safetensors.numpy.save({}, {"policy": text}))


BYTES = {
    "npz": (npz_with_a_pickle, "not in the safetensors format"),
    "absurd header": (absurd_header, r"a header of 4611686018427387904 bytes"),
    "long header": (long_header, "not in the safetensors format"),
    "deep": (deep_spec, "no policy to be trusted"),
    "empty": (lambda path, good: path.write_bytes(b""), "not in the safetensors format"),
    "truncated": (lambda path, good: path.write_bytes(good[:-7]), "no policy to be trusted"),
    "cut in the header": (lambda path, good: path.write_bytes(good[:99]), "not in the safetensors format"),
    "longer": (lambda path, good: path.write_bytes(good + b"more"), "no policy to be trusted"),
    "no spec": (
        lambda path, good: path.write_bytes(safetensors.numpy.save({"a": np.zeros(1)})),
        "does not say of which policy",
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_a_file_of_another_kind_is_refused_in_one_line_and_nothing_runs(
    exported, tmp_path, monkeypatch, name
):
    make, message = BYTES[name]
    path = tmp_path / "evil.safetensors"
    make(path, exported.read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as refusal:
        load_policy(path)
    assert len(str(refusal.value).splitlines()) == 1
    assert os.listdir(tmp_path) == ["evil.safetensors"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch HACKED']", "config.yaml cannot be read"),
        ("- a list", "config.yaml"),
        ("env: [", "config.yaml cannot be read"),
    ],
)
def test_a_run_folder_with_another_kind_of_configuration_is_refused(tmp_path, monkeypatch, text, message):
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as refusal:
        load_policy(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1
    assert os.listdir(tmp_path) == ["config.yaml"]
