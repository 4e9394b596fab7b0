"""Training in PyTorch with the same run folder, logs, signals and resume as training in JAX.

`TorchProgram` is a `marl.program.Program` whose updates are PyTorch's. What it carries from one
chunk to the next is the tree that JAX's program carries, so that a run's checkpoints, evaluation
and export are the same; initial parameters and games are those of JAX with the same seed. Update i
draws from seeds that follow from (seed, i) alone: a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from omegaconf import DictConfig
from safetensors.torch import save_file

from algos import dqn, ppo
from algos.torch.dqn import DQN
from algos.torch.ppo import PPO
from algos.torch.rollout import rollout, tally
from marl.batched import Games
from marl.build import config_errors
from marl.learner import Runner
from marl.metrics import report
from marl.program import Program
from marl.run import OnChunk, Result
from marl.run import run as run_program
from marl.torch_env import TorchEnv
from marl.validation import ConfigError

TWINS: dict[type, Any] = {ppo.PPO: PPO, dqn.DQN: DQN}

_report = jax.jit(report)


def run(cfg: DictConfig, run_dir: Path, on_chunk: OnChunk = lambda done, total, rate: None) -> Result:
    """Train what `cfg` describes in PyTorch, as `marl.run.run` does in JAX.

    The final parameters are also written to checkpoints/policy.safetensors, under names such as
    "seed_0.torso.layers.Dense_0.kernel", with a leading axis of learners.

    Raises:
        ConfigError: also for what PyTorch has no twin of, naming the key.
    """
    made: list[TorchProgram] = []
    use_few_threads()

    def program(setup: Any) -> TorchProgram:
        made.append(TorchProgram(setup))
        return made[-1]

    result = run_program(cfg, run_dir, on_chunk, program)
    if result.summary and (policies := made[0].policies()):
        save_file(policies, run_dir / "checkpoints" / "policy.safetensors")
    return result


def use_few_threads() -> None:
    """Give PyTorch one CPU thread, unless OMP_NUM_THREADS says otherwise.

    Small networks gain nothing from more, and beside JAX's own threads they wait for each other.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


class TorchProgram(Program):
    """What a run computes, with updates in PyTorch; seeds take turns in each chunk.

    Further fields: seeds, the learner and the games of each seed, there after `compile`.
    """

    backend = "torch"

    def __init__(self, setup: Any):
        """Lay out the run.

        Raises:
            ConfigError: naming the key that PyTorch has no twin of.
        """
        super().__init__(setup)
        cfg, errors = setup.cfg, []
        if self.points:
            errors.append("sweep: backend=torch trains one setting at a time; use -m, or backend=jax")
        if type(setup.algo) not in TWINS:
            names = ", ".join(sorted(rule.__name__.lower() for rule in TWINS))
            errors.append(f"backend=torch: learns with algo {names} in all seats only; use backend=jax")
        if self._skips:
            errors.append(f"nan_policy={cfg.nan_policy}: backend=torch knows stop only")
        if errors:
            raise ConfigError(errors)
        with config_errors():
            self._player(TorchEnv(setup.env, 1, 0))
        self.seeds: list[SeedRun] = []

    def compile(self, runners: Any) -> float:
        """Make the learners and games of every seed; returns the seconds that took."""
        began = time.perf_counter()
        for s in range(self._setup.cfg.num_seeds):
            env = TorchEnv(self._setup.env, self._setup.cfg.num_envs, 0)
            runner = jax.tree.map(lambda x, s=s: x[s], runners)
            self.seeds.append(SeedRun(self._player(env), env, runner, self._keys[s, 1]))
        return time.perf_counter() - began

    def run_chunk(self, runners: Any, first: int) -> tuple[Any, dict[str, np.ndarray]]:
        """Updates `first` .. `first + chunk_updates - 1` of every seed; as `Program.run_chunk`."""
        found = [seed.advance(range(first, first + self.chunk_updates)) for seed in self.seeds]
        stack = lambda *x: np.stack([np.asarray(v) for v in x])
        runners = jax.tree.map(stack, *(seed.runner() for seed in self.seeds))
        return runners, jax.tree.map(stack, *found)

    def policies(self) -> dict[str, torch.Tensor]:
        """All seeds' parameters by name, leaves [P, ...]; empty before `compile`."""
        return {
            f"seed_{self._setup.cfg.seed + s}.{name}": value.detach().cpu().contiguous()
            for s, seed in enumerate(self.seeds)
            for name, value in seed.player.net.named_parameters()
        }

    def _player(self, env: TorchEnv) -> Any:
        return TWINS[type(self._setup.algo)](self._setup.algo, env.env, env.device)


