"""In-context cultural accumulation: generations of one policy that know what they saw in their lifetime.

**Source**: algorithm 2 of Cook, Lu, Hughes, Leibo and Foerster 2024 (arXiv 2406.00392) and its authors'
code. Parameters are frozen; a generation is a population whose recurrent states begin empty, and each of its
members plays one episode of K trials beside the generation before. A predecessor's state is the one that it
had before its last trial, and it is set back to it at the start of each trial. It sees the member's own
actions and rewards and no demonstrators. The first generation sees demonstrators that act at random. A single
lifetime (RL^2) is one generation of more trials. The code differs: there predecessors repeat actions
(`replay_ratchet`, see `marl.ancestors`).

A game for this has, like `envs.demonstrated_game`, `demonstrators`, `num_trials`, `max_trial_steps`,
`instance`, `best_first`, `novices()`, `lasting(num_trials)`, `trial(state)`, `show(obs, action)` and
`alone(obs)`, and tells the event `score`. Where demonstrators hold seats, the last ones, as in
`envs.seated_demonstrator`, there is no `show`: predecessors act there.
Axes: S seeds, C instances, G generations, K trials, N members, M demonstrators (one, if it holds a seat).
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.ancestors import PREDECESSORS, Life, choose
from marl.build import learning_member, load_run
from marl.environment import TimeStep
from marl.figures import for_figures
from marl.secrets import read_run_config
from marl.statistics import swept_summary
from marl.validation import ConfigError

NEEDS = ("demonstrators", "max_trial_steps", "novices", "lasting", "alone", "trial")


@for_figures
def in_context(
    *,
    folders: dict[str, Path],
    name: str,
    lives: dict[str, dict[str, int]],
    num_instances: int,
    instance: Any,
    seed: int,
    greedy: bool,
    predecessors: str,
) -> dict[str, dict]:
    """Let trained runs live in generations, or in one long lifetime; a node `after` of a figure.

    Args:
        folders: {run: its folder}.
        name: of what this gives.
        lives: {run: {generations: G, trials: K, members: N}} of the runs that this is about. The members
            whose last trial was best, as many as there are demonstrators, are seen by the next generation.
            Without generations the run is left out.
        num_instances: C, drawn for each seed, none of them met in training.
        instance: null, or one for all.
        seed: of all draws.
        greedy: likeliest actions instead of samples.
        predecessors: state_reset, algorithm 2, or replay_ratchet, the authors' code for figure 4 left: one
            demonstrator repeats the actions of the best trial so far, where demonstrators hold a seat and all
            trials are of the same length.

    Returns:
        {"RUN NAME": summary} whose swept value is "trial", 0 .. G K - 1, one value a seed. Metrics: `score`
        of a trial, mean over members and instances; `generation_score`, its mean over the trials of the same
        generation; `growth`, that less the one of the first generation.

    Raises:
        ConfigError: if a run is unknown, or its game has no demonstrators to be seen or repeated.
    """
    found = {}
    for run, life in lives.items():
        if not life["generations"]:
            continue
        if run not in folders:
            raise ConfigError([f"figure.after: no run {run}; there are {', '.join(folders)}"])
        began, folder = time.perf_counter(), folders[run]
        setup, learners = load_run(folder, read_run_config(folder / "config.yaml").plugins)
        algo, learners = learning_member(setup.algo, learners)
        _check(setup.env, name, run, life, predecessors)
        env = setup.env.lasting(life["trials"])
        learners = algo.for_acting(learners)
        keys = jax.random.split(jax.random.key(seed), jax.tree.leaves(learners)[0].shape[0])
        sizes = {"num_generations": life["generations"], "num_members": life["members"]}
        sizes |= {"num_instances": num_instances, "predecessors": predecessors}
        own = None if instance is None else jnp.asarray(instance)
        score = _seeds(env, algo, learners, keys, own, greedy=greedy, **sizes)
        score = np.asarray(score, np.float64)  # [S, G, K]
        whole = np.broadcast_to(score.mean(-1, keepdims=True), score.shape)
        told = {"score": score, "generation_score": whole, "growth": whole - whole[:, :1]}
        told = {k: v.reshape(len(keys), -1).T for k, v in told.items()}  # [G K, S]
        found[f"{run} {name}"] = swept_summary(told, "trial", range(len(told["score"])), began)
    return found


def _check(env: Any, name: str, run: str, life: dict[str, int], predecessors: str) -> None:
    """Raise ConfigError for a game that lacks something, or predecessors that it cannot have."""
    kind, key = type(env).__name__, f"figure.after.{name}.predecessors={predecessors}"
    if absent := [need for need in NEEDS if not hasattr(env, need)]:
        raise ConfigError([f"figure.after: run {run}: {kind} has no {absent[0]}"])
    if predecessors not in PREDECESSORS:
        raise ConfigError([f"{key}: must be one of {', '.join(PREDECESSORS)}"])
    if predecessors == "replay_ratchet" and hasattr(env, "show"):
        raise ConfigError([f"{key}: in {kind} no seat is a demonstrator's: must be state_reset"])
    if life["members"] < max(env.demonstrators, 1):
        raise ConfigError([f"figure.after: lives.{run}.members={life['members']}: must be at least M"])


SIZES = ("num_generations", "num_members", "num_instances", "greedy", "predecessors")


@functools.partial(jax.jit, static_argnames=SIZES)
def _seeds(
    env: Any,
    algo: Any,
    learners: Any,
    keys: Array,
    instance: Any,
    *,
    num_generations: int,
    num_members: int,
    num_instances: int,
    greedy: bool,
    predecessors: str,
) -> Array:
    """[S, G, K] mean scores over members and instances; one seed after the other."""

    def one(now: tuple) -> Array:
        learner, key = now
        draw_key, key = jax.random.split(key)
        drawn = jax.vmap(env.draw_instance)(jax.random.split(draw_key, num_instances))
        drawn = drawn if instance is None else jnp.broadcast_to(instance, drawn.shape).astype(drawn.dtype)
        sizes = {"num_generations": num_generations, "num_members": num_members}
        sizes |= {"greedy": greedy, "predecessors": predecessors}
        chain = lambda key, drawn: generations(env.replace(instance=drawn), algo, learner, key, **sizes)
        return jax.vmap(chain)(jax.random.split(key, num_instances), drawn).mean((0, 3))

    return jax.lax.map(one, (learners, keys))


def generations(
    env: Any,
    algo: Any,
    learner: Any,
    key: Array,
    *,
    num_generations: int,
    num_members: int,
    greedy: bool,
    predecessors: str = "state_reset",
) -> Array:
    """[G, K, N] scores of all trials of one chain of generations, on the instance of `env`."""
    env = env.novices()
    first = jax.eval_shape(jax.vmap(env.reset), jax.random.split(key, num_members))[1]
    first = first if hasattr(env, "show") else first.take([0], axis=1)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    saved = (algo.initial_carry(env, empty), empty.obs)  # [N, ...]
    act = lambda carry, ts, key: algo.act(env, learner, carry, ts, key, greedy)[:2]

    def generation(before: Any, now: tuple[Array, Array]) -> tuple[Any, Array]:
        number, key = now
        life = _lifetime(env, act, before, number > 0, key, saved)
        return before.succeeded(env, life), life.score

    now = jnp.arange(num_generations), jax.random.split(key, num_generations)
    return jax.lax.scan(generation, PREDECESSORS[predecessors].nobody(env, saved), now)[1]


def _lifetime(env: Any, act: Any, before: Any, has_predecessors: Array, key: Array, empty: Any) -> Life:
    """An episode of one generation of N members.

    Args:
        env: the game, with demonstrators that act at random.
        act: (carry, ts, key) -> action, carry.
        before: the predecessors, see `marl.ancestors`.
        has_predecessors: [] bool, whether there are; else the game's demonstrators are seen.
        key: all randomness.
        empty: carry and obs of the members, leaves [N, ...], the carry as at birth.
    """
    num, seen, trials = jax.tree.leaves(empty)[0].shape[0], env.demonstrators, env.num_trials
    reset_key, key = jax.random.split(key)
    state, ts = jax.vmap(env.reset)(jax.random.split(reset_key, num))

    def view(ts: TimeStep, carry: Any, began: Array, key: Array) -> tuple[TimeStep, Array | None, Any]:
        """What the members see, what is done in other seats [N, M], and the predecessors' carry."""
        if not seen:
            return ts, None, carry
        if hasattr(env, "show"):
            action, carry = before.act(env, act, ts, carry, began, key)
            shown = env.show(ts.obs, action[:, None])
            shown = jax.tree.map(lambda x, y: jnp.where(has_predecessors, x, y), shown, ts.obs)
            return ts.replace(obs=shown), None, carry
        ask_key, key = jax.random.split(key)
        theirs = ts.take(range(1, 1 + seen), axis=1)
        action, carry = before.act(env, act, theirs, carry, began, ask_key)
        anything = jax.random.randint(key, action.shape, 0, env.action_space.n, action.dtype)
        return ts.take([0], axis=1), jnp.where(has_predecessors, action, anything), carry

    def step(now: tuple, key: Array) -> tuple[tuple, Array]:
        state, ts, carry, watched, began, kept, score = now
        watch_key, act_key, env_key = jax.random.split(key, 3)
        trial = env.trial(state)
        own, others, watched = view(ts, watched, began, watch_key)
        kept = choose(began & (trial == trials - 1), (carry, env.alone(own.obs)), kept)
        action, carry = act(carry, own, act_key)
        done, action = action[:, 0], action if others is None else jnp.concatenate([action, others], axis=1)
        state, ts = jax.vmap(env.step)(jax.random.split(env_key, num), state, action)
        score += (jnp.arange(trials)[:, None] == trial) * ts.events["score"][:, 0]
        return (state, ts, carry, watched, env.trial(state) != trial, kept, score), done

    theirs = before.begin(num)
    first = (state, ts, empty[0], theirs, jnp.ones(num, bool), empty, jnp.zeros((trials, num)))
    keys = jax.random.split(key, trials * env.max_trial_steps)
    (*_, kept, score), actions = jax.lax.scan(step, first, keys)
    return Life(kept, score, actions.reshape(trials, env.max_trial_steps, num))
