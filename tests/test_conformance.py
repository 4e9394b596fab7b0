"""Every game in configs/env, alone and in stacks of the mechanisms in configs/mechanism.

New files are picked up by themselves. A game that is the first of its class is typed in all
stacks, the others (presets) in the two stacks of all mechanisms. Play, which must be compiled,
goes through every game alone (presets in the slow tests, and some steps of them in test_playthroughs)
and through each stack in games of about PLAYED_IN classes.
"""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from omegaconf import OmegaConf

from marl.build import build_env
from marl.config import compose, groups
from marl.environment import Mechanism
from tests import conformance, toys
from tests.files import classes, presets_slow

PLAYED_IN = 2
EAGER_SEATS = 64  # a crowd whose seats take turns needs minutes without compilation
STEPS, LONG = 40, 1000  # played; the longest horizon that is played to its end
GAMES = groups()["env"]
MECHANISMS = groups()["mechanism"]
KEY = jax.random.key(0)


@functools.cache
def config(group, name):
    """The config node of a game, or the {key: node} of a mechanism."""
    chosen = f"mechanism=[{name}]" if group == "mechanism" else f"env={name}"
    return OmegaConf.to_container(compose([chosen])[group])


@functools.cache
def stacks():
    """Each mechanism alone; then, without variants of the same key, three deep in all rotations, and all.

    Stacks are tuples of names, inner first.
    """
    first = {}
    for name in MECHANISMS:
        first.setdefault(next(iter(config("mechanism", name))), name)
    base = list(first.values())
    turned = [tuple((base + base)[i : i + 3]) for i in range(len(base))]
    return [(name,) for name in MECHANISMS] + turned + [tuple(base), tuple(base[::-1])]


def build(game, stack):
    """The game inside the stack; skips what the objects refuse with a message of their own."""
    mechanisms = {k: v for name in stack for k, v in config("mechanism", name).items()}
    env = build_env(OmegaConf.create({"env": config("env", game), "mechanism": mechanisms}))
    try:
        env.check()
    except ValueError as refusal:
        if not str(refusal).startswith(("mechanism.", "mechanism ")):
            raise
        pytest.skip(str(refusal))
    return env


@pytest.mark.parametrize("game", presets_slow("env", GAMES))
def test_game_alone_keeps_its_promises(game):
    env = build(game, ())
    horizon = env.fixed_horizon or 0
    steps = STEPS if horizon > LONG else max(STEPS, horizon + 2)
    conformance.check(env, KEY, steps)


@pytest.mark.slow  # every operation is compiled by itself
@pytest.mark.parametrize("game", classes())
def test_game_plays_alike_without_compilation(game):
    env = build(game, ())
    if env.num_agents > EAGER_SEATS:
        pytest.skip("a crowd")
    conformance.check_eager(env, KEY)


@functools.cache
def hollow(game):
    """The game with a reset and steps that give zeros of its shapes: quick to trace, for types alone."""
    env = build(game, ())
    shapes = jax.eval_shape(env.reset, KEY)
    zeros = lambda *_: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    kind = type(type(env).__name__, (type(env),), {"reset": zeros, "step": zeros, "__module__": __name__})
    return kind(**{field.name: getattr(env, field.name) for field in dataclasses.fields(env)})


def hollowed(env, game):
    """The stack around the hollow game."""
    return env.replace(env=hollowed(env.env, game)) if isinstance(env, Mechanism) else hollow(game)


@pytest.mark.parametrize("game", GAMES)
def test_types_hold_in_stacks(game):
    tried = 0
    for stack in stacks() if game in classes() else stacks()[-2:]:
        with contextlib.suppress(pytest.skip.Exception):
            conformance.check_types(hollowed(build(game, stack), game), KEY)
            tried += 1
    if not tried:
        pytest.skip("these stacks refuse the game")


def played():
    """Pairs of a game and a stack, so that a stack meets games of about PLAYED_IN classes."""
    apart = max(1, len(classes()) // PLAYED_IN)
    return [
        pytest.param(game, stack, id=f"{game}-{'-'.join(stack)}")
        for i, game in enumerate(classes())
        for j, stack in enumerate(stacks())
        if (i - j) % apart == 0
    ]


@pytest.mark.parametrize(("game", "stack"), played())
def test_stack_keeps_the_promises(game, stack):
    conformance.check(build(game, stack), KEY, STEPS)


def spoil(change):
    """A game that obeys the contract but for `change(state, ts) -> (state, ts)` after each step."""

    class Spoilt(toys.Commons):
        def step(self, key, state, action):
            return change(*super().step(key, state, action))

    return Spoilt(growth=2.0, noise=0.5, end_prob=0.1, num_seats=3, horizon=8, blind=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, ts: (s, ts.replace(reward=ts.reward.astype(jnp.float16))), "after step"),
        (lambda s, ts: (s, ts.replace(truncated=jnp.asarray(False))), "does not end"),
        (lambda s, ts: (s, ts.replace(reward=ts.reward / 0)), "not finite"),
        (lambda s, ts: (s, ts.replace(action_mask=ts.action_mask & False)), "no legal action"),
        (lambda s, ts: (s, ts.replace(obs=ts.obs | {"grid": ts.obs["grid"] + 1})), "code is out of range"),
        (lambda s, ts: (s.replace(time=jnp.asarray(3)), ts), "weakly typed"),
        (lambda s, ts: (s, ts.replace(obs={"grid": ts.obs["grid"]})), "structure"),
    ],
)
def test_conformance_finds_a_broken_promise(change, message):
    with pytest.raises(AssertionError, match=message):
        conformance.check(spoil(change), KEY, 16)


def test_conformance_finds_a_difference_between_compiled_and_eager_play():
    def lie(state, ts):
        compiled = isinstance(ts.reward, jax.core.Tracer)
        return state, ts.replace(reward=ts.reward + compiled)

    with pytest.raises(AssertionError, match="reward"):
        conformance.check_eager(spoil(lie), KEY)


@pytest.mark.parametrize("horizon", [0, 8])
def test_conformance_is_content_with_an_honest_game(horizon):
    game = toys.commons(horizon=horizon, end_prob=0.2, noise=0.5)
    conformance.check(game, KEY, 40)
    conformance.check_eager(game, KEY)
