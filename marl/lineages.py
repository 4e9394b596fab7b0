"""In-weights cultural accumulation: generations of learners, each beside the one before it, frozen.

**Source**: algorithm 3 of Cook, Lu, Hughes, Leibo and Foerster 2024 (arXiv 2406.00392). A generation is a
population of learners with games of their own. The predecessors are seen with a probability that falls
linearly from 1 at the start of a generation to 0 at its end; those of the first generation are untrained.

Three kinds of games can be lived in. Where predecessors are told about (`envs.demonstrated_game`), a game has
what `marl.predecessors` asks for. Where they act (`envs.seated_demonstrator`), they hold the seats that
`seats` gives to players that do not learn, who hold them in the first generation: the founders. A game whose
players cannot fade from view (a social dilemma) has neither `seen_with` nor an instance: there a generation
of newcomers plays among its elders, which is ours, not the source's. The best are those of the highest
return in the last point of their curve (the source: in their last episode).
Axes: S seeds, N members, P learners of a member, M predecessors, U updates of a generation, B points of it.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.build import Setup
from marl.console import ChunkProgress
from marl.figures import for_figures
from marl.learner import Runner, start, train
from marl.metrics import SHARES, Tally, report
from marl.population import Frozen, Mixture
from marl.predecessors import Learner, Predecessors
from marl.sharding import num_devices, over_devices
from marl.stages import keep, newest
from marl.statistics import swept_summary
from marl.validation import ConfigError

SEEN = ("all", "best", "founders", "none")


@for_figures
def in_weights(
    *,
    setup: Setup,
    num_generations: int,
    num_members: int,
    num_fresh: int,
    renewed: list[str],
    seen: str,
    flag: float,
    num_points: int,
) -> dict[str, Any]:
    """Train generations; a run's summary whose swept value is "step", environment steps so far.

    Each seed has an instance of its own, the same for all its generations, unless the game names one or has
    none. Metrics of the seats that learn: `return` of the episodes, mean over members and over the updates of
    a point; `best_return`, of the member with the highest one; where the game tells them, `score` of a trial,
    and shares such as `cooperation_rate` (see `marl.metrics`).

    Args:
        setup: the game and the algorithm; `total_steps` of its configuration are those of one generation, of
            each member.
        num_generations: G; one, with more steps, is a single lifetime.
        num_members: N.
        num_fresh: generations that begin with fresh learners; later ones continue the members before them.
        renewed: names of the layers that begin anew even then.
        seen: all, the learners of the generation before fill slots or seats, in turn; best, those of the
            member with the highest return do; founders, those of the first generation stay; none.
        flag: what predecessors are told where learners are told whether they see anybody.
        num_points: B, points of the curve of each generation.

    Raises:
        ConfigError: if the game has no slots and nobody else a seat, or numbers do not fit.
    """
    began, cfg, env = time.perf_counter(), setup.cfg, setup.env
    algo = setup.algo.members[0] if isinstance(setup.algo, Mixture) else setup.algo
    _check(setup, num_generations, num_members, num_fresh, num_points, seen)
    keys, drawn = _drawn(setup)
    steps = cfg.num_envs * algo.num_steps
    sizes = {"num_points": num_points, "point_updates": math.ceil(cfg.total_steps / (steps * num_points))}
    sizes["devices"] = num_devices(cfg)
    steps_lived = steps * num_points * sizes["point_updates"] * num_members * cfg.num_seeds
    done, before, found = _lived(setup, algo, keys, num_generations, num_members)
    with ChunkProgress(f"{num_generations} generations", "generation") as progress:
        for number in range(done, num_generations):
            fresh, untrained = _newborns(env, algo, _learning(setup), keys, number, num_members)
            current = fresh if number < num_fresh else _kept(before[0], fresh, tuple(renewed))
            rule, learners = _rule(setup, algo, current, before or (untrained, None), number, seen, flag)
            began_with = (rule, env, drawn, learners, keys, jnp.int32(number))
            told = {"sees": seen != "none", "learning": _learning(setup), "num_envs": cfg.num_envs}
            before, metrics = _generation(*began_with, **told, **sizes)
            found.append(jax.tree.map(np.asarray, metrics))
            keep(setup.keep, number + 1, before, jax.tree.map(np.ndarray.tolist, found))
            lived = steps_lived * (number + 1 - done)
            progress(number + 1, num_generations, lived / (time.perf_counter() - began))
    joined = {k: np.concatenate([told[k] for told in found], axis=1).T for k in found[0]}  # [G B, S]
    points = steps * sizes["point_updates"] * np.arange(1, num_generations * num_points + 1)
    return swept_summary({k: v.astype(np.float64) for k, v in joined.items()}, "step", points, began)


def _lived(
    setup: Setup, algo: Any, keys: Array, num_generations: int, num_members: int
) -> tuple[int, Any, list[dict[str, np.ndarray]]]:
    """Generations lived before a stop, what `_generation` gave of the last one, and the metrics of each."""
    newborns = lambda: _newborns(setup.env, algo, _learning(setup), keys, 0, num_members)[0]
    returns = jax.ShapeDtypeStruct((len(keys), num_members), np.float32)
    done, before, told = newest(setup.keep, lambda: (newborns(), returns))
    if done:
        print(f"goes on after generation {done} of {num_generations}", flush=True)
    return done, before, [{name: np.array(x) for name, x in metrics.items()} for metrics in told or ()]


def _drawn(setup: Setup) -> tuple[Array, Array | None]:
    """The seeds' keys [S] and instances [S, ...] of the game, None where it names one or has none."""
    cfg, env = setup.cfg, setup.env
    seeds = jax.vmap(jax.random.key)(jnp.arange(cfg.seed, cfg.seed + cfg.num_seeds))
    instance_keys, keys = jax.vmap(jax.random.split, out_axes=1)(seeds)
    if not hasattr(env, "draw_instance") or env.instance is not None:
        return keys, None
    return keys, jax.vmap(env.draw_instance)(instance_keys)


