"""Contagion: who meets others earns by it, and catches and passes on what they carry.

**Source**: the chain of Reed and Frost (Abbey 1952, Human Biology 24) with the contacts of a random graph,
whose final size Newman 2002 (Phys Rev E 66, 016128) has in closed form: if all meet, an illness that passes a
contact with probability T spreads through a graph of degree D to the share 1 - v^D of the population, where
v = 1 - T + T v^(D-1) below 1, if it spreads at all. The choice to stay at home and what it is worth
are ours: an ill resident who meets others loses nothing by it, they do. Axes: A residents, D contacts.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.environment import Environment, TimeStep

STAY, MEET = range(2)  # actions
EVENTS = ("met", "infected", "cooperated", "defected")
HEALTHY, IMMUNE = 0, -1  # health; above 0: so many more steps ill


class State(struct.PyTreeNode):
    """An outbreak under way."""

    contacts: Array  # [A, D] int32 residents; each is a contact of its contacts
    health: Array  # [A] int32
    time: Array  # [] int32 steps played


class Contagion(Environment):
    """Residents of a random graph, each of whom meets its contacts or stays at home; all decide at once.

    Contacts meet if both do. obs["vector"] [A, 5]: whether healthy, ill, immune; the share of the contacts
    that is ill, and of all residents. Reward: `meeting_reward` times the share of the contacts met, less
    `illness_cost` for falling ill. Events: `met` (that share), `infected` (fell ill), and of who is ill
    `cooperated` (stayed at home) and `defected`. Graphs have multiple edges, of which there are few if A is
    large.
    """

    transmission: Any  # [] probability that an ill contact infects a healthy one in a step in which they meet
    meeting_reward: Any  # [] reward units
    illness_cost: Any  # [] reward units
    num_residents: int = struct.field(pytree_node=False)  # A
    num_contacts: int = struct.field(pytree_node=False)  # D, even
    num_infected: int = struct.field(pytree_node=False)  # ill at the start
    illness_steps: int = struct.field(pytree_node=False)  # steps of which one is ill; 1: Reed and Frost
    horizon: int = struct.field(pytree_node=False)  # steps

    action_space = spaces.Discrete(2)
    all_legal = True

    @property
    def num_agents(self) -> int:
        """The residents."""
        return self.num_residents

    @property
    def fixed_horizon(self) -> int:
        """Steps of every episode; it goes on where nobody is ill."""
        return self.horizon

    def check(self) -> None:
        """Raise ValueError for numbers out of range."""
        if self.num_residents < 2:
            raise ValueError(f"env.num_residents={self.num_residents}: must be at least 2")
        if self.num_contacts < 2 or self.num_contacts % 2:
            raise ValueError(f"env.num_contacts={self.num_contacts}: must be even and at least 2")
        if not 0 <= self.num_infected <= self.num_residents:
            raise ValueError(f"env.num_infected={self.num_infected}: must lie in 0 .. {self.num_residents}")
        for name in ("illness_steps", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.transmission <= 1:
            raise ValueError(f"env.transmission={self.transmission}: must lie in 0 .. 1")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Draw the graph, D / 2 rings through all residents; the first `num_infected` are ill."""
        rings = jax.vmap(lambda key: _ring(key, self.num_residents))(
            jax.random.split(key, self.num_contacts // 2)
        )
        contacts = rings.reshape(self.num_contacts, -1).T
        health = self.illness_steps * (jnp.arange(self.num_residents) < self.num_infected)
        state = State(contacts, health.astype(jnp.int32), jnp.int32(0))
        nothing = jnp.zeros(self.num_residents)
        return state, self._observe(state, nothing, dict.fromkeys(EVENTS, nothing))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """All meet or stay at once; `action` is [A] int."""
        meets, is_ill = action == MEET, state.health > 0
        codes = (meets.astype(jnp.uint8) + 2 * (meets & is_ill))[state.contacts]  # [A, D] one gather for both
        share_met = jnp.where(meets, (codes > 0).mean(1), 0.0)
        num_ill = jnp.where(meets, (codes == 3).sum(1), 0)
        risk = 1 - (1 - jnp.asarray(self.transmission, jnp.float32)) ** num_ill
        is_caught = (state.health == HEALTHY) & (jax.random.uniform(key, risk.shape) < risk)
        older = jnp.where(state.health == 1, IMMUNE, state.health - is_ill)
        health = jnp.where(is_caught, self.illness_steps, older)
        reward = self.meeting_reward * share_met - self.illness_cost * is_caught
        acts = {
            "met": share_met,
            "infected": is_caught,
            "cooperated": is_ill & ~meets,
            "defected": is_ill & meets,
        }
        state = state.replace(health=health, time=state.time + 1)
        return state, self._observe(state, reward, acts)

    def _observe(self, state: State, reward: Array, events: dict[str, Array]) -> TimeStep:
        is_ill = state.health > 0
        near, far = is_ill[state.contacts].mean(1), jnp.broadcast_to(is_ill.mean(), is_ill.shape)
        own = (state.health == HEALTHY, is_ill, state.health == IMMUNE)
        return TimeStep(
            obs={"vector": jnp.stack([*own, near, far], axis=1).astype(jnp.float32)},
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.bool_(False),
            truncated=state.time >= self.horizon,
            action_mask=jnp.ones((self.num_residents, 2), bool),
            events={name: x.astype(jnp.float32) for name, x in events.items()},
        )


def _ring(key: Array, num: int) -> Array:
    """[2, A] int32 who comes after and before each of `num` residents, who stand in a random ring."""
    order = jnp.argsort(jax.random.bits(key, num)).astype(jnp.int32)  # one sort; permutation() makes several
    place = jnp.zeros(num, jnp.int32).at[order].set(jnp.arange(num, dtype=jnp.int32))
    return jnp.stack([jnp.roll(order, -1), jnp.roll(order, 1)])[:, place]
