"""Measure speed: `python scripts/benchmark.py env=... [algo=...] num_envs=...` prints JSON lines."""

from __future__ import annotations

import functools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from marl.cli import main, options, whole_number
from marl.device import start_device
from marl.validation import ConfigError

USAGE = """
usage: python scripts/benchmark.py [env=NAME,NAME] [algo=NAME] [num_envs=128,1024] [repeats=5] [devices=1]
                                   [observations=true] [KEY=VALUE ...]

  One JSON object for each environment and number of parallel games. Environment steps: random
  legal actions, games restarted where they end, all observations, rewards and ends of steps=100
  steps kept alive. With algo=, those of the games of all seeds, and also full training updates,
  how the time of one splits into environment, acting and learning, and gradient steps a second,
  summed over networks, learners and seeds (train_updates_per_s; 0 while a replay fills).
  Compilation is timed apart; the rest are medians of `repeats` runs. num_seeds=N trains N seeds at
  once (default 1). backend=torch measures training in PyTorch, and the part of its time that the
  games' steps take.

  devices=N shares the games out over N devices; where there is no GPU these are N threads of the CPU, one
  for each, which is faster than N threads that share every small step. Without algo= only.

  observations=false keeps no observations, so that the compiler leaves out what makes them: the time
  left is that of the state, and of restarts if games end (env.horizon=100: in every call).
  Without algo= only.
"""
OPTIONS = {
    "env": "prisoners_dilemma",
    "num_envs": "128,1024",
    "repeats": "5",
    "steps": "100",
    "devices": "1",
    "observations": "true",
}


def benchmark(arguments: list[str]) -> int:
    """Print a line for each environment and size; returns the exit code."""
    own, rest = options(arguments, OPTIONS)
    sizes = [whole_number("num_envs", n) for n in own["num_envs"].split(",")]
    repeats, steps = whole_number("repeats", own["repeats"]), whole_number("steps", own["steps"])
    devices, learns = whole_number("devices", own["devices"]), any(a.startswith("algo=") for a in rest)
    _check(devices, sizes, learns, own["observations"])
    timing = {
        "repeats": repeats,
        "steps": steps,
        "devices": devices,
        "observed": own["observations"] != "false",
    }
    if not any(a.startswith("num_seeds=") for a in rest):
        rest.append("num_seeds=1")
    from marl.config import compose

    # every setting is checked before the first is measured
    cfgs = [compose([f"env={env}", f"num_envs={n}", *rest]) for env in own["env"].split(",") for n in sizes]
    start_device(cfgs[0].device, cfgs[0].backend, devices, one_thread_each=True)
    names = [env for env in own["env"].split(",") for _ in sizes]
    for name, cfg in zip(names, cfgs, strict=True):
        print(json.dumps(_measure(name, cfg, learns, timing)), flush=True)
    return 0


def _check(devices: int, sizes: list[int], learns: bool, observations: str) -> None:
    """Raise ConfigError for games that cannot be shared out evenly, and what goes without algo= only."""
    errors = [f"num_envs={n}: must be a multiple of devices={devices}" for n in sizes if n % devices]
    errors += [f"devices={devices}: must be 1 with algo="] if learns and devices > 1 else []
    if observations not in ("true", "false"):
        errors.append(f"observations={observations}: must be true or false")
    if learns and observations == "false":
        errors.append("observations=false: must be true with algo=")
    if errors:
        raise ConfigError(errors)


def _measure(name: str, cfg: Any, learns: bool, timing: dict[str, Any]) -> dict[str, Any]:
    import jax

    from marl.build import build

    setup = build(cfg)
    games = cfg.num_envs * (cfg.num_seeds if learns else 1)  # all that a training plays at once
    compile_s, seconds = _time_environment(setup, games, **timing)
    rate = timing["steps"] * games / seconds
    line = {
        "env": name,
        "algo": str(cfg.algo._target_).rsplit(".", 1)[-1] if learns else None,
        "num_envs": cfg.num_envs,
        "num_agents": setup.env.num_agents,
        "num_seeds": cfg.num_seeds,
        "device": jax.devices()[0].device_kind,
        "num_devices": timing["devices"],
        "observations": timing["observed"],
        "compile_s": round(compile_s, 2),
        "env_steps_per_s": round(rate),
        "agent_steps_per_s": round(rate * setup.env.num_agents),
    }
    time_training = _time_torch if cfg.backend == "torch" else _time_training
    return line | (time_training(setup, rate, timing["repeats"]) if learns else {})


