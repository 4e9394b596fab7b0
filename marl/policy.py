"""Trained policies for use anywhere, from a run folder or from an exported file.

    policy = load_policy("runs/...")
    carry = policy.initial_carry()
    action, carry = policy.act(obs, carry, key)

`marl.policy_file` says what such a file is and why it can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from omegaconf import OmegaConf

from marl.algorithm import Algorithm
from marl.build import config_errors, hold, learning_member, load_seed
from marl.environment import Environment, TimeStep, clip_to_space
from marl.policy_file import NODES, Trained, read
from marl.population import Mixture
from marl.run_folder import identity
from marl.validation import ConfigError


class Policy:
    """What one seat of a game learned to do.

    Fields: env, the game with its mechanisms, to play in; seat, the seat of it that the policy was
    trained in; algo, learner, which act for it.
    """

    def __init__(self, env: Environment, seat: int, algo: Algorithm, learner: Any):
        """Wrap an algorithm that holds one seat; nothing is compiled yet."""
        self.env, self.seat, self.algo = env, seat, algo
        self.learner = jax.tree.map(jnp.asarray, learner)
        ts = jax.eval_shape(env.reset, jax.random.key(0))[1]
        self._sees = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in ts.obs.items()}
        self._num_actions = ts.action_mask.shape[-1]
        self._events = list(ts.events)
        self._step = jax.jit(self._act_in_games, static_argnames="greedy")

    def initial_carry(self, *batch: int) -> Any:
        """The memory at the start of an episode, or of `batch` episodes side by side; () if it has none."""
        obs = {name: jnp.zeros((*batch, *like.shape), like.dtype) for name, like in self._sees.items()}
        carry = self.algo.initial_carry(self.env, self._timestep(obs, None, batch))
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[2:]), carry)

    def act(
        self,
        obs: dict[str, Any],
        carry: Any,
        key: Array,
        action_mask: Any = None,
        greedy: bool = False,
    ) -> tuple[Array, Any]:
        """Choose an action for what one seat sees, or for a batch of such views.

        Args:
            obs: what the game shows to one seat, each [*batch, ...]: the entries of a TimeStep's `obs`
                without the seat axis. Any batch axes, or none.
            carry: as returned by the call before; from `initial_carry` when an episode begins.
            key: random key, a new one for each call.
            action_mask: [*batch, N] bool, legal actions; None: all of them.
            greedy: take the likeliest action instead of sampling.

        Returns:
            action [*batch, ...] inside the action space, and the new carry.

        Raises:
            ValueError: if `obs` is not what this policy reads.
        """
        obs, batch = self._read(obs)
        ts = self._timestep(obs, action_mask, batch)
        carry = jax.tree.map(lambda x: _flat(x, batch), carry)
        action, carry = jax.tree.map(
            lambda x: x.reshape(*batch, *x.shape[2:]), self._step(self.learner, carry, ts, key, greedy=greedy)
        )
        return action, carry

    def _act_in_games(self, learner: Any, carry: Any, ts: TimeStep, key: Array, greedy: bool) -> tuple:
        action, carry, _ = self.algo.act(self.env, learner, carry, ts, key, greedy)
        return clip_to_space(self.env.action_space, action), carry

    def _read(self, obs: dict[str, Any]) -> tuple[dict[str, Array], tuple[int, ...]]:
        """The observation as arrays [*batch, ...], and the batch axes."""
        wanted = ", ".join(f"{name} [..., {str(list(x.shape))[1:]}" for name, x in self._sees.items())
        if set(obs) != set(self._sees):
            raise ValueError(f"obs has {sorted(obs)}; this policy reads {wanted}")
        found = {name: jnp.asarray(obs[name], like.dtype) for name, like in self._sees.items()}
        cut = {name: x.ndim - len(self._sees[name].shape) for name, x in found.items()}
        fits = all(x.shape[max(cut[name], 0) :] == self._sees[name].shape for name, x in found.items())
        batches = {x.shape[: cut[name]] for name, x in found.items()}
        if not fits or len(batches) > 1:
            got = ", ".join(f"{name} {list(x.shape)}" for name, x in found.items())
            raise ValueError(f"obs has {got}; this policy reads {wanted}, with the same batch axes")
        return found, batches.pop()

    def _timestep(self, obs: dict[str, Array], mask: Any, batch: tuple[int, ...]) -> TimeStep:
        """The observation as that of one seat in [prod(batch)] games."""
        games = math.prod(batch)
        if mask is None:
            mask = jnp.ones((*batch, self._num_actions), bool)
        return TimeStep(
            obs=jax.tree.map(lambda x: _flat(x, batch), obs),
            reward=jnp.zeros((games, 1)),
            terminated=jnp.zeros(games, bool),
            truncated=jnp.zeros(games, bool),
            action_mask=_flat(jnp.asarray(mask, bool), batch),
            events={name: jnp.zeros((games, 1)) for name in self._events},
        )


def _flat(x: Array, batch: tuple[int, ...]) -> Array:
    """[*batch, ...] -> [prod(batch), 1, ...]."""
    return x.reshape(math.prod(batch), 1, *x.shape[len(batch) :])


def load_policy(name: str | Path, seat: int | None = None, plugins: Iterable[str] = ()) -> Policy:
    """The policy of a finished run, or of a file that was exported from one.

    Args:
        name: run folder, RUN:SEED_INDEX for another than its first seed, or file.
        seat: seat of the game; by default the first that learned.
        plugins: packages of your own that its configuration may use; it cannot name any itself.

    Raises:
        ConfigError: if there is none, or it is damaged or refused; one line says why.
    """
    return _of_seat(load_trained(name, plugins), seat)


def load_trained(name: str | Path, plugins: Iterable[str] = ()) -> Trained:
    """All policies of a run's seed or of an exported file; arguments and errors as `load_policy`."""
    path = Path(name)
    return read(path, tuple(plugins)) if path.is_file() else _from_run(str(name), plugins)


def _from_run(name: str, plugins: Iterable[str]) -> Trained:
    with config_errors():
        setup, learner = load_seed(name, plugins)
    algo, learner = learning_member(setup.algo, learner)
    if not hasattr(algo, "seats"):
        raise ConfigError([f"{name}: nobody learned in this run, its players are scripted"])
    holder = setup.algo.holder if isinstance(setup.algo, Mixture) else (0,) * setup.env.num_agents
    seats = tuple(seat for seat, member in enumerate(holder) if member == 0)
    plain = OmegaConf.to_container(setup.cfg, resolve=True)
    about = {"run": Path(name).name, **identity(setup.cfg)}
    nodes = {key: plain[key] for key in NODES}
    return Trained(nodes, setup.env, algo, algo.for_acting(learner), seats, about)


def _of_seat(trained: Trained, seat: int | None) -> Policy:
    seat = trained.seats[0] if seat is None else seat
    if seat not in trained.seats:
        raise ConfigError([f"seat={seat}: only the seats {list(trained.seats)} of the game learned"])
    frozen = hold(trained.algo, trained.learner, [trained.seats.index(seat)])
    return Policy(trained.env, seat, frozen.algo, frozen.learner)
