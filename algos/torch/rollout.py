"""Playing steps of a TorchEnv, and counting what happened: the PyTorch twin of `marl.learner.rollout`.

Axes: P learners, K seats a learner, T steps, E games, A seats.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from torch import Tensor

from marl.algorithm import Batch
from marl.environment import TimeStep
from marl.metrics import Tally
from marl.population import Seats, num_learners
from marl.torch_env import TorchEnv


class Player(Protocol):
    """What a rollout needs of a learning rule."""

    def act(self, ts: TimeStep, carry: Any, generator: torch.Generator, greedy: bool = False) -> tuple:
        """Returns (action [E, A, ...], carry, {name: [E, A, ...]} to keep for the update)."""
        ...

    def bootstrap(self, ts: TimeStep, carry: Any) -> Any:
        """What the update must know of a state that a restart replaced; a tree of [E, A, ...]."""
        ...


def to_learners(x: Tensor, seats: Seats, axis: int) -> Tensor:
    """[*pre, E, A, *X] -> [P, *pre, E*K, *X]; `axis` is where E stands, A follows it."""
    num = num_learners(seats)
    order = np.argsort(seats, kind="stable")
    if (order != np.arange(len(order))).any():
        x = x[(slice(None),) * (axis + 1) + (order.tolist(),)]
    x = x.unflatten(axis + 1, (num, -1)).movedim(axis + 1, 0)
    return x.flatten(axis + 1, axis + 2)


def to_seats(x: Tensor, seats: Seats, axis: int) -> Tensor:
    """The inverse of `to_learners`: [P, *pre, E*K, *X] -> [*pre, E, A, *X]."""
    agents = len(seats)
    x = x.unflatten(axis + 1, (-1, agents // num_learners(seats))).movedim(0, axis + 1)
    x = x.flatten(axis + 1, axis + 2)
    back = np.argsort(np.argsort(seats, kind="stable"))
    moved = (back != np.arange(agents)).any()
    return x[(slice(None),) * (axis + 1) + (back.tolist(),)] if moved else x


def rollout(
    player: Player, env: TorchEnv, ts: TimeStep, carry: Any, num_steps: int, generator: torch.Generator
) -> tuple[Batch, dict[str, Tensor]]:
    """Play `num_steps` steps in all games.

    Args:
        player: chooses the actions.
        env: the games, which restart by themselves.
        ts: what the next action answers to, [E, ...].
        carry: () or the recurrent state [E, A, H].
        num_steps: T.
        generator: of the actions.

    Returns:
        the Batch of tensors [T, E, A, ...] (bootstrap None if no state was remembered), and the
        events, each [T, E, A].
    """
    first, steps = carry, []
    bootstraps: dict[int, Any] = {}
    for t in range(num_steps):
        action, carry, extras = player.act(ts, carry, generator)
        new, final = env.step(action)
        steps.append(
            {
                "obs": ts.obs,
                "action_mask": ts.action_mask,
                "action": action,
                "reward": new.reward,
                "terminated": new.terminated,
                "done": new.done,
                "extras": extras,
                "events": new.events,
            }
        )
        if env.may_have_ended and env.env.can_truncate:
            bootstraps[t] = player.bootstrap(final, carry)
        if env.may_have_ended and isinstance(carry, Tensor):
            carry = torch.where(new.done[:, None, None], 0.0, carry)
        ts = new
    trace = jax.tree.map(lambda *x: torch.stack(x), *steps)
    events = trace.pop("events")
    batch = Batch(
        **trace,
        bootstrap=_spread(bootstraps, num_steps),
        carry=first,
        last=ts,
        last_carry=carry,
    )
    return batch, events


def _spread(found: dict[int, Any], num_steps: int) -> Any:
    """A tree [T, E, A, ...] of what was remembered at some steps, 0 elsewhere; None if nothing was."""
    if not found:
        return None
    zero = jax.tree.map(torch.zeros_like, next(iter(found.values())))
    return jax.tree.map(lambda *x: torch.stack(x), *(found.get(t, zero) for t in range(num_steps)))


@jax.jit
def tally(
    reward: Array, done: Array, events: dict[str, Array], episode_return: Array, episode_length: Array
) -> tuple[Tally, Array, Array]:
    """Count a rollout as `marl.learner` does.

    Args:
        reward: [T, E, A]; done: [T, E]; events: each [T, E, A].
        episode_return: [E, A] of the episodes under way; episode_length: [E] likewise.

    Returns:
        the Tally, and the returns and lengths of the episodes now under way.
    """
    nothing = jnp.zeros_like(reward[0])
    ts = TimeStep({}, nothing, done[0], done[0], nothing, jax.tree.map(lambda x: x[0], events))

    def step(now: tuple, x: tuple) -> tuple[tuple, None]:
        (seen, return_, length), (reward, done, events) = now, x
        return_, length = return_ + reward, length + 1
        seen = seen.add(1, reward, events).finish(done, return_, length)
        return (seen, jnp.where(done[:, None], 0.0, return_), jnp.where(done, 0, length)), None

    now = (Tally.zero(ts), episode_return, episode_length)
    return jax.lax.scan(step, now, (reward, done, events))[0]
