"""Trust and split: two seats tell each other their hidden hands, or do not, then divide coins.

**Source**: the game "Trust-and-Split" (rock, paper, scissors) of Piche et al. 2025, "Learning Robust
Social Strategies with LLMs" (arXiv 2511.19405), rules read in the authors' code. In every round two
different hands are dealt; a coin is worth 10 points to the seat whose hand wins and 1 to the
other; each sees only its own. One speaks, the other hears it and answers, then both say at once
how many of the 10 coins they keep: seat 1 gets 10 * p1 / max(10, p1 + p2). Afterwards each learns
whether the other's hand was the upper one, and what it proposed. The seat that speaks first is
drawn at the start and alternates from round to round.

Deviations: messages are single symbols instead of texts and proposals whole numbers. Rewards are
divided by `reward_scale`, 100 as in the authors' learner (1 gives the points of their game). A round
is three steps, where the authors merge it into one. All draws come from the key alone, so equal
keys give equal hands and speakers whatever the seats do. Axes: A = 2 seats, M symbols, N actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from envs.item_division import shares
from marl.environment import Environment, TimeStep

NUM_HANDS = 3  # 0 rock, 1 paper, 2 scissors: hand h beats hand h - 1 mod 3
PHASES = FIRST_SPEAKS, SECOND_SPEAKS, PROPOSE = range(3)
# [6, 2] the pairs of different hands
DEALS = np.array([(a, b) for a in range(NUM_HANDS) for b in range(NUM_HANDS) if a != b], np.int32)


class State(struct.PyTreeNode):
    """A game under way."""

    hand: Array  # [2] int32 of this round
    speaker: Array  # [] int32, the seat that speaks first in this round
    message: Array  # [2] int32 symbols of this round, -1 = not spoken yet
    last_upper: Array  # [2] int32, 1: had the upper hand in the last round, -1 before the first
    last_proposal: Array  # [2] int32 coins, 0 before the first round
    time: Array  # [] int32 steps played


class TrustAndSplit(Environment):
    """Rounds of three steps: the first speaker's message, the second's, then both propose.

    Actions: M messages, then the proposals 0 .. num_coins, then "wait"; the mask holds those of the
    phase, and the seat that does not speak may only wait. obs["stage"] is the phase. obs["vector"] of
    a seat: own hand (3), phase (3), whether it speaks first (1), own message (M), the message that
    it heard (M), all one-hot, zeros where nothing was said; of the last round (zeros before the
    first) whether the own and whether the other's hand was the upper one (2), and the shares of
    the coins that the seat itself and the other proposed to keep (2).

    Events, in the third step of a round: `cooperated` and `defected`, the shares of the coins that
    the seat of the lower hand does not, and does, propose to keep; `asked_when_lower` and
    `asked_when_higher`, its proposal in coins by its hand, whose sums over both seats are mean
    proposals per round; `points`, earned before any scaling, and `best_points`, a half of what both
    could have earned together: the quotient of their sums is the efficiency. When a seat speaks:
    `announced_hand`, 1 if it says the number of its own hand.
    """

    low_value: Any  # [] points of a coin to the lower hand
    high_value: Any  # [] points of a coin to the upper hand
    reward_scale: Any  # [] points that make one reward unit
    num_symbols: int = struct.field(pytree_node=False)  # M
    num_coins: int = struct.field(pytree_node=False)  # coins of a round
    num_rounds: int = struct.field(pytree_node=False)  # rounds of an episode

    num_agents = 2
    num_stages = len(PHASES)

    @property
    def action_space(self) -> spaces.Discrete:
        """Messages, proposals, wait."""
        return spaces.Discrete(self.num_symbols + self.num_coins + 2)

    @property
    def fixed_horizon(self) -> int:
        """Three steps a round."""
        return len(PHASES) * self.num_rounds

    def check(self) -> None:
        """Raise ValueError for numbers out of range."""
        for name in ("num_symbols", "num_coins", "num_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.low_value < self.high_value:
            raise ValueError(
                f"env.low_value={self.low_value}: must lie in 0 .. env.high_value={self.high_value}, below it"
            )
        if not self.reward_scale > 0:
            raise ValueError(f"env.reward_scale={self.reward_scale}: must be greater than 0")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Deal the first hands and draw who speaks first."""
        number = (jax.random.uniform(key) * (2 * len(DEALS))).astype(jnp.int32)
        state = State(
            hand=jnp.asarray(DEALS)[number % len(DEALS)],
            speaker=number // len(DEALS),
            message=jnp.full(2, -1, jnp.int32),
            last_upper=jnp.full(2, -1, jnp.int32),
            last_proposal=jnp.zeros(2, jnp.int32),
            time=jnp.int32(0),
        )
        nothing = jnp.zeros(2, jnp.int32)
        quiet = jnp.zeros(2, bool)
        events = self._events(state, nothing, jnp.zeros(2), quiet, jnp.bool_(False))
        return state, self._observe(state, jnp.zeros(2), events)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """A message or the proposals; `action` is [2] int, an illegal one counts as the nearest legal one."""
        phase = state.time % len(PHASES)
        speaks = _speaks(state.speaker, phase)
        message = jnp.where(speaks, jnp.clip(action, 0, self.num_symbols - 1), state.message)
        proposal = jnp.clip(action - self.num_symbols, 0, self.num_coins).astype(jnp.int32)
        is_split = phase == PROPOSE
        amount = shares(proposal.astype(jnp.float32), self.num_coins, "max") * self.num_coins
        value = jnp.where(_upper(state.hand), self.high_value, self.low_value)
        points = jnp.where(is_split, amount * value, 0.0).astype(jnp.float32)
        said = state.replace(message=message.astype(jnp.int32))
        events = self._events(said, proposal, points, speaks, is_split)
        dealt = jnp.asarray(DEALS)[(jax.random.uniform(key) * len(DEALS)).astype(jnp.int32)]
        state = State(
            hand=jnp.where(is_split, dealt, state.hand),
            speaker=jnp.where(is_split, 1 - state.speaker, state.speaker),
            message=jnp.where(is_split, -1, said.message),
            last_upper=jnp.where(is_split, _upper(state.hand).astype(jnp.int32), state.last_upper),
            last_proposal=jnp.where(is_split, proposal, state.last_proposal),
            time=state.time + 1,
        )
        reward = (points / self.reward_scale).astype(jnp.float32)
        return state, self._observe(state, reward, events)

    def _events(
        self, state: State, proposal: Array, points: Array, speaks: Array, is_split: Array
    ) -> dict[str, Array]:
        """What the seats did in this step, from the state before the next deal."""
        upper, asked = _upper(state.hand), proposal.astype(jnp.float32)
        lower_asked = jnp.where(is_split & ~upper, asked, 0.0)
        left = jnp.where(is_split & ~upper, self.num_coins - asked, 0.0)
        best = jnp.where(is_split, self.num_coins * jnp.float32(self.high_value) / 2, 0.0)
        return {
            "cooperated": left / self.num_coins,
            "defected": lower_asked / self.num_coins,
            "asked_when_lower": lower_asked,
            "asked_when_higher": jnp.where(is_split & upper, asked, 0.0),
            "points": points,
            "best_points": jnp.broadcast_to(best, (2,)),
            "announced_hand": (speaks & (state.message == state.hand)).astype(jnp.float32),
        }

    def _observe(self, state: State, reward: Array, events: dict[str, Array]) -> TimeStep:
        phase = state.time % len(PHASES)
        both = lambda x: jnp.broadcast_to(x, (2, *jnp.shape(x)))
        message = jax.nn.one_hot(state.message, self.num_symbols)
        upper = (state.last_upper == 1).astype(jnp.float32)
        asked = state.last_proposal / jnp.float32(self.num_coins)
        last = [upper, (state.last_upper[::-1] == 1).astype(jnp.float32), asked, asked[::-1]]
        facts = [
            jax.nn.one_hot(state.hand, NUM_HANDS),
            both(jax.nn.one_hot(phase, len(PHASES))),
            (state.speaker == jnp.arange(2)).astype(jnp.float32)[:, None],
            message,
            message[::-1],
            jnp.stack(last, axis=-1),
        ]
        return TimeStep(
            obs={"vector": jnp.concatenate(facts, axis=-1), "stage": both(phase)},
            reward=reward,
            terminated=jnp.bool_(False),
            truncated=state.time >= self.fixed_horizon,
            action_mask=self._mask(state.speaker, phase),
            events=events,
        )

    def _mask(self, speaker: Array, phase: Array) -> Array:
        """[2, N] bool: messages for who speaks, proposals in the last phase, else to wait."""
        action = np.arange(self.action_space.n)
        is_message, is_wait = action < self.num_symbols, action == self.action_space.n - 1
        speaks, proposes = _speaks(speaker, phase)[:, None], phase == PROPOSE
        quiet = jnp.where(proposes, ~(is_message | is_wait), is_wait)
        return jnp.where(speaks, is_message, quiet)


def _upper(hand: Array) -> Array:
    """[2] bool, whose hand wins; `hand` [2]."""
    return (hand - hand[::-1]) % NUM_HANDS == 1


def _speaks(speaker: Array, phase: Array) -> Array:
    """[2] bool, who speaks in this phase []; `speaker` [] spoke or speaks first."""
    return (jnp.arange(2) == (speaker + phase) % 2) & (phase != PROPOSE)
