"""The Donor Game: units given away are doubled, by people who know what the receiver did before.

**Source**: Vallinder and Hughes 2024, "Cultural evolution of cooperation among LLM agents" (arXiv
2412.10270), after Nowak and Sigmund 1998; rules read in the authors' notebook. A game has as many
rounds as seats. A random half of the seats is side A; in round r seat i of A meets seat i + r of B, so
that each pair meets twice, once in each role. One gives any part of its resources, the other
gets `gain` times as much. The trace of a receiver is what it did when it last gave, what the
receiver of that gift had done, and so on back.

Schedules: `halves` is the notebook's, A B A B A B then B A B A B A, in which side B gives twice in a row; in
`alternating` the sides take turns throughout, as the paper says [its text was not at hand]. With
`num_games` 2 a second game follows from equal resources, with all roles reversed.

Variants: with `punish_levels` who gives may instead spend part of its resources, of which the
receiver loses `loss` times as much; with `can_refuse` it may refuse, which moves nothing but differs
from giving nothing in the trace (what refusal is in the notebook is not told: [inferred]).
Deviations: agents are learners or parametric strategies, not language models; amounts are shares in
equal steps. Axes: A seats, L trace length, N actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.environment import Environment, TimeStep
from marl.validation import require_choices

CHOICES = {"schedule": ("halves", "alternating"), "reward": ("log", "final")}
GIVES, PUNISHES, REFUSES = range(3)  # columns of what an action does


class State(struct.PyTreeNode):
    """Games under way."""

    place: Array  # [A] int32 a seat's place in a random order; the first half is side A
    resources: Array  # [A] float32 units
    trace: Array  # [A, L, 4] of each seat's acts as a donor, newest first: whether there is one, ACT
    time: Array  # [] int32 rounds played


class DonorGame(Environment):
    """Half of the seats decide in a round, the others wait.

    Actions: give k / (gift_levels - 1) of the own resources; spend k / punish_levels of them to
    punish (k from 1); refuse, if there is that; wait, the only legal one of who receives.
    obs["vector"]: log(1 + own resources) / 10, that of the one met, share of the rounds played, whether the
    seat decides, and the trace of the one met, L times [there is one, share given, share spent to
    punish, refused]. Reward, at the end of each game: `log`, of (1 + resources) / (1 + endowment);
    `final`, resources / `reward_scale`.

    Events of who decides: `cooperated` and `defected`, the shares given and kept; `punished`, the share
    spent; `refused`. Of all at the end of each game `final_resources`, over `num_games`: their sum is the
    mean over games.
    """

    endowment: Any  # [] units at the start of a game
    gain: Any  # [] units received for each given
    loss: Any  # [] units lost for each spent to punish
    reward_scale: Any  # [] units that make one reward unit, where the reward is `final`
    num_players: int = struct.field(pytree_node=False)  # A, even
    num_games: int = struct.field(pytree_node=False)  # 1, or 2: again with roles reversed
    gift_levels: int = struct.field(pytree_node=False)  # shares that can be given, 0 and 1 included
    punish_levels: int = struct.field(pytree_node=False)  # shares that can be spent to punish
    can_refuse: bool = struct.field(pytree_node=False)
    trace_length: int = struct.field(pytree_node=False)  # L
    schedule: str = struct.field(pytree_node=False)
    reward: str = struct.field(pytree_node=False)

    @property
    def num_agents(self) -> int:
        """The players."""
        return self.num_players

    @property
    def action_space(self) -> spaces.Discrete:
        """Gifts, punishments, perhaps to refuse, to wait."""
        return spaces.Discrete(self.gift_levels + self.punish_levels + self.can_refuse + 1)

    @property
    def fixed_horizon(self) -> int:
        """As many rounds as seats in each game."""
        return self.num_games * self.num_players

    def check(self) -> None:
        """Raise ValueError for unknown rules or numbers out of range."""
        require_choices(self, "env", CHOICES)
        if self.num_players < 2 or self.num_players % 2:
            raise ValueError(f"env.num_players={self.num_players}: must be even and at least 2")
        for name, low in (("gift_levels", 2), ("punish_levels", 0), ("trace_length", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least {low}")
        if self.num_games not in (1, 2):
            raise ValueError(f"env.num_games={self.num_games}: must be 1 or 2")
        if not self.endowment > 0:
            raise ValueError(f"env.endowment={self.endowment}: must be greater than 0")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Draw the sides; everybody has the endowment and no trace."""
        num = self.num_players
        place = jax.random.permutation(key, num).astype(jnp.int32)
        state = State(place, self._endowments(), jnp.zeros((num, self.trace_length, 4)), jnp.int32(0))
        nothing = jnp.zeros(num)
        return state, self._observe(state, nothing, jnp.zeros((num, 3)), nothing, nothing)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Half of the seats act on the other half; `action` is [A] int, an illegal one gives nothing."""
        met, gives = self._pairs(state)
        act = jnp.where(gives[:, None], jnp.asarray(self._acts)[action], 0.0)  # [A, 3]
        used = state.resources[:, None] * act[:, :REFUSES]  # [A, 2] units given, and spent to punish
        received = self.gain * used[met, GIVES] - self.loss * used[met, PUNISHES]
        resources = jnp.maximum(state.resources - used.sum(1) + received, 0.0)
        entry = jnp.concatenate([jnp.ones((self.num_players, 1)), act], axis=1)[:, None]
        longer = jnp.concatenate([entry, state.trace[met]], axis=1)[:, : self.trace_length]
        trace = jnp.where(gives[:, None, None], longer, state.trace)
        time = state.time + 1
        is_end = time % self.num_players == 0
        final = jnp.where(is_end, resources / self.num_games, 0.0)
        earned = jnp.log((1 + resources) / (1 + self.endowment))
        if self.reward == "final":
            earned = resources / self.reward_scale
        state = state.replace(
            resources=jnp.where(is_end, self._endowments(), resources),
            trace=jnp.where(is_end, 0.0, trace),
            time=time,
        )
        return state, self._observe(state, jnp.where(is_end, earned, 0.0), act, gives, final)

    @property
    def _acts(self) -> np.ndarray:
        """[N, 3] float32 of each action: share given, share spent to punish, whether it refuses."""
        acts = np.zeros((int(self.action_space.n), 3), np.float32)
        acts[: self.gift_levels, GIVES] = np.arange(self.gift_levels) / (self.gift_levels - 1)
        punish = slice(self.gift_levels, self.gift_levels + self.punish_levels)
        acts[punish, PUNISHES] = np.arange(1, self.punish_levels + 1) / max(self.punish_levels, 1)
        acts[punish.stop : -1, REFUSES] = 1
        return acts

    def _endowments(self) -> Array:
        return jnp.full(self.num_players, self.endowment, jnp.float32)

    def _pairs(self, state: State) -> tuple[Array, Array]:
        """[A] int32 the seat that each one meets in the coming round, [A] bool whether it decides."""
        half, game, now = self.num_players // 2, state.time // self.num_players, state.time % self.num_players
        second = now // half  # [] 0 or 1, half of the game
        if self.schedule == "alternating":
            # the second half begins one pair later where the turns would otherwise give equal roles
            shift, turn = now + second * (1 - half % 2), now
        else:
            shift, turn = now, now % half + second
        is_a = state.place < half
        row = state.place % half
        other = half * is_a + (row + jnp.where(is_a, shift, -shift)) % half
        seat_at = jnp.zeros_like(state.place).at[state.place].set(np.arange(self.num_players))
        return seat_at[other], is_a == ((turn + game) % 2 == 0)

    def _observe(self, state: State, reward: Array, act: Array, gave: Array, final: Array) -> TimeStep:
        """The TimeStep of a state, after who `gave` [A] did `act` [A, 3]."""
        num, (met, gives) = self.num_players, self._pairs(state)
        wealth = jnp.log1p(state.resources) / 10
        played = jnp.broadcast_to(state.time % num / num, (num,))
        facts = jnp.stack([wealth, wealth[met], played, gives.astype(jnp.float32)], axis=1)
        is_wait = np.arange(self.action_space.n) == self.action_space.n - 1
        return TimeStep(
            obs={"vector": jnp.concatenate([facts, state.trace[met].reshape(num, -1)], axis=1)},
            reward=reward.astype(jnp.float32),
            terminated=jnp.bool_(False),
            truncated=state.time >= self.fixed_horizon,
            action_mask=gives[:, None] != is_wait,
            events={
                "cooperated": act[:, GIVES],
                "defected": gave * (1 - act.sum(1)),
                "punished": act[:, PUNISHES],
                "refused": act[:, REFUSES],
                "final_resources": final,
            },
        )