def _time_environment(
    setup: Any, num_envs: int, steps: int, repeats: int, devices: int, observed: bool
) -> tuple[float, float]:
    """(compile seconds, median seconds of `steps` steps of all games).

    Every call hands its outputs to the next, which writes into their memory, as a training
    loop would; nothing that a step makes is left out but, unless `observed`, observations. Leaves
    have a leading axis of devices.
    """
    import jax

    from algos.random_player import RandomPlayer
    from marl.learner import rollout, start

    algo, env = RandomPlayer(), setup.env
    kept = (lambda *found: found) if observed else without_observations
    mesh = jax.sharding.Mesh(jax.devices()[:devices], ("devices",))
    place = jax.sharding.PartitionSpec("devices")

    def everywhere(one: Any) -> Any:
        """`one`, which gets the game and what a device holds, on all devices; the game is no constant."""
        many = lambda env, *x: jax.tree.map(lambda y: y[None], one(env, *jax.tree.map(lambda y: y[0], x)))
        specs = {"in_specs": (jax.sharding.PartitionSpec(), place), "out_specs": place}
        spread = jax.shard_map(lambda env, x: many(env, *x), mesh=mesh, check_vma=False, **specs)
        return lambda env, *x: spread(env, x)

    keys = lambda i: jax.random.split(jax.random.key(i), devices)
    runner = jax.jit(everywhere(lambda env, key: start(algo, env, key, num_envs // devices)))(env, keys(0))
    clock = steps % env.ends_every if env.ends_every else 0
    clocks = lambda i: jax.numpy.full(devices, i * clock)
    play = everywhere(lambda env, old, *now: kept(*rollout(algo, env, *now, steps)))
    shapes = jax.eval_shape(play, env, keys(0), runner, keys(0), clocks(0))
    fill = lambda: jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)
    old = jax.jit(fill, out_shardings=jax.sharding.NamedSharding(mesh, place))()
    began = time.perf_counter()
    play = jax.jit(play, donate_argnums=1, keep_unused=True)
    play = play.lower(env, old, runner, keys(0), clocks(0)).compile()
    compile_s = time.perf_counter() - began
    seconds = []
    for i in range(repeats + 1):
        arguments = jax.block_until_ready((runner, keys(i), clocks(i)))
        began = time.perf_counter()
        old = jax.block_until_ready(play(env, old, *arguments))
        seconds.append(time.perf_counter() - began)
        obs = runner.ts.obs
        runner = jax.tree.map(jax.numpy.copy, old[0])
        runner = runner if observed else runner.replace(ts=runner.ts.replace(obs=obs))
    return compile_s, statistics.median(seconds[1:])


def without_observations(runner: Any, batch: Any, tally: Any) -> tuple[Any, Any, Any]:
    """What a rollout gives, less what its games show."""
    return runner.replace(ts=runner.ts.replace(obs=None)), batch.replace(obs=None, last=None), tally


def _time_training(setup: Any, env_steps_per_s: float, repeats: int) -> dict[str, Any]:
    """Full updates by the run's own program, and what an update's time is spent on."""
    import jax

    from marl.learner import rollout
    from marl.program import Program

    cfg, algo, env = setup.cfg, setup.algo, setup.env
    cfg.total_steps = cfg.log_every * cfg.num_envs * algo.num_steps
    program = Program(setup)
    runners = program.start()
    play = lambda runner, key: rollout(algo, env, runner, key, 0, algo.num_steps)
    keys = jax.random.split(jax.random.key(0), cfg.num_seeds)
    players = runners.replace(learner=algo.for_acting(runners.learner))  # a replay would be copied
    play = jax.jit(jax.vmap(play)).lower(players, keys).compile()
    rollout_s = _median(lambda: play(players, keys), repeats)
    compile_s = program.compile(runners)
    seconds, metrics, before = [], {}, 0
    for i in range(repeats + 1):
        before = _gradient_steps(runners)
        began = time.perf_counter()
        runners, metrics = program.run_chunk(runners, cfg.log_every * i)
        jax.block_until_ready(runners)
        seconds.append((time.perf_counter() - began) / cfg.log_every)
    update_s = statistics.median(seconds[1:])
    steps = cfg.num_seeds * cfg.num_envs * algo.num_steps
    env_s = steps / env_steps_per_s
    log_s = _log_seconds(metrics) / cfg.log_every
    spent = {
        "environment": env_s,
        "acting": max(rollout_s - env_s, 0.0),
        "learning": update_s - rollout_s,
        "logging": log_s,
    }
    return {
        "train_compile_s": round(compile_s, 2),
        "train_env_steps_per_s": round(steps / update_s),
        "train_agent_steps_per_s": round(steps / update_s * env.num_agents),
        "train_updates_per_s": round((_gradient_steps(runners) - before) / cfg.log_every / update_s),
        "update_s": round(update_s, 6),
        "share": {k: round(v / (update_s + log_s), 4) for k, v in spent.items()},
    }


def _gradient_steps(runners: Any) -> int:
    """Gradient steps so far of all networks of all learners and seeds, as their optimisers counted."""
    from optax import tree

    return sum(int(count.sum()) for _, count in tree.get_all_with_path(runners.learner, "count"))


def _time_torch(setup: Any, env_steps_per_s: float, repeats: int) -> dict[str, Any]:
    """Full updates in PyTorch, and the part of their time that is spent in the games' steps."""
    from algos.torch.trainer import TorchProgram, use_few_threads

    cfg = setup.cfg
    cfg.total_steps = cfg.log_every * cfg.num_envs * setup.algo.num_steps
    use_few_threads()
    program = TorchProgram(setup)
    runners = program.start()
    compile_s = program.compile(runners)
    spent = []

    def timed(step: Any, action: Any) -> Any:
        began = time.perf_counter()
        result = step(action)
        spent.append(time.perf_counter() - began)
        return result

    for seed in program.seeds:
        seed.env.step = functools.partial(timed, seed.env.step)
    seconds, shares = [], []
    for i in range(repeats + 1):
        spent.clear()
        began = time.perf_counter()
        runners, _ = program.run_chunk(runners, cfg.log_every * i)
        seconds.append(time.perf_counter() - began)
        shares.append(sum(spent) / seconds[-1])
    update_s = statistics.median(seconds[1:]) / cfg.log_every
    rate = cfg.num_seeds * program.env_steps_per_update / update_s
    return {
        "backend": "torch",
        "train_compile_s": round(compile_s, 2),
        "train_env_steps_per_s": round(rate),
        "train_agent_steps_per_s": round(rate * setup.env.num_agents),
        "update_s": round(update_s, 6),
        "share": {"environment": round(statistics.median(shares[1:]), 4)},
    }


def _log_seconds(metrics: dict[str, Any]) -> float:
    """Seconds to write one row of metrics."""
    from marl.metrics_log import MetricsLog

    row = {"update": 1, "env_steps": 1, "agent_steps": 1, "wall_s": 0.0, "metrics": metrics}
    with tempfile.TemporaryDirectory() as folder:
        log = MetricsLog(Path(folder) / "metrics.jsonl", 0)
        began = time.perf_counter()
        for _ in range(100):
            log.append(row)
        seconds = (time.perf_counter() - began) / 100
        log.close()
    return seconds


def _median(call: Any, repeats: int) -> float:
    import jax

    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    sys.exit(main(USAGE, benchmark))
