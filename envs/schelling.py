"""Schelling's model of segregation with agents that live, kill, die and can learn where to go.

**Source**: Sert, Bar-Yam and Morales 2020 (Sci Rep 10, 11771), rules and numbers as the authors' code has
them; the reward `level` and `always_alive` as published. Seats of two kinds live on a torus. All decide
at once, each on the window that it saw after its own last move; then they take their turns one by one in
random order. A turn costs a unit of life, and who has none left dies. On an empty cell one moves; on a
cell of the other kind the occupant dies and the mover takes its place and gains life; a cell of the own
kind stays taken. Who is dead may appear, at its turn, on a random empty cell, and decides from the next
step on.

Deviations: equally many seats of both kinds (the source draws each cell). Who is killed after its own turn
has both rewards in one step (the source stores two transitions, the second with a random action), and who
is killed before it keeps the action that it had chosen (there a random one). Death comes at a life of 0 or
less (the source misses fractions). The world does not stop when nothing moves. An empty cell is sought in
TRIES draws. The life that is seen is the one after the own last move (the source also shows, as that of the
state before a move, the one after it). Axes: A seats (the first half of one kind), C cells (number C is
nowhere), W cells of a window.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from envs.grid import draw, uniform
from envs.schelling_turns import (
    ABSENT,
    ENTERED,
    EXPIRED,
    KILLED,
    MOVED,
    MOVES,
    OCCLUDED,
    STAYED,
    STILL,
    at_once,
    is_first,
    one_after_another,
    windows,
)
from marl.environment import Environment, TimeStep
from marl.validation import require_choices

TRIES = 16  # draws of a cell to appear on; at 10 % taken all fail once in 10^16
SEG_REWARDS = ("delta_cells", "level")
TURNS = ("in_turn", "at_once")
COLOURS = np.array([[255, 255, 255], [27, 108, 168], [209, 96, 61]], np.uint8)  # empty, and both kinds
PIXELS = 8  # a side of a drawn cell


class State(struct.PyTreeNode):
    """A world under way."""

    who: Array  # [C + 1] int32, seat number + 1, 0 if empty; nobody is nowhere
    cell: Array  # [A] int32, C for the dead
    life: Array  # [A] float32 steps left
    age: Array  # [A] int32 steps since it appeared
    window: Array  # [A, W] uint8, seen after the own last move: 0 empty, 1 own kind (and self), 2 other kind
    action: Array  # [A] int32 the last one
    time: Array  # [] int32 steps


class Schelling(Environment):
    """A torus on which two kinds move, kill and die; see the module.

    A seat that is alive may go up, left, down, right or stay; one that is dead has only the last, decides
    nothing, and sees zeros. obs["vector"] is the life left over `max_age`. Death is terminal for a seat.

    Reward of a move: `alive_reward` + the segregation reward + gain * interdependence if it killed; of
    staying or bumping into the own kind, minus the penalty; of a death, minus `death_penalty`. Segregation
    reward: `delta_cells`, changes of the window, cell by cell (own kind +1, other -1), added up, negative
    ones times `intolerance`; `level`, own less `intolerance` times other kind in the window, at all turns.

    Events: `alive` when the step began, and so deciding; of these moved, killed, occluded, stayed,
    died_of_age, was_killed; `entered` of the dead.
    """

    intolerance: Any  # weight alpha of the other kind, 0 to 1
    interdependence: Any  # reward for a kill, 0 to 100
    gain: Any  # a kill prolongs life by 1 + gain, and pays gain * interdependence
    alive_reward: Any  # for a move
    still_penalty: Any
    occlusion_penalty: Any
    death_penalty: Any
    max_age: Any  # steps of a life without kills
    entry_prob: Any  # of the dead, a step
    seg_reward: str = struct.field(pytree_node=False)  # one of SEG_REWARDS
    always_alive: bool = struct.field(pytree_node=False)  # alive_reward also without a move
    height: int = struct.field(pytree_node=False)  # rows
    width: int = struct.field(pytree_node=False)  # columns
    num_per_kind: int = struct.field(pytree_node=False)  # seats of each kind
    radius: int = struct.field(pytree_node=False)  # cells seen in each direction
    horizon: int = struct.field(pytree_node=False)  # steps; then a new world begins
    turns: str = struct.field(pytree_node=False, default="in_turn")  # one of TURNS, see envs.schelling_turns

    grid_codes = (3,)
    action_space = spaces.Discrete(len(MOVES))

    @property
    def num_agents(self) -> int:
        """A."""
        return 2 * self.num_per_kind

    @property
    def seat_types(self) -> tuple[int, ...]:
        """0 for the seats of the first kind, 1 for those of the second."""
        return (0,) * self.num_per_kind + (1,) * self.num_per_kind

    @property
    def fixed_horizon(self) -> int:
        """Steps of a world."""
        return self.horizon

    @property
    def num_cells(self) -> int:
        """C."""
        return self.height * self.width

    def check(self) -> None:
        """Raise ValueError for a world too small for its windows or its seats."""
        require_choices(self, "env", {"seg_reward": SEG_REWARDS, "turns": TURNS})
        side = 2 * self.radius + 1
        if self.radius < 1 or side > min(self.height, self.width):
            most = (min(self.height, self.width) - 1) // 2
            raise ValueError(f"env.radius={self.radius}: must lie in 1 .. {most}, so that windows fit")
        if not 0 < self.num_per_kind < self.num_cells / 2:
            limit = f"at least 1 and below {self.num_cells / 2:g}, half of the cells"
            raise ValueError(f"env.num_per_kind={self.num_per_kind}: must be {limit}")
        if self.horizon < 1:
            raise ValueError(f"env.horizon={self.horizon}: must be at least 1")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Everybody newly on a cell of its own."""
        num = self.num_agents
        cell = jax.random.permutation(key, self.num_cells)[:num].astype(jnp.int32)
        seat = jnp.arange(num, dtype=jnp.int32)
        who = jnp.zeros(self.num_cells + 1, jnp.int32).at[cell].set(seat + 1)
        state = State(
            who=who,
            cell=cell,
            life=jnp.full(num, self.max_age, jnp.float32),
            age=jnp.zeros(num, jnp.int32),
            window=windows(self, who, cell, seat),
            action=jnp.full(num, STILL, jnp.int32),
            time=jnp.int32(0),
        )
        nobody = jnp.zeros(num, bool)
        return state, self._look(state, jnp.full(num, ABSENT), jnp.zeros(num), nobody, nobody)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """All take their turns in a random order; `action` is [A] int."""
        num, cells = self.num_agents, self.num_cells
        was_alive, action = state.cell < cells, action.astype(jnp.int32)
        bits, chance, spots = draw(key, (num,), (num,), (num, TRIES))
        spots = jnp.minimum((uniform(spots) * cells).astype(jnp.int32), cells - 1)
        turn = one_after_another if self.turns == "in_turn" else at_once
        done = turn(self, state, action, (bits, uniform(chance) < self.entry_prob, spots))
        reward = self._reward(done.kind, state.window, done.window) - self.death_penalty * done.died
        window = jnp.where((done.cell < cells)[:, None], done.window, 0)  # also of who was killed later
        state = State(done.who, done.cell, done.life, done.age, window, action, state.time + 1)
        return state, self._look(state, done.kind, reward, was_alive, done.died > 0)

    def _reward(self, kind: Array, before: Array, after: Array) -> Array:
        """[A] float32 of the own turn; windows [A, W]."""
        worth = lambda window: jnp.asarray(np.array([0, 1, -1], np.int32))[window]
        if self.seg_reward == "level":
            own, other = (after == 1).sum(-1) - 1, (after == 2).sum(-1)
            felt = own - self.intolerance * other
        else:
            change = worth(after) - worth(before)
            felt = jnp.maximum(change, 0).sum(-1) + self.intolerance * jnp.minimum(change, 0).sum(-1)
        went, acted = (kind == MOVED) | (kind == KILLED), (kind >= MOVED) & (kind <= STAYED)
        reward = self.alive_reward * (acted if self.always_alive else went)
        reward += felt * (acted if self.seg_reward == "level" else went)
        reward += self.gain * self.interdependence * (kind == KILLED)
        reward -= self.still_penalty * (kind == STAYED) + self.occlusion_penalty * (kind == OCCLUDED)
        return (reward - self.death_penalty * (kind == EXPIRED)).astype(jnp.float32)

    def _look(
        self, state: State, kind: Array, reward: Array, was_alive: Array, was_killed: Array
    ) -> TimeStep:
        alive = state.cell < self.num_cells
        did = lambda *kinds: jnp.isin(kind, np.array(kinds)) & was_alive
        events = {
            "alive": was_alive,
            "moved": did(MOVED, KILLED),
            "killed": did(KILLED),
            "occluded": did(OCCLUDED),
            "stayed": did(STAYED),
            "died_of_age": did(EXPIRED),
            "was_killed": was_killed & was_alive,
            "entered": kind == ENTERED,
        }
        side = 2 * self.radius + 1
        life = jnp.where(alive, state.life / self.max_age, 0.0)
        still_only = np.arange(len(MOVES)) == STILL
        return TimeStep(
            obs={
                "grid": state.window.reshape(-1, side, side, 1),
                "vector": life[:, None].astype(jnp.float32),
            },
            reward=reward,
            terminated=jnp.bool_(False),
            truncated=state.time >= self.horizon,
            action_mask=alive[:, None] | still_only,
            events={name: fact.astype(jnp.float32) for name, fact in events.items()},
            seat_terminated=events["died_of_age"] | events["was_killed"],
        )

    def kinds(self, who: Array) -> Array:
        """[..., H, W] int8, 0 empty, 1 and 2 the kinds, from `State.who` [..., C + 1]."""
        kind = jnp.where(who > 0, jnp.where(is_first(self, who - 1), 1, 2), 0)
        return kind[..., :-1].reshape(*who.shape[:-1], self.height, self.width).astype(jnp.int8)

    def census(self, state: State) -> dict[str, Array]:
        """Facts of one world for `marl.census`.

        `grid` [H, W] as of `kinds`, `ages` [H, W] int16 (-1 where nobody is), and of the seats, each [A]:
        `age` (-1 of the dead), `action`, `stayed`, and `same` and `other`, how many of the own and of the
        other kind they saw in their windows after their own last move.
        """
        alive, cells = state.cell < self.num_cells, self.num_cells
        age = jnp.where(alive, state.age, -1).astype(jnp.int16)
        ages = jnp.full(cells + 1, -1, jnp.int16).at[state.cell].set(age)[:cells]
        return {
            "grid": self.kinds(state.who),
            "ages": ages.reshape(self.height, self.width),
            "age": age,
            "action": state.action.astype(jnp.int8),
            "stayed": state.action == STILL,
            "same": jnp.maximum((state.window == 1).sum(-1) - 1, 0).astype(jnp.int16),
            "other": (state.window == 2).sum(-1).astype(jnp.int16),
        }

    def picture(self, state: State) -> np.ndarray:
        """The map, uint8 [PIXELS * H, PIXELS * W, 3]: white empty, blue and orange the kinds."""
        cells = COLOURS[np.asarray(self.kinds(state.who))]
        return np.kron(cells, np.ones((PIXELS, PIXELS, 1), np.uint8))
