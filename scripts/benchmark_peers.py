"""Measure JaxMARL, pax and SocialJax as `scripts/benchmark.py` measures this project.

In a virtual environment of their own, never in this project's: `pip install jaxmarl==0.2.0 distrax`;
pax=PATH and socialjax=PATH name checkouts of ucl-dark/pax and cooperativex/SocialJax.
Environments: JaxMARL's and pax' coin game, SocialJax's open commons harvest, with random actions, their own
restart, all observations, rewards and ends of `steps` steps kept alive, each call writing into the
memory of the one before. Training: JaxMARL's own IPPO (the file `baselines/IPPO/ippo_ff_mpe.py` of its
repository, named by ippo=PATH) on MPE spread, with W&B replaced by nothing.
"""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass
class Peer:
    """A game of another project: reset(key) and step(key, state, actions [A]), as in Gymnax, of one game."""

    project: str
    env: str
    num_agents: int
    num_actions: int
    reset: Any
    step: Any


def jaxmarl() -> Peer:
    """JaxMARL's coin_game, in episodes of 50 steps."""
    from jaxmarl import make

    env = make("coin_game", num_inner_steps=50, num_outer_steps=1)
    step = lambda key, state, actions: env.step(key, state, dict(zip(env.agents, actions, strict=True)))
    return Peer("jaxmarl", "coin_game", 2, env.action_space(env.agents[0]).n, env.reset, step)


def pax(path: str) -> Peer:
    """The coin game of pax, in episodes of 50 steps."""
    import jax.numpy as jnp

    sys.path.insert(0, path)
    from pax.envs.coin_game import CoinGame, EnvParams

    env = CoinGame(num_inner_steps=50, num_outer_steps=1, cnn=False, egocentric=False)
    params = EnvParams(payoff_matrix=jnp.array([[1.0, 1.0, -2.0], [1.0, 1.0, -2.0]]))
    step = lambda key, state, actions: env.step(key, state, tuple(actions), params)
    return Peer("pax", "coin_game", 2, 5, lambda key: env.reset(key, params), step)


def socialjax(path: str) -> Peer:
    """SocialJax's harvest of seven seats, in episodes of 1000 steps."""
    import jax

    sys.path.insert(0, path)
    jax.tree_map = jax.tree.map  # which jax has dropped since
    from socialjax.environments.common_harvest.harvest_open import Harvest_open

    env = Harvest_open()
    return Peer("socialjax", "harvest_open", env.num_agents, env.action_space().n, env.reset, env.step)


def random_play(peer: Peer, num_envs: int, steps: int) -> dict[str, Any]:
    """Environment steps/s of a peer's game."""
    import jax

    def play(old: Any, key: Any, obs: Any, state: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            obs, state = carry
            act_key, env_key = jax.random.split(key)
            actions = jax.random.randint(act_key, (num_envs, peer.num_agents), 0, peer.num_actions)
            new, state, reward, done, _ = jax.vmap(peer.step)(
                jax.random.split(env_key, num_envs), state, actions
            )
            return (new, state), (obs, reward, done)

        return jax.lax.scan(step, (obs, state), jax.random.split(key, steps))

    obs, state = jax.vmap(peer.reset)(jax.random.split(jax.random.key(0), num_envs))
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
        "peer": peer.project,
        "env": peer.env,
        "num_envs": num_envs,
        "num_agents": peer.num_agents,
        "device": jax.devices()[0].device_kind,
        "compile_s": round(compile_s, 2),
        "env_steps_per_s": round(rate),
        "agent_steps_per_s": round(rate * peer.num_agents),
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
    """`benchmark_peers.py [num_envs=128,1024] [steps=100] [pax=PATH] [socialjax=PATH] [ippo=PATH]`."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    others = [
        make(given[name]) for name, make in {"pax": pax, "socialjax": socialjax}.items() if name in given
    ]
    for num_envs in map(int, given.get("num_envs", "128,1024").split(",")):
        for peer in others or [jaxmarl()]:
            print(json.dumps(random_play(peer, num_envs, int(given.get("steps", "100")))), flush=True)
        if "ippo" in given:
            print(json.dumps(ippo(given["ippo"], num_envs)), flush=True)


if __name__ == "__main__":
    main()
