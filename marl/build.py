"""From configurations to objects: games, algorithms, and the policies of finished runs.

`load("env=coin_game", "mechanism=[gifting]")` gives notebooks and tests the same objects that
the commands use. A run folder is a configuration too: its policies can be loaded, or play,
frozen, in any seat of another game.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from omegaconf import DictConfig, OmegaConf

from marl import checkpoint
from marl.algorithm import Algorithm
from marl.config import compose, construct, groups, has_seats, scripted_players
from marl.environment import Environment
from marl.past_policies import PastPlay, without_past
from marl.population import Frozen, Mixture, num_learners
from marl.program import Program
from marl.secrets import read_run_config
from marl.targets import check_targets
from marl.validation import ConfigError, check_batch, nearest


@dataclasses.dataclass(frozen=True)
class Setup:
    """A configuration and the objects that it describes.

    `keep` is where a figure's long measurements keep what they have so far (`marl.stages`), None: nowhere.
    """

    cfg: DictConfig
    env: Environment
    algo: Algorithm
    keep: Path | None = None


def load(*overrides: str) -> Setup:
    """Compose, check and build, as `scripts/train.py` with the same overrides would.

    Raises:
        ConfigError: with one line for each thing wrong.
    """
    return build(compose(overrides))


def build(cfg: DictConfig) -> Setup:
    """The objects of a composed configuration.

    Raises:
        ConfigError: for a `_target_` that is not allowed, or what the objects' checks say.
    """
    check_targets(cfg)
    with config_errors():
        env = build_env(cfg)
        env.check()
        algo = build_algo(cfg, env)
        algo.check(env)
    if algo.max_envs and cfg.num_envs > algo.max_envs:
        who = type(algo).__name__
        raise ConfigError([f"num_envs={cfg.num_envs}: must be at most {algo.max_envs} with {who}"])
    return Setup(cfg, env, algo)


@contextlib.contextmanager
def config_errors() -> Iterator[None]:
    """Make a ConfigError of whatever a constructor or a check raises.

    Raises:
        ConfigError: in its place.
    """
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError([str(error)]) from error
    except Exception as error:  # hydra wraps what a constructor raised
        cause = error.__cause__ or error
        raise ConfigError([f"{type(cause).__name__}: {cause}".split("\n")[0]]) from error


def build_env(cfg: DictConfig) -> Environment:
    """Base game first, then each mechanism around the one before it."""
    wrap = lambda env, mechanism: construct(mechanism, env=env)
    return functools.reduce(wrap, (cfg.mechanism or {}).values(), construct(cfg.env))


def build_algo(cfg: DictConfig, env: Environment) -> Algorithm:
    """The learning algorithm in the seats that it holds, beside scripted or frozen players.

    Raises:
        ValueError: if `seats` does not fit the game.
    """
    seats = _seats(cfg.seats, env)
    learning = tuple(s for s in seats if isinstance(s, int))
    names = list(dict.fromkeys(s for s in seats if isinstance(s, str)))
    members = []
    if learning:
        num_learners(learning)
        algo = construct(cfg.algo, **({"seats": learning} if has_seats(cfg.algo) else {}))
        members = [_against_its_past(algo, cfg) if cfg.get("past") else algo]
    if not names:
        return members[0]
    held = {name: [i for i, s in enumerate(seats) if s == name] for name in names}
    members += [player(name, held[name], tuple(cfg.plugins)) for name in names]
    first = 1 if learning else 0
    holder = tuple(0 if isinstance(s, int) else names.index(s) + first for s in seats)
    return Mixture(members=tuple(members), holder=holder)


def _against_its_past(algo: Algorithm, cfg: DictConfig) -> Algorithm:
    if not has_seats(cfg.algo):
        raise ValueError(f"past: {type(algo).__name__} does not learn and has no past; set past=null")
    algo = PastPlay(algo=algo, **OmegaConf.to_container(cfg.past))
    algo.check_sizes()
    num_rows = algo.rows(cfg.num_envs)[0].shape[1]
    errors = check_batch(num_rows, OmegaConf.to_container(cfg.algo))
    if errors:
        what = f"past: each learner learns from {num_rows} seats of num_envs={cfg.num_envs} games"
        raise ValueError(f"{what}, which count here as num_envs: {errors[0]}")
    return algo


def player(name: str, held: list[int], plugins: Iterable[str] = ()) -> Algorithm:
    """A player for the seats `held` that does not learn: scripted, by name, or a run's policy.

    Args:
        name: a config algo/NAME without parameters, or a run folder (FOLDER:INDEX for a
            seed other than the first).
        held: the seats it will play.
        plugins: further packages whose code may be built.

    Raises:
        ValueError: if there is neither.
    """
    plugins = tuple(plugins)
    known, own = groups(plugins)["algo"], f"plugins=[{','.join(plugins)}]"
    if name in known:
        node = compose([own, f"algo={name}"]).algo
        if has_seats(node):
            raise ValueError(f"{name} learns; a fixed player is scripted or a run folder")
        check_targets(node, plugins)
        return construct(node)
    if Path(name.partition(":")[0]).is_dir():
        return frozen_player(name, held, plugins)
    scripted = scripted_players(plugins)
    hint = nearest(name, scripted)
    raise ValueError(f"no player {name}{hint} Choose a run folder or one of: {', '.join(scripted)}")


def load_run(run_dir: Path | str, plugins: Iterable[str] = ()) -> tuple[Setup, Any]:
    """The setup of a run and its newest learners, leaves [S, P, ...] or [V, S, P, ...] if swept.

    The folder's own list of plugins does not count: `plugins` are the packages that you trust.

    Raises:
        FileNotFoundError: if the folder is no run or has no checkpoint.
        ConfigError: if its configuration may not be built here.
        CheckpointError: if its checkpoints are all damaged.
    """
    run_dir = Path(run_dir)
    if not (run_dir / "config.yaml").is_file():
        raise FileNotFoundError(f"{run_dir} is not a run folder: it has no config.yaml")
    try:
        cfg = read_run_config(run_dir / "config.yaml")
        absent = [key for key in ("env", "mechanism", "algo", "seats", "sweep") if key not in cfg]
        if absent:
            raise ValueError(f"it has no {', '.join(absent)}")
        cfg.plugins = list(plugins)
    except ConfigError:
        raise
    except Exception as error:  # not YAML, not a mapping, or tags that would build objects
        why = str(error).split("\n")[0]
        raise ConfigError([f"{run_dir}/config.yaml cannot be read: {why}"]) from error
    setup = build(cfg)
    runners = jax.eval_shape(Program(setup).start)
    _, restored = checkpoint.restore(run_dir / "checkpoints", runners)
    algo, learner = without_past(setup.algo, restored.learner)
    return dataclasses.replace(setup, algo=algo), learner


def load_seed(name: str, plugins: Iterable[str] = ()) -> tuple[Setup, Any]:
    """As `load_run` for one seed, learner leaves [P, ...]; `name` is RUN or RUN:SEED_INDEX.

    The first seed is taken unless the name says otherwise.

    Raises:
        ValueError: if the run is a sweep, or has no such seed.
    """
    folder, _, index = name.partition(":")
    setup, learner = load_run(folder, plugins)
    if OmegaConf.to_container(setup.cfg.sweep):
        raise ValueError(f"{folder} is a sweep; only a run of one setting can play")
    if not (index or "0").isdigit() or int(index or 0) >= setup.cfg.num_seeds:
        raise ValueError(f"{name}: the run has seeds 0 to {setup.cfg.num_seeds - 1}")
    return setup, jax.tree.map(lambda x: x[int(index or 0)], learner)


def frozen_player(name: str, held: list[int], plugins: Iterable[str] = ()) -> Frozen:
    """A run's policy for the seats `held` of another game; `name` as for `load_seed`.

    Each seat is played by the learner that held that seat in the run.

    Raises:
        ValueError: if the run is a sweep, or has no such seed or seat.
    """
    setup, learner = load_seed(name, plugins)
    algo, learner = learning_member(setup.algo, learner)
    if isinstance(setup.algo, Mixture):  # those who learned hold only some of its seats
        own = [seat for seat, member in enumerate(setup.algo.holder) if member == 0]
        held = [own.index(seat) if seat in own else seat for seat in held]
    if max(held) >= len(algo.seats):
        raise ValueError(f"{name} has {len(algo.seats)} learning seats; it cannot play seat {max(held)}")
    return hold(algo, learner, held)


def hold(algo: Any, learner: Any, held: list[int]) -> Frozen:
    """`algo`, with learner leaves [P, ...], frozen in seats that take the place of its seats `held`.

    Only what acting needs of the learner is kept.
    """
    holders = [algo.seats[seat] for seat in held]
    chosen = sorted(set(holders))
    seats = tuple(chosen.index(holder) for holder in holders)
    acting = jax.tree.map(lambda x: x[jnp.array(chosen)], algo.for_acting(learner))
    return Frozen(algo.replace(seats=seats), acting)


def learning_member(algo: Any, learner: Any) -> tuple[Any, Any]:
    """The algorithm that learned, and its learner, out of a Mixture or alone."""
    return (algo.members[0], learner[0]) if isinstance(algo, Mixture) else (algo, learner)


def _seats(seats: Any, env: Environment) -> list[int | str]:
    num_agents = env.num_agents
    if seats == "independent":
        return list(range(num_agents))
    if seats == "shared":
        return [0] * num_agents
    if seats == "typed":
        if not env.seat_types:
            raise ValueError("seats=typed: this game has no types of seats")
        return list(env.seat_types)
    entries = isinstance(seats, Sequence) and all(isinstance(s, (int, str)) for s in seats)
    if isinstance(seats, str) or not entries or len(seats) != num_agents:
        raise ValueError(f"seats={seats}: must be independent, shared or a list of {num_agents} entries")
    return list(seats)