def _learning(setup: Setup) -> tuple[int, ...]:
    """The seats that learn."""
    if not isinstance(setup.algo, Mixture):
        return tuple(range(setup.env.num_agents))
    return tuple(i for i, member in enumerate(setup.algo.holder) if member == 0)


@functools.partial(jax.jit, static_argnames=("learning", "num_members"))
def _newborns(
    env: Any, algo: Any, learning: tuple[int, ...], keys: Array, number: Any, num_members: int
) -> tuple[Any, Any]:
    """Learners [S, N, ...] of a generation, and as many that stay untrained; compiled by itself, once."""
    ts = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 1))[1].take(learning, axis=1)

    def one(key: Array) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, number), 2 * num_members)
        return jax.vmap(lambda key: algo.init(key, env, ts))(keys)

    born = jax.vmap(one)(keys)
    pick = lambda part: jax.tree.map(lambda x: x[:, part], born)
    return pick(slice(num_members)), pick(slice(num_members, None))


def _rule(
    setup: Setup, algo: Any, current: Any, before: tuple, number: int, seen: str, flag: float
) -> tuple[Any, Any]:
    """The rule, and its learners [S, N, ...], whom all meet [S, ...]; `before`: learners, returns [S, N]."""
    seated = isinstance(setup.algo, Mixture)
    if not seated and seen == "none":
        return algo, current
    if not seated:
        past = _elders(algo.for_acting(before[0]), before[1], setup.env.demonstrators, seen, False)
        return Predecessors(algo=algo, flag=jnp.float32(flag)), Learner(current, past)
    num = setup.env.num_agents - len(_learning(setup))
    if number == 0 or seen in ("founders", "none"):
        return setup.algo, (current, *((),) * (len(setup.algo.members) - 1))
    past = _elders(algo.for_acting(before[0]), before[1], num, seen, True)
    elders = Frozen(algo.replace(seats=tuple(range(num))), ())
    holder = tuple(int(member > 0) for member in setup.algo.holder)
    return Mixture((algo, elders), holder), (current, past)


@functools.partial(jax.jit, static_argnames=("num", "seen", "seated"))
def _elders(learners: Any, return_: Array | None, num: int, seen: str, seated: bool) -> Any:
    """`num` predecessors, whom all members of a seed meet.

    Args:
        learners: leaves [S, N, P, ...]; return_: [S, N], None: any is the best.
        num: M.
        seen: all or best.
        seated: they hold seats.

    Returns:
        leaves [S, M, ...] if seated, else [S, M, P, ...].
    """

    def one(x: Array) -> Array:
        if seen == "best":
            best = jnp.zeros(len(x), jnp.int32) if return_ is None else return_.argmax(-1)
            x = jnp.take_along_axis(x, best.reshape(-1, *(1,) * (x.ndim - 1)), 1)
        x = x.reshape(x.shape[0], -1, *x.shape[3:]) if seated else x
        return x[:, np.arange(num) % x.shape[1]]

    return jax.tree.map(one, learners)


STATIC = ("sees", "learning", "num_envs", "num_points", "point_updates", "devices")


