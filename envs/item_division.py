"""Two seats divide items of several kinds by saying, at once, how much of each they want.

**Source**: the rule of division shared by the negotiation game of Duque et al. 2025 (arXiv 2406.14662) and
the split games of Piche et al. 2025 (arXiv 2511.19405), see `envs.negotiation`, `envs.split` and
`envs.trust_and_split`. One step is one complete round; then new values are drawn. All draws come
from the key alone, so equal keys give equal values whatever the seats do. Axes: A = 2 seats, I = 3
kinds of items.
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

DIVISIONS = ("max", "proportion")
NUM_ITEMS = 3  # I


def shares(proposal: Array, max_proposal: int, division: str) -> Array:
    """Fractions [A, ...] of the items that seats get who ask for `proposal` [A, ...].

    max: p / max(max_proposal, sum of p), so what nobody asks for is lost. proportion: p / sum of p,
    and 0 if nobody asks.
    """
    total = proposal.sum(0)
    if division == "max":
        return proposal / jnp.maximum(total, max_proposal)
    return proposal / jnp.where(total > 0, total, 1.0)


class State(struct.PyTreeNode):
    """A game under way."""

    value: Array  # [2, 3] float32 points per item in the round that comes
    last_value: Array  # [2, 3] float32 points per item in the last round, 0 before the first
    last_proposal: Array  # [2, 3] float32, 0 before the first round
    time: Array  # [] int32 rounds played


class ItemDivision(Environment):
    """Each round the seats propose amounts of three kinds of items, whose values both know.

    Reward of seat i: sum over items of share_i * pool * value_i / reward_scale, with the `shares` of
    the rule. obs["vector"] of a seat: pool, own values, own last proposal, the other's values, the
    other's last proposal, and with `show_last_values` own and other's values in the last round;
    all divided by `obs_unit`, zeros where there was no round yet.

    Events: `defected`, how much a seat asks of the items that the other values more (mean over these
    items of proposal / max_proposal), and `cooperated`, what is missing from 1; both are 0 in
    a round without such an item. `points`, earned before any scaling, and `best_points`, a half of
    what the two could have earned together: the quotient of their sums is the efficiency.
    Subclasses say which values are drawn.
    """

    pool: Any  # [3] items of each kind
    low_value: Any  # [] points of an item of low value
    high_value: Any  # [] points of an item of high value
    reward_scale: Any  # [] points that make one reward unit
    obs_unit: Any  # [] what observations are divided by
    max_proposal: int = struct.field(pytree_node=False)  # the most that a seat may ask of a kind
    discrete: bool = struct.field(pytree_node=False)  # whether proposals are whole numbers
    division: str = struct.field(pytree_node=False)  # one of DIVISIONS
    show_last_values: bool = struct.field(pytree_node=False)  # in the observation
    horizon: int = struct.field(pytree_node=False)  # rounds

    num_agents = 2
    all_legal = True

    @property
    def action_space(self) -> spaces.Space:
        """A proposal for each kind, 0 .. max_proposal: whole numbers or any."""
        if self.discrete:
            return spaces.MultiDiscrete([self.max_proposal + 1] * NUM_ITEMS)
        return spaces.Box(0.0, float(self.max_proposal), (NUM_ITEMS,), np.float32)

    @property
    def fixed_horizon(self) -> int:
        """All episodes are cut at the horizon."""
        return self.horizon

    def draw_high(self, key: Array) -> Array:
        """[2, 3] bool, which kinds each seat values high in a round."""
        raise NotImplementedError("a game says which values it draws")

    def check(self) -> None:
        """Raise ValueError for an unknown rule, or numbers out of range."""
        if self.division not in DIVISIONS:
            raise ValueError(f"env.division={self.division}: must be one of {', '.join(DIVISIONS)}")
        if np.shape(self.pool) != (NUM_ITEMS,) or not np.all(np.asarray(self.pool) > 0):
            raise ValueError(f"env.pool={self.pool}: must be {NUM_ITEMS} numbers greater than 0")
        for name in ("max_proposal", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.low_value < self.high_value:
            raise ValueError(
                f"env.low_value={self.low_value}: must lie in 0 .. env.high_value={self.high_value}, below it"
            )
        for name in ("reward_scale", "obs_unit"):
            if not getattr(self, name) > 0:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be greater than 0")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Draw the first values; no round has been played."""
        value, nothing = self._draw(key), jnp.zeros((2, NUM_ITEMS))
        events = jax.tree.map(jnp.zeros_like, self.events(value, nothing, jnp.zeros(2)))
        return self._look(State(value, nothing, nothing, jnp.int32(0)), jnp.zeros(2), events)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Divide the items and draw new values; `action` is [2, 3]."""
        proposal = action.astype(jnp.float32)
        amount = shares(proposal, self.max_proposal, self.division) * self._pool
        points = (amount * state.value).sum(-1)
        events = self.events(state.value, proposal, points)
        state = State(self._draw(key), state.value, proposal, state.time + 1)
        return self._look(state, (points / self.reward_scale).astype(jnp.float32), events)

    def events(self, value: Array, proposal: Array, points: Array) -> dict[str, Array]:
        """What the seats did, each [2] float32; value and proposal [2, 3], points [2]."""
        other_cares = value < value[::-1]
        most = self.max_proposal * jnp.maximum(other_cares.sum(-1), 1)
        best = (self._pool * value.max(0)).sum() / 2
        return {
            "cooperated": ((self.max_proposal - proposal) * other_cares).sum(-1) / most,
            "defected": (proposal * other_cares).sum(-1) / most,
            "points": points,
            "best_points": jnp.broadcast_to(best, points.shape),
        }

    @property
    def _pool(self) -> Array:
        return jnp.asarray(self.pool, jnp.float32)

    def _draw(self, key: Array) -> Array:
        """[2, 3] float32 values of a round."""
        return jnp.where(self.draw_high(key), self.high_value, self.low_value).astype(jnp.float32)

    def _look(self, state: State, reward: Array, events: dict[str, Array]) -> tuple[State, TimeStep]:
        pool = jnp.broadcast_to(self._pool, state.value.shape)
        facts = [pool, state.value, state.last_proposal, state.value[::-1], state.last_proposal[::-1]]
        if self.show_last_values:
            facts += [state.last_value, state.last_value[::-1]]
        num_mask = NUM_ITEMS * (self.max_proposal + 1) if self.discrete else NUM_ITEMS
        return state, TimeStep(
            obs={"vector": (jnp.concatenate(facts, axis=-1) / self.obs_unit).astype(jnp.float32)},
            reward=reward,
            terminated=jnp.bool_(False),
            truncated=state.time >= self.horizon,
            action_mask=jnp.ones((2, num_mask), bool),
            events=events,
        )
