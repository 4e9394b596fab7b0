"""Learners that begin with what the learners of another run know."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from marl.build import Setup, learning_member, load_run
from marl.population import Mixture
from marl.validation import ConfigError


def begin_from(folder: str, setup: Setup, runners: Any) -> Any:
    """The runners [S, ...] or [V, S, ...] before the first update, with learners of a run, seed by seed.

    What a learner needs to act is taken over (of PPO all parameters); the rest, such as an
    optimiser's state, stays fresh. Fixed players may hold other seats, in either run.

    Args:
        folder: the run, of the same learning rule, network and number of seeds.
        setup: of the run that begins.
        runners: fresh ones.

    Raises:
        ConfigError: if there is no such run, or its learners do not fit.
    """
    wrong = f"start_from={folder}:"
    algo, fresh = learning_member(setup.algo, runners.learner)
    if not dataclasses.is_dataclass(fresh) or hasattr(algo, "algo"):
        raise ConfigError([f"{wrong} there must be a learner, one that has no past"])
    try:
        source, learner = load_run(folder, tuple(setup.cfg.plugins))
    except FileNotFoundError as error:
        raise ConfigError([f"{wrong} {error}"]) from error
    if source.cfg.sweep:
        raise ConfigError([f"{wrong} is a sweep; only a run of one setting can be begun from"])
    learned, learner = learning_member(source.algo, learner)
    known = learned.for_acting(learner)
    if type(known) is not type(fresh):
        raise ConfigError([f"{wrong} its learning rule is {type(learned).__name__}"])
    names = [f.name for f in dataclasses.fields(fresh) if jax.tree.leaves(getattr(known, f.name))]
    taken = {name: _fitted(getattr(known, name), getattr(fresh, name), wrong) for name in names}
    begun = fresh.replace(**taken)
    learner = (begun, *runners.learner[1:]) if isinstance(setup.algo, Mixture) else begun
    return runners.replace(learner=learner)


def _fitted(known: Any, fresh: Any, wrong: str) -> Any:
    """`known` leaves [S, ...] as leaves of the shapes of `fresh`, [S, ...] or [V, S, ...]."""
    if jax.tree.structure(known) != jax.tree.structure(fresh):
        raise ConfigError([f"{wrong} its network has other parts than this run's"])

    def fit(path: Any, old: Array, new: Array) -> Array:
        if old.shape not in (new.shape, new.shape[1:]):
            name = jax.tree_util.keystr(path)
            raise ConfigError([f"{wrong} {name} has shape {list(old.shape)} there, here {list(new.shape)}"])
        return jnp.array(jnp.broadcast_to(jnp.asarray(old), new.shape))

    return jax.tree.map_with_path(fit, known, fresh)
