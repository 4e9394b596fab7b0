"""Schelling's model of segregation: residents of two types who leave where too few neighbours are like them.

**Sources**: Schelling 1971, "Dynamic models of segregation" (Journal of Mathematical Sociology 1); mesa 3.3.1
(`mesa/examples/basic/schelling`), whose rules are the preset `schelling_classic_mesa`. Deviations: Mesa draws
the type of each cell, so that numbers vary from run to run; here they are given. Schelling's "nearest"
is recalled, not seen: along rows plus along columns, ties drawn. The update `parallel` is ours.

A seat is a resident, and its action is whether it goes by the rule. The classic model is the game in which
all always do (`algo=seeker`); rewards and observations are there for others. Axes: A seats, C cells.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from envs import relocation
from marl.environment import Environment, TimeStep
from marl.render import BLUE, BOARD, PAPER, RED
from marl.segregation import window_sum

STAY, SEEK = 0, 1  # actions
MOVES = ("random_empty", "random_satisfying", "nearest_satisfying")
UPDATES = ("sequential", "simultaneous", "parallel")
CRITERIA = ("share", "count")
SECOND = 1 << 12  # what a resident of type 2 counts, more than there are cells in a window
MAX_RADIUS = 31


class State(struct.PyTreeNode):
    """A board and how its residents judge it."""

    site: Array  # [C] int32, a permutation of the cells: those of the seats, then the vacant ones
    content: Array  # [A] bool, judged after the last step
    time: Array  # [] int32 steps played


class SchellingClassic(Environment):
    """Each step the seats that seek (action 1) and are discontent move; who takes action 0 stays.

    `update` says when they are judged. `simultaneous`: all after the last step, then they move one after
    another in random order, also to cells left before. `sequential`: each when its turn comes. `parallel`:
    all after the last step, and they move at once to different cells that were vacant (with
    `random_satisfying` each proposes one, see `relocation.proposals`). Who finds no satisfying vacancy stays.

    Reward: 1 for who is content after the step, less `move_cost` for who moved. obs["vector"] [A, 3]: the
    share of its type among a seat's neighbours (0 without any), the share of the window's other cells that is
    occupied, and whether it is content. Events: `moved`, `content`. The first seats are of type 1.
    """

    threshold: Any  # [] share in 0 .. 1 or number of like neighbours that makes content, by `criterion`
    move_cost: Any  # [] reward units
    isolated_content: Any  # [] bool, whether who has no neighbour is content; always with a threshold of 0
    num_residents: tuple[int, int] = struct.field(pytree_node=False)  # of type 1 and of type 2
    rows: int = struct.field(pytree_node=False)  # of the board
    columns: int = struct.field(pytree_node=False)
    radius: int = struct.field(pytree_node=False)  # cells to each side that are neighbours
    torus: bool = struct.field(pytree_node=False)  # whether the board has no border
    criterion: str = struct.field(pytree_node=False)  # one of CRITERIA
    move: str = struct.field(pytree_node=False)  # where to, one of MOVES
    update: str = struct.field(pytree_node=False)  # one of UPDATES
    ends_when_content: bool = struct.field(
        pytree_node=False
    )  # whether the game ends when all seats are content
    horizon: int = struct.field(pytree_node=False)  # steps after which it is cut

    all_legal = True

    @property
    def num_agents(self) -> int:
        """All residents."""
        return sum(self.num_residents)

    @property
    def action_space(self) -> spaces.Space:
        """To stay, or to go by the rule."""
        return spaces.Discrete(2)

    @property
    def fixed_horizon(self) -> int | None:
        """The horizon, unless the game can end before."""
        return None if self.ends_when_content else self.horizon

    def check(self) -> None:
        """Raise ValueError for unknown rules or numbers that do not fit."""
        for name, known in (("move", MOVES), ("update", UPDATES), ("criterion", CRITERIA)):
            if getattr(self, name) not in known:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be one of {', '.join(known)}")
        for name in ("rows", "columns", "radius", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least 1")
        if self.radius > MAX_RADIUS:
            raise ValueError(f"env.radius={self.radius}: must be at most {MAX_RADIUS}")
        if len(self.num_residents) != 2 or min(self.num_residents) < 1:
            raise ValueError(f"env.num_residents={self.num_residents}: must be two numbers of at least 1")
        if self.num_agents >= self.rows * self.columns:
            cells = self.rows * self.columns
            raise ValueError(
                f"env.num_residents={self.num_residents}: must leave one of {cells} cells vacant"
            )
        if self.torus and min(self.rows, self.columns) <= 2 * self.radius:
            raise ValueError(f"env.radius={self.radius}: must leave the window smaller than the torus")
        if self.update == "parallel" and self.move == "nearest_satisfying":
            raise ValueError("env.move=nearest_satisfying: must not be with env.update=parallel")
        most = 1 if self.criterion == "share" else (2 * self.radius + 1) ** 2 - 1
        if not 0 <= self.threshold <= most:
            raise ValueError(f"env.threshold={self.threshold}: must lie in 0 .. {most}")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Put everybody on cells of their own, uniformly at random."""
        site = jax.random.permutation(key, self.rows * self.columns).astype(jnp.int32)
        return self._look(site, jnp.int32(0), jnp.zeros(self.num_agents, bool), jnp.float32(0))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Let who seeks and is discontent move; `action` is [A]."""
        site = self.moved(key, state.site, state.content, action == SEEK)
        moved = site[: self.num_agents] != state.site[: self.num_agents]
        return self._look(site, state.time + 1, moved, jnp.float32(1))

    def grid(self, site: Array) -> Array:
        """[H, W] int8 of a board, 0 vacant, 1 and 2 the types, as in `marl.segregation`."""
        return relocation.board(site, self.num_residents, (self.rows, self.columns))

    def moved(self, key: Array, site: Array, content: Array, seeks: Array) -> Array:
        """[C] the board after one step; `content` and `seeks` are [A] bool."""
        if self.update == "sequential":
            return relocation.in_turn(key, site, seeks, self, anew=True)
        moves = seeks & ~content
        if self.update == "parallel":
            if self.move == "random_empty":
                return relocation.all_at_once(key, site, moves)
            return relocation.proposals(key, site, moves, self.grid(site), self)
        if self.move == "random_empty":
            return relocation.one_after_another(key, site, moves)
        return relocation.in_turn(key, site, moves, self, anew=False)

    def judged(self, site: Array) -> tuple[Array, Array, Array]:
        """[A] neighbours of the own type, all neighbours, and whether that is enough, of every seat."""
        grid = self.grid(site)
        of_first = np.arange(self.num_agents) < self.num_residents[0]
        code = jnp.where(grid == 2, SECOND, grid.astype(jnp.int32))  # both types are counted at once
        seen = window_sum(code, self.radius, self.torus).ravel()
        near = relocation.at(seen, site[: self.num_agents]) - np.where(of_first, 1, SECOND)
        first, second = near % SECOND, near // SECOND
        same, both = jnp.where(of_first, first, second), first + second
        return same, both, relocation.satisfied(same, both, self)

    def picture(self, state: State) -> np.ndarray:
        """Red and blue cells of the two types on paper; seats have no colour of their own."""
        side = max(1, BOARD // max(self.rows, self.columns))
        colours = np.array([PAPER, RED, BLUE], np.uint8)
        return colours[np.asarray(self.grid(state.site))].repeat(side, 0).repeat(side, 1)

    def _look(self, site: Array, time: Array, moved: Array, pays: Array) -> tuple[State, TimeStep]:
        """The state and what is seen of it; `pays` [] is 0 before the first step."""
        same, both, content = self.judged(site)
        share = same / jnp.maximum(both, 1)
        crowd = both / ((2 * self.radius + 1) ** 2 - 1)
        seen = jnp.stack([share, crowd, content.astype(jnp.float32)], axis=-1).astype(jnp.float32)
        events = {"moved": moved.astype(jnp.float32), "content": content * pays}
        ended = content.all() & (pays > 0) if self.ends_when_content else jnp.bool_(False)
        step = TimeStep(
            obs={"vector": seen},
            reward=(events["content"] - self.move_cost * events["moved"]).astype(jnp.float32),
            terminated=ended,
            truncated=~ended & (time >= self.horizon),
            action_mask=jnp.ones((self.num_agents, 2), bool),
            events=events,
        )
        return State(site, content, time), step
