"""The interface of learning rules and scripted players: Algorithm, and the Batch they learn from.

Axes: T steps, E parallel games, A seats (those that the algorithm holds), N actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.environment import Environment, TimeStep
from marl.node import Node


class Batch(struct.PyTreeNode):
    """What one rollout leaves behind; every leaf is time first."""

    obs: dict[str, Array]  # [T, E, A, ...] before the step
    action_mask: Array  # [T, E, A, N]
    action: Array  # [T, E, A, ...] as the algorithm chose it
    reward: Array  # [T, E, A]
    terminated: Array  # [T, E], or [T, E, A] in games where seats end by themselves
    done: Array  # [T, E]
    extras: Any  # what `act` put aside, [T, E, A, ...]
    bootstrap: Any  # what `bootstrap` said of the states reached at `done`, [T, E, A, ...], else 0
    carry: Any  # [E, A, ...] recurrent state before the first step
    last: TimeStep  # [E, ...] after the last step and any restart
    last_carry: Any  # [E, A, ...] likewise
    events: dict[str, Array] = struct.field(default_factory=dict)  # those that the algorithm reads, [T, E, A]
    joint: Any = None  # [T, E, all seats, ...] what all did, where the batch is one member's of a Mixture,
    held: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)  # [A] which seats it holds

    @property
    def start(self) -> Array:
        """[T, E] bool, an episode began with this step (the first step's carry is zeroed already)."""
        return jnp.concatenate([jnp.zeros_like(self.done[:1]), self.done[:-1]])

    @property
    def age(self) -> Array:
        """[T, E] int32, steps since the episode, or the batch, began."""
        steps = jnp.arange(len(self.done), dtype=jnp.int32)[:, None]
        return steps - jax.lax.cummax(jnp.where(self.start, steps, 0))

    @property
    def ends(self) -> Array:
        """[T, E] or [T, E, A] bool, nothing that a seat does later belongs to the same future."""
        seats = self.terminated.ndim > self.done.ndim
        return (self.done[..., None] | self.terminated) if seats else self.done

    def of_member(self, member: int, seats: np.ndarray) -> Batch:
        """The batch as one member of a Mixture sees it."""
        pick = lambda tree: jax.tree.map(lambda x: jnp.take(x, seats, 2), tree)
        return self.replace(
            obs=pick(self.obs),
            action_mask=pick(self.action_mask),
            action=pick(self.action),
            reward=pick(self.reward),
            terminated=pick(self.terminated) if self.terminated.ndim > self.done.ndim else self.terminated,
            extras=self.extras[member],
            bootstrap=self.bootstrap[member],
            carry=self.carry[member],
            last=self.last.take(seats, axis=1),
            last_carry=self.last_carry[member],
            events=pick(self.events),
            joint=self.action,
            held=tuple(int(seat) for seat in seats),
        )


class Algorithm(Node):
    """A rule that chooses actions and, if it learns, changes its `learner` from batches.

    The base class is a player without parameters, memory or learning; it must say how it
    acts. Hyper-parameters are leaves, sizes and modules static.
    """

    num_steps = 1  # rollout length T between updates
    max_envs = None  # parallel games that it can learn from, None: any number
    group_size = 1  # neighbouring games that share all draws of the game, not those of the players
    reads = ()  # names of the events that `update` finds in its batch

    def check(self, env: Environment) -> None:
        """Raise ValueError if the fields do not fit each other or the game."""

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Any:
        """A fresh learner; `ts` is a TimeStep with leading axis E."""
        return ()

    def for_acting(self, learner: Any) -> Any:
        """The part of a learner that `act` needs, leaves [P, ...] (P learners); `act` works on it alone.

        Frozen players and exported policies keep only this. It drops parts (the optimiser's state,
        a replay buffer) by putting () in their place, and changes nothing else, so that it works
        under any leading axes and twice in a row. All of it unless the algorithm says otherwise.
        """
        return learner

    def initial_carry(self, env: Environment, ts: TimeStep) -> Any:
        """The recurrent state of E games that just began; leaves [E, A, ...]."""
        return ()

    def act(
        self, env: Environment, learner: Any, carry: Any, ts: TimeStep, key: Array, greedy: bool = False
    ) -> tuple[Array, Any, Any]:
        """Choose an action for every seat.

        Args:
            env: the game, for its action space.
            learner: as made by `init`.
            carry: recurrent state, zeroed by the loop where an episode ended.
            ts: leaves with leading axis E.
            key: random key of this step.
            greedy: take the likeliest action instead of sampling.

        Returns:
            action [E, A, ...], the new carry, extras to keep for `update`.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it acts")

    def bootstrap(self, env: Environment, learner: Any, carry: Any, ts: TimeStep) -> Any:
        """What `update` must know of a state that a restart is about to replace, [E, A, ...].

        Called by the loop only where episodes end, so it costs nothing on other steps.
        """
        return ()

    def update(self, env: Environment, learner: Any, batch: Batch, key: Array) -> tuple[Any, dict]:
        """Learn from a batch. Returns (learner, scalar metrics)."""
        return learner, {}


class AlgorithmWrapper(Algorithm):
    """An algorithm around another; forwards what it asks of games and batches."""

    algo: Algorithm

    @property
    def num_steps(self) -> int:
        """As the algorithm inside."""
        return self.algo.num_steps

    @property
    def max_envs(self) -> int | None:
        """As the algorithm inside."""
        return self.algo.max_envs

    @property
    def group_size(self) -> int:
        """As the algorithm inside."""
        return self.algo.group_size

    @property
    def reads(self) -> tuple[str, ...]:
        """As the algorithm inside."""
        return self.algo.reads
