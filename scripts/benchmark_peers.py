"""Measure JaxMARL as `scripts/benchmark.py` measures this project, in an environment of its own.

`pip install jaxmarl==0.2.0 distrax` in a fresh virtual environment, never in this project's.
Environment: coin_game with random actions, its own restart, all observations, rewards and
ends of `steps` steps kept alive, each call writing into the memory of the one before.
Training: its own IPPO (the file `baselines/IPPO/ippo_ff_mpe.py` of its repository, named by
ippo=PATH) on MPE spread, with W&B replaced by nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
import time
import types
from typing import Any

os.environ.setdefault("NPROC", "4")  # as this project does on machines of two cores, and:
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

REPEATS = 5


def median_seconds(call: Any) -> float:
    """Median wall time of REPEATS calls after one that is not counted."""
    import jax

    seconds = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def coin_game(num_envs: int, steps: int) -> dict[str, Any]:
    """Environment steps/s of JaxMARL's coin_game."""
    import jax
    from jaxmarl import make

    env = make("coin_game", num_inner_steps=50, num_outer_steps=1)

    def play(old: Any, key: Any, obs: Any, state: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            obs, state = carry
            act_key, env_key = jax.random.split(key)
            draw = jax.random.randint(act_key, (2, num_envs), 0, env.action_space(env.agents[0]).n)
            actions = {agent: draw[i] for i, agent in enumerate(env.agents)}
            keys = jax.random.split(env_key, num_envs)
            new, state, reward, done, _ = jax.vmap(env.step)(keys, state, actions)
            return (new, state), (obs, reward, done)

        return jax.lax.scan(step, (obs, state), jax.random.split(key, steps))

    obs, state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), num_envs))
    shapes = jax.eval_shape(play, None, jax.random.key(1), obs, state)
    old = [jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)]
    began = time.perf_counter()
    compiled = jax.jit(play, donate_argnums=0, keep_unused=True)
    compiled = compiled.lower(old[0], jax.random.key(1), obs, state).compile()
    compile_s = time.perf_counter() - began

    def call() -> Any:
        old[0] = compiled(old[0], jax.random.key(1), obs, state)
        return old[0]

    rate = steps * num_envs / median_seconds(call)
    return {
        "peer": "jaxmarl",
        "env": "coin_game",
        "num_envs": num_envs,
        "num_agents": 2,
        "device": jax.devices()[0].device_kind,
        "compile_s": round(compile_s, 2),
        "env_steps_per_s": round(rate),
        "agent_steps_per_s": round(rate * 2),
    }


def ippo(path: str, num_envs: int, updates: int = 4) -> dict[str, Any]:
    """Agent steps/s of JaxMARL's IPPO: MLP 64-64, 128 steps, 4 epochs, 4 minibatches, MPE spread."""
    import jax

    for absent in ("wandb", "hydra"):
        sys.modules[absent] = types.SimpleNamespace(
            log=lambda metric: None, main=lambda **_: lambda function: function
        )
    spec = importlib.util.spec_from_file_location("peer_ippo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = {
        "ENV_NAME": "MPE_simple_spread_v3",
        "ENV_KWARGS": {},
        "NUM_ENVS": num_envs,
        "NUM_STEPS": 128,
        "TOTAL_TIMESTEPS": updates * 128 * num_envs,
        "UPDATE_EPOCHS": 4,
        "NUM_MINIBATCHES": 4,
        "LR": 2.5e-4,
        "GAMMA": 0.99,
        "GAE_LAMBDA": 0.95,
        "CLIP_EPS": 0.2,
        "ENT_COEF": 0.01,
        "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5,
        "ACTIVATION": "tanh",
        "ANNEAL_LR": False,
    }
    began = time.perf_counter()
    train = jax.jit(module.make_train(config)).lower(jax.random.PRNGKey(0)).compile()
    compile_s = time.perf_counter() - began
    rate = config["TOTAL_TIMESTEPS"] / median_seconds(lambda: train(jax.random.PRNGKey(0)))
    return {
        "peer": "jaxmarl",
        "env": config["ENV_NAME"],
        "algo": "IPPO",
        "num_envs": num_envs,
        "num_agents": 3,
        "device": jax.devices()[0].device_kind,
        "train_compile_s": round(compile_s, 2),
        "train_env_steps_per_s": round(rate),
        "train_agent_steps_per_s": round(rate * 3),
    }


def main() -> None:
    """`python scripts/benchmark_peers.py [num_envs=128,1024] [steps=100] [ippo=PATH]`."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    for num_envs in map(int, given.get("num_envs", "128,1024").split(",")):
        print(json.dumps(coin_game(num_envs, int(given.get("steps", "100")))), flush=True)
        if "ippo" in given:
            print(json.dumps(ippo(given["ippo"], num_envs)), flush=True)


if __name__ == "__main__":
    main()
