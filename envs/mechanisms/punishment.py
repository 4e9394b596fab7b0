"""Peer punishment at a cost, in a stage after each round or as a further action of the game.

**Source**: the direct punishment of Dasgupta and Musolesi (arXiv 2301.08278), where after each
round both players decide whether to punish the other. Deviations: any number of seats, of
which one may be punished in a step; the punisher pays `cost` whatever its victim did (there
just and unjust punishment pay differently); the mode `action`. Axes: A seats, n actions of the
inner game.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.environment import Mechanism, TimeStep, extend_vector, legal_or_first, num_discrete

MODES = ("stage", "action")


class State(struct.PyTreeNode):
    """The inner game, what it said last, and where in a round the seats are."""

    inner: Any
    last: TimeStep  # of the inner game; its obs is {} in mode action, where it is not shown again
    in_stage: Array  # [] bool, the next step is a stage of punishment
    hits: Array  # [A] int32, how many punished each seat last time


class Punishment(Mechanism):
    """Lets each seat punish one other seat: it pays `cost`, the victim loses `fine`.

    Mode stage: every round is two steps. The first plays the inner game and gives its reward;
    in the second each seat takes action n (punish nobody) or n + k (punish seat i + k mod A,
    k = 1 .. A-1), the inner game stands still, its events are 0, and only then is the end of an
    episode told. Mode action: action n + k - 1 punishes seat i + k during the round, while the
    seat plays `idle`, or the first legal action where `idle` is not legal. The mask holds the
    actions of the phase. obs["vector"] gains a flag (1 before a stage; mode stage only) and the
    number of seats that punished this one last time; in mode stage obs["stage"] tells the kind
    of step, the stage of punishment being the last. Events: `punished` (acts) and
    `was_punished` (their number). Neutral: cost and fine 0; nobody gains or loses by punishing.
    """

    cost: Any  # [] reward units the punisher pays per act
    fine: Any  # [] reward units the victim loses per punisher
    mode: str = struct.field(pytree_node=False)  # "stage" or "action"
    idle: int = struct.field(pytree_node=False)  # inner action of a punisher, mode action only

    @property
    def action_space(self) -> spaces.Discrete:
        """The n inner actions, then those of punishment: A in mode stage, A - 1 in mode action."""
        extra = self.num_agents if self.mode == "stage" else self.num_agents - 1
        return spaces.Discrete(num_discrete(self.env, "punishment") + extra)

    @property
    def fixed_horizon(self) -> int | None:
        """The inner horizon, twice that in mode stage."""
        return self._with_stages(self.env.fixed_horizon)

    @property
    def ends_every(self) -> int | None:
        """As the inner environment, twice that in mode stage."""
        return self._with_stages(self.env.ends_every)

    def _with_stages(self, steps: int | None) -> int | None:
        return 2 * steps if steps and self.mode == "stage" else steps

    @property
    def num_stages(self) -> int:
        """In mode stage one more than the inner environment, numbered last."""
        return self.env.num_stages + (self.mode == "stage")

    @property
    def all_legal(self) -> bool:
        """Stages and rounds allow different actions."""
        return self.mode == "action" and self.env.all_legal

    def check(self) -> None:
        """Raise ValueError for an unknown mode, an idle action out of range, or a lonely seat."""
        self.env.check()
        num = num_discrete(self.env, "punishment")
        if self.mode not in MODES:
            raise ValueError(f"mechanism.punishment.mode={self.mode}: must be one of {', '.join(MODES)}")
        if self.mode == "action" and not 0 <= self.idle < num:
            raise ValueError(f"mechanism.punishment.idle={self.idle}: must lie in 0 .. {num - 1}")
        if self.num_agents < 2:
            raise ValueError(f"mechanism.punishment needs 2 seats or more, not {self.num_agents}")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Start the inner game; a round comes first and nobody has been punished."""
        inner, ts = self.env.reset(key)
        nobody = jnp.zeros(self.num_agents, jnp.int32)
        state = State(inner, self._keep(ts), jnp.bool_(False), nobody)
        return state, self._show(state, ts, nobody, nobody)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Play a round, hold a stage, or both at once; `action` is [A] int."""
        if self.mode == "action":
            return self._round_with_acts(key, state, action)
        return jax.lax.cond(state.in_stage, self._stage, self._round, key, state, action)

    def _round(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        inner, ts = self.env.step(key, state.inner, action)
        state = State(inner, ts, jnp.bool_(True), state.hits)
        running = ts.replace(terminated=jnp.bool_(False), truncated=jnp.bool_(False))
        nobody = jnp.zeros(self.num_agents, jnp.int32)
        return state, self._show(state, running, nobody, nobody)

    def _stage(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        acts, hits = self._count(action - num_discrete(self.env, "punishment"))
        ts = state.last.replace(
            reward=jnp.zeros_like(state.last.reward),
            events=jax.tree.map(jnp.zeros_like, state.last.events),
        )
        state = state.replace(in_stage=jnp.bool_(False), hits=hits)
        return state, self._show(state, ts, acts, hits)

    def _round_with_acts(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        num = num_discrete(self.env, "punishment")
        acts, hits = self._count(action - num + 1)
        idle = legal_or_first(state.last.action_mask, self.idle)
        inner, ts = self.env.step(key, state.inner, jnp.where(acts > 0, idle, action))
        state = State(inner, self._keep(ts), state.in_stage, hits)
        return state, self._show(state, ts, acts, hits)

    def _count(self, distance: Array) -> tuple[Array, Array]:
        """[A] steps from each seat to its victim (< 1: nobody) -> acts and hits, [A] int32."""
        num = self.num_agents
        acts = (distance >= 1).astype(jnp.int32)
        victim = (np.arange(num) + distance) % num
        return acts, jnp.zeros(num, jnp.int32).at[victim].add(acts)

    def _keep(self, ts: TimeStep) -> TimeStep:
        return ts if self.mode == "stage" else ts.replace(obs={})

    def _show(self, state: State, ts: TimeStep, acts: Array, hits: Array) -> TimeStep:
        """The inner TimeStep with this step's acts and hits [A], and the mask of what comes next."""
        legal = jnp.ones((self.num_agents, self.action_space.n - ts.action_mask.shape[-1]), bool)
        mask, features = ts.action_mask, state.hits[:, None]
        if self.mode == "stage":
            mask, legal = mask & ~state.in_stage, legal & state.in_stage
            flag = jnp.broadcast_to(state.in_stage, features.shape)
            features = jnp.concatenate([flag, features], axis=-1)
            inner = ts.obs.get("stage", jnp.zeros(self.num_agents, jnp.int32))
            stage = jnp.where(state.in_stage, jnp.int32(self.env.num_stages), inner)
            ts = ts.replace(obs=ts.obs | {"stage": stage})
        ts = ts.replace(
            reward=ts.reward - self.cost * acts - self.fine * hits,
            action_mask=jnp.concatenate([mask, legal], axis=-1),
            events=ts.events
            | {"punished": acts.astype(jnp.float32), "was_punished": hits.astype(jnp.float32)},
        )
        return extend_vector(ts, features)
