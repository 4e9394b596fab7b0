"""Games for PyTorch: the same TimeStep with torch tensors, which share their memory with JAX.

Tensors go through DLPack, without a copy in either direction for float32, int32, uint8 and bool.
A tensor that came out is therefore read-only: writing into it in place (`x += 1`, `x[0] = 0`,
`out=`) changes an array that JAX takes for constant. Use `x + 1`, `x.clone()`, or
`TorchEnv(copy=True)`. On one GPU JAX must leave memory for PyTorch: set
XLA_PYTHON_CLIENT_PREALLOCATE=false, or XLA_CLIENT_MEM_FRACTION to at most 0.6, before JAX starts.
Axes: E parallel games, A seats, N actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from gymnasium import spaces
from jax import Array

from marl import batched
from marl.batched import Games
from marl.environment import Environment, TimeStep, event_names


class TorchEnv:
    """E parallel games that restart by themselves.

    The same seed and actions give the same games, bit for bit, as `marl.batched` with
    `jax.random.key(seed)`. Fields: env, the game; num_envs, E; num_agents, A; action_space,
    one seat's; device, where the tensors are; games, the JAX state of the games.
    """

    def __init__(
        self,
        env: Environment,
        num_envs: int,
        seed: int,
        device: str | torch.device | None = None,
        copy: bool = False,
    ):
        """Lay out the games; nothing runs before `reset`.

        Args:
            env: one game, as `marl.build.load(...).env` gives it.
            num_envs: E.
            seed: of all randomness of the games.
            device: "cpu", "cuda" or "cuda:1"; None: where JAX computes.
            copy: hand out copies, which may be written to.

        Raises:
            ValueError: if JAX or PyTorch has no such device.
        """
        chosen = _jax_device(device)
        kind = "cuda" if chosen.platform == "gpu" else "cpu"
        self.device = torch.device(kind, chosen.local_hardware_id if kind == "cuda" else None)
        self.env, self.num_envs, self.num_agents = env, num_envs, env.num_agents
        self.action_space = env.action_space
        self.games: Games | None = None
        self._here = jax.device_put(env, chosen)
        self._key = jax.device_put(jax.random.key(seed), chosen)
        self._events = event_names(env)
        self._copy, self._mask, self._clock = copy, None, 0

    def reset(self) -> TimeStep:
        """Start all games anew, the first ones of the seed; reward and events are zero."""
        games, seen = _start(self._here, self._key, self.num_envs)
        return self.resume(games, seen)

    def resume(self, games: Games, ts: Any) -> TimeStep:
        """Go on with `games` and what was seen last, `ts`, a TimeStep of JAX arrays [E, ...]."""
        self.games, self._clock = games, int(games.time)
        self._mask = ts.action_mask if self.env.all_legal else None  # one for all steps
        return self._torch(_pack(self.env, ts))

    def step(self, action: torch.Tensor) -> tuple[TimeStep, TimeStep]:
        """Play one step of every game; games that end restart at once.

        Args:
            action: [E, A] whole numbers, or [E, A, *shape] for MultiDiscrete and Box. Any integer
                type is taken (made int32 on the device), a Box takes any real type and is cut to
                its bounds. Gradients are dropped. Whether an action exists is not looked at.

        Returns:
            (ts, final). ts: reward, terminated, truncated and events of this step; obs and
            action_mask after the restart. final: the same with the obs and action_mask that the
            step reached before any restart, to bootstrap from where a game was truncated.

        Raises:
            TypeError: if the action is no tensor, or not of whole numbers where these are needed.
            ValueError: if its shape is wrong.
            RuntimeError: before `reset`.
        """
        if self.games is None:
            raise RuntimeError("TorchEnv.step: call reset first")
        self.games, packed, reached = _step(self._here, self.games, self._array(action))
        self._clock += 1
        ts = self._torch(packed)
        obs, mask = jax.tree.map(self._tensor, reached)
        return ts, ts.replace(obs=obs, action_mask=ts.action_mask if mask is None else mask)

    @property
    def may_have_ended(self) -> bool:
        """Whether a game may have ended with the last step; known without asking the device."""
        every = self.env.ends_every
        return self._clock > 0 and (every is None or self._clock % every == 0)

    def _torch(self, packed: tuple) -> TimeStep:
        """The TimeStep of what `_pack` made."""
        obs, mask, facts, ends = jax.tree.map(self._tensor, packed)
        facts, ends = facts.unbind(), ends.unbind()
        return TimeStep(
            obs=obs,
            reward=facts[0],
            terminated=ends[0],
            truncated=ends[1],
            action_mask=self._tensor(self._mask) if mask is None else mask,
            events=dict(zip(self._events, facts[1:], strict=True)),
        )

    def _tensor(self, x: Array) -> Any:
        tensor = torch.from_dlpack(x)
        return tensor.clone() if self._copy else tensor

    def _array(self, action: torch.Tensor) -> Array:
        """[E, A, ...] tensor -> array of int32 or float32, on the device of the games."""
        if not isinstance(action, torch.Tensor):
            raise TypeError(f"action: must be a torch tensor, not {type(action).__name__}")
        wanted = (self.num_envs, self.num_agents, *(self.action_space.shape or ()))
        if tuple(action.shape) != wanted:
            raise ValueError(f"action: has shape {tuple(action.shape)}, must be {wanted}")
        real = isinstance(self.action_space, spaces.Box)
        whole = not action.is_floating_point() and action.dtype != torch.bool
        if not real and not whole:
            raise TypeError(f"action: is {action.dtype}, must be of whole numbers for {self.action_space}")
        action = action.detach().to(self.device, torch.float32 if real else torch.int32)
        return jnp.from_dlpack(action.contiguous())


def _start_games(env: Environment, key: Array, num_envs: int) -> tuple[Games, TimeStep]:
    return batched.start(env, key, num_envs)


def _step_games(env: Environment, games: Games, action: Array) -> tuple[Games, tuple, tuple]:
    games, ts, final = batched.step(env, games, action)
    return games, _pack(env, ts), (final.obs, None if env.all_legal else final.action_mask)


def _pack(env: Environment, ts: TimeStep) -> tuple:
    """obs, mask (None if everything is legal), [1 + events, E, A] facts and [2, E] ends.

    Few arrays, as each costs microseconds to hand over.
    """
    facts = jnp.stack([ts.reward, *(ts.events[name] for name in sorted(ts.events))])
    ends = jnp.stack([ts.terminated, ts.truncated])
    return ts.obs, None if env.all_legal else ts.action_mask, facts, ends


# Nothing is donated: torch may hold what went in.
_start = jax.jit(_start_games, static_argnums=2)
_step = jax.jit(_step_games)


def _jax_device(device: str | torch.device | None) -> Any:
    """JAX's name for a device of PyTorch; None: where JAX computes.

    Raises:
        ValueError: naming the device, if JAX or PyTorch has none such.
    """
    if device is None:
        chosen = next(iter(jnp.zeros(()).devices()))
    else:
        wanted = torch.device(device)
        platform = {"cuda": "gpu"}.get(wanted.type, wanted.type)
        try:
            chosen = jax.local_devices(backend=platform)[wanted.index or 0]
        except (RuntimeError, IndexError):
            raise ValueError(f"device={device}: JAX has no such device here; use cpu") from None
    if chosen.platform == "gpu" and not torch.cuda.is_available():
        raise ValueError(f"device={device}: JAX is on a GPU, PyTorch here knows none; use cpu")
    return chosen