class SeedRun:
    """One seed's learners and games. Fields: player, a twin in TWINS; env, a TorchEnv."""

    def __init__(self, player: Any, env: TorchEnv, runner: Runner, key: Array):
        """Take over what JAX's `runner` holds, leaves without the axis of seeds."""
        self.player, self.env = player, env
        self._last, self._key = runner, key
        player.load(runner.learner)
        every = env.env.ends_every  # such games stand at the same step in between
        clock = runner.episode_length[0] % every if every else jnp.int32(0)
        games = Games(runner.state, key, clock)
        env.resume(games, runner.ts)
        shape = (env.num_envs, env.num_agents, *(env.action_space.shape or ()))
        env.step(torch.zeros(shape, dtype=torch.int32))  # so that it is compiled
        self._ts = env.resume(games, runner.ts)
        self._carry = jax.tree.map(lambda x: torch.tensor(np.asarray(x), device=env.device), runner.carry)
        self._generator = torch.Generator(env.device)

    def advance(self, updates: range) -> dict[str, np.ndarray]:
        """Run these updates; returns their metrics, each []."""
        tallies, losses = [], []
        for i in updates:
            game_key, own_key = jax.random.split(jax.random.fold_in(self._key, i))
            bits = np.asarray(jax.random.bits(own_key, (2,), jnp.uint32)).tolist()
            self._generator.manual_seed(bits[0] << 32 | bits[1])
            self.env.games = self.env.games.replace(key=game_key)
            batch, events = rollout(
                self.player, self.env, self._ts, self._carry, self.player.num_steps, self._generator
            )
            self._ts, self._carry = batch.last, batch.last_carry
            seen = jax.tree.map(jnp.from_dlpack, (batch.reward, batch.done, events))
            counted, *now = tally(*seen, self._last.episode_return, self._last.episode_length)
            self._last = self._last.replace(episode_return=now[0], episode_length=now[1])
            tallies.append(counted)
            losses.append(self.player.update(batch, self._generator))
        return self._metrics(tallies, losses)

    def runner(self) -> Runner:
        """What JAX's loop would carry, numpy leaves."""
        host = lambda tree: jax.tree.map(lambda x: x.cpu().numpy(), tree)
        seen = {"obs": host(self._ts.obs), "action_mask": host(self._ts.action_mask)}
        return self._last.replace(
            learner=self.player.learner(),
            state=self.env.games.state,
            ts=self._last.ts.replace(**seen),
            carry=host(self._carry),
        )

    def _metrics(self, tallies: list, losses: list[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
        names = list(losses[0])
        values = torch.stack([torch.stack([x[k].to(self.env.device) for k in names]) for x in losses])
        values = values.cpu().numpy()  # [U, names]
        parameters = all(bool(p.isfinite().all()) for p in self.player.net.parameters())
        finite = parameters and np.isfinite(values).all() and np.isfinite(tallies[-1].reward).all()
        counted = jax.tree.map(lambda *x: jnp.stack(x), *tallies)
        found = _report(counted, {k: jnp.asarray(values[:, i]) for i, k in enumerate(names)})
        return jax.tree.map(np.asarray, found) | {"finite": np.float32(finite)}