@functools.partial(jax.jit, static_argnames=STATIC)
def _generation(
    rule: Any,
    env: Any,
    drawn: Array | None,
    learners: Any,
    keys: Array,
    number: Array,
    *,
    sees: bool,
    learning: tuple[int, ...],
    num_envs: int,
    num_points: int,
    point_updates: int,
    devices: int,
) -> tuple[tuple[Any, Array], dict[str, Array]]:
    """A generation of each seed: its learners [S, N, ...] and their last returns [S, N]; metrics, [S, B]."""
    num_updates = num_points * point_updates

    def society(
        rule: Any, env: Any, number: Array, drawn: Array | None, learners: Any, key: Array
    ) -> tuple[tuple[Any, Array], dict]:
        own = env if drawn is None else env.replace(instance=drawn)
        num_members, axes = jax.tree.leaves(_current(learners))[0].shape[0], _member_axes(learners)
        runner_axes = Runner(learner=axes, state=0, ts=0, carry=0, episode_return=0, episode_length=0)
        birth_keys, keys = jax.random.split(jax.random.fold_in(key, number), (2, num_members))
        begin = lambda learner, key: start(rule, own, key, num_envs, learner)
        runners = jax.vmap(begin, (axes, 0), runner_axes)(learners, birth_keys)

        def update(runners: Any, i: Array) -> tuple[Any, dict[str, Array]]:
            prob = 1 - i / max(num_updates - 1, 1) if sees else 0.0
            prob = jnp.asarray(prob, jnp.float32)
            game = own.seen_with(prob) if hasattr(own, "seen_with") else own
            learn = lambda runner, key: train(rule, game, runner, key, i[None])
            runners, seen = jax.vmap(learn, (runner_axes, 0), (runner_axes, 0))(runners, keys)
            return runners, jax.vmap(lambda seen: _told(*seen, learning))(seen)

        runners, found = jax.lax.scan(update, runners, jnp.arange(num_updates))
        found = {k: v.reshape(num_points, -1, v.shape[-1]) for k, v in found.items()}  # [B, U / B, N]
        told = {k: jnp.nanmean(v, (1, 2)) for k, v in found.items()}
        return_ = jnp.nanmean(found["return"], 1)  # [B, N]
        return (_current(runners.learner), return_[-1]), told | {"best_return": return_.max(-1)}

    axes = (None, None, None, None if drawn is None else 0, 0, 0)
    return over_devices(jax.vmap(society, axes), devices, axes)(rule, env, number, drawn, learners, keys)


def _current(learner: Any) -> Any:
    """What learns of all that a rule knows."""
    if isinstance(learner, Learner):
        return learner.current
    return learner[0] if type(learner) is tuple else learner


def _member_axes(learner: Any) -> Any:
    """The axes over the members: each has who learns to itself, and meets the same others."""
    if isinstance(learner, Learner):
        return Learner(0, None)
    return (0, *(None,) * (len(learner) - 1)) if type(learner) is tuple else 0


def _told(tally: Tally, losses: dict[str, Array], learning: tuple[int, ...]) -> dict[str, Array]:
    """Metrics [] of the seats that learn."""
    pick = lambda tree: jax.tree.map(lambda x: x[..., np.array(learning)], tree)
    own = tally.replace(reward=pick(tally.reward), return_=pick(tally.return_), events=pick(tally.events))
    told = report(own, losses)
    found = {k: told[k] for k in ("return", *SHARES) if k in told}
    if {"score", "trials"} <= tally.events.keys():
        found["score"] = told["events/score"] / told["events/trials"]
    return found


def _kept(old: Any, fresh: Any, renewed: tuple[str, ...]) -> Any:
    """The learners `old`, with the layers called `renewed` (and their optimiser's state) from `fresh`."""

    def choose(path: Any, old: Array, fresh: Array) -> Array:
        names = {getattr(part, "key", None) for part in path}
        return fresh if names & set(renewed) else old

    return jax.tree.map_with_path(choose, old, fresh)


def _check(
    setup: Setup, num_generations: int, num_members: int, num_fresh: int, num_points: int, seen: str
) -> None:
    """Raise ConfigError for what does not fit."""
    env, errors, seated = setup.env, [], isinstance(setup.algo, Mixture)
    if not seated and not all(hasattr(env, need) for need in ("show", "alone", "draw_instance", "seen_with")):
        name = type(env).__name__
        raise ConfigError(
            [f"env: {name} has no demonstrators to be seen; give seats to those who do not learn"]
        )
    numbers = {"num_generations": num_generations, "num_members": num_members, "num_points": num_points}
    for name, value in {**numbers, "num_fresh": num_fresh}.items():
        if value < 1:
            errors.append(f"figure.measure.{name}={value}: must be at least 1")
    if seen not in SEEN:
        errors.append(f"figure.measure.seen={seen}: must be one of {', '.join(SEEN)}")
    if seen == "founders" and not seated:
        errors.append("figure.measure.seen=founders: founders hold seats, and here nobody else holds one")
    if seen == "none" and seated and not hasattr(env, "seen_with"):
        errors.append(f"figure.measure.seen=none: in {type(env).__name__} all are seen")
    if not seated and seen == "all" and num_members != env.demonstrators:
        errors.append(f"figure.measure.num_members={num_members}: must be env.demonstrators")
    if errors:
        raise ConfigError(errors)
