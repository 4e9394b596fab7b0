"""Goal Sequence: goals to be visited in a hidden order, beside a demonstrator that knows or once learnt it.

**Source**: Cook et al. 2024 (arXiv 2406.00392, section 4.2 and appendix D.2) and their code. Seat 0 learns,
seat 1 demonstrates; they walk through each other, and only seat 0 can see the other, at each step with a
probability that falls from trial to trial. What lies where and the order stay the same in all trials of an
episode; in each the seats are back at their start and at the first target.

The target is number `pointer + 1` of the order. By the paper's code the pointer is the net score, so that a
wrong goal moves the target back one place; `progress: hits_only` counts the hits alone (ours). Below 0 and
past its end the order is read as a circle. `repo_exact` copies two things from their code: who stands on the
target is paid also for turning, and going ahead against the border while on a goal counts as coming onto it;
without it only a step onto another cell counts. Then to enter goals blindly costs .15 a trial (measured),
and learners learn to keep off them; with it that costs nothing who turns on each. A demonstrator that is a
`peer` (an earlier generation) sees what a learner sees, without the learner, and is told that it is in its
last trial, which it plays again and again. With `random_starts` the three goals and the seats start on five
different cells (inferred); without, the seats start in the middle row as in the paper's code, the
demonstrator one cell ahead, where the forced first step leads the learner. The compass is ours. For
generations (`marl.accumulation`, `marl.lineages`) the game has what they ask of games whose demonstrators
hold seats. Axes: 2 seats, C cells (number C is outside the map), L targets of the order.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from envs.board import EAST, Board, load_board
from envs.grid import Avatars, draw, happens, placed, uniform
from envs.seated_demonstrator import SeatedDemonstrator
from marl.environment import TimeStep
from marl.render import PALETTE, Thing, board
from marl.validation import require_choices

LEFT, RIGHT, FORWARD = range(3)  # actions: two turns and a step
NUM_GOALS = 3
WALL, GOAL, AGENT = 1, 2, 5  # codes; goals are 2, 3 and 4
OTHER_GOAL, TARGET = 2, 3  # codes as an oracle sees them
CODES = 6
CHOICES = {"progress": ("net_score", "hits_only"), "demonstrator": ("oracle", "peer")}


class State(struct.PyTreeNode):
    """A game under way."""

    avatars: Avatars  # of the learner and the demonstrator
    start: Avatars  # where they begin each trial
    goals: Array  # [3] int32 cells
    order: Array  # [L] int32 goals in the hidden order
    pointer: Array  # [2] int32 places in the order
    misled: Array  # [] bool, the oracle is shown a wrong target
    seen: Array  # [] bool, the learner can see the demonstrator
    time: Array  # [] int32 steps played


class GoalSequence(SeatedDemonstrator):
    """A learner and a demonstrator in a grid with three goals.

    obs["grid"] uint8 [2, view, view, 1] is what lies ahead, turned so that ahead is up, oneself in the middle
    of the lowest row: 1 outside the map, 2 .. 4 the goals, 5 oneself and the demonstrator, where a goal
    hides the latter. An oracle sees 3 for its target and 2 for the other goals.
    obs["vector"] [2, F]: the trial (one-hot, if there are several; those beyond its end count as the last
    entry); whether the last reward was a penalty, none or a hit; where one looks (one-hot, if
    `shows_direction`); cells ahead and to the right to the oracle's target, zeros for others (if there is a
    `compass`).
    Events: `hit`, `missed` (came onto a wrong goal), `saw` (the demonstrator, in what is observed now),
    `score`, the reward, `trials`, those that ended (sums of both give the mean score of a trial), and with
    several trials `trial_1`, `trial_2` ..., the reward in each.
    """

    penalty: Any  # [] reward units, cost of a wrong goal
    noise_prob: Any  # [] probability after a hit of the oracle that it is shown a later target until the next
    instance: Any  # [3 + L] cells of the goals (-1: drawn for each episode), then the order; None: both drawn
    layout: str = struct.field(pytree_node=False)  # an empty map of envs/layouts, or a .txt file
    num_targets: int = struct.field(pytree_node=False)  # L
    order_seed: int | None = struct.field(pytree_node=False)  # one order for all episodes; None: new in each
    random_starts: bool = struct.field(pytree_node=False)  # else in the middle row, looking to the right
    forced_start: bool = struct.field(pytree_node=False)  # first step of a trial: learner ahead, other waits
    view: int = struct.field(pytree_node=False)  # cells of a side of what is seen, odd
    progress: str = struct.field(pytree_node=False)  # net_score or hits_only
    repo_exact: bool = struct.field(pytree_node=False)  # what counts as coming onto a goal, see above
    demonstrator: str = struct.field(pytree_node=False)  # what seat 1 sees: oracle or peer
    noise_shift: int = struct.field(pytree_node=False)  # places by which the shown target is later
    shows_direction: bool = struct.field(pytree_node=False)
    compass: bool = struct.field(pytree_node=False)  # the oracle is told the way

    action_space = spaces.Discrete(3)
    grid_codes = (CODES,)
    can_truncate = False

    @property
    def all_legal(self) -> bool:
        """Unless first steps are forced."""
        return not self.forced_start

    @property
    def board(self) -> Board:
        """The numbered cells."""
        return load_board(self.layout, "", False, "")

    def check(self) -> None:
        """Raise ValueError for fields that do not fit."""
        require_choices(self, "env", CHOICES)
        if set(self.board.letters.tolist()) != {"."} or min(self.board.shape) < 3:
            raise ValueError(f"env.layout={self.layout}: must have 3 rows and columns or more, all cells .")
        super().check()
        if self.instance is not None and jnp.shape(jnp.asarray(self.instance)) != (
            NUM_GOALS + self.num_targets,
        ):
            raise ValueError(f"env.instance: must be {NUM_GOALS + self.num_targets} numbers")
        for name, least in (("num_targets", 1), ("noise_shift", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least {least}")
        if self.view < 3 or self.view % 2 == 0:
            raise ValueError(f"env.view={self.view}: must be odd and at least 3")
        if self.forced_start and self.random_starts:
            raise ValueError("env.forced_start=true: must be false with env.random_starts=true")

    def draw_instance(self, key: Array) -> Array:
        """[3 + L] int32 an order, and goals unless they are new in each episode (`random_starts`)."""
        state = self.replace(instance=None).reset(key)[0]
        goals = jnp.full_like(state.goals, -1) if self.random_starts else state.goals
        return jnp.concatenate([goals, state.order])

    def novices(self) -> GoalSequence:
        """Whose seat 1 sees what a learner sees."""
        return self.replace(demonstrator="peer", noise_prob=jnp.zeros_like(self.noise_prob, jnp.float32))

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """New goals, starts and order; the first trial."""
        cells, looks, words, rest = draw(key, (NUM_GOALS + 2,), (2,), (self.num_targets,), (1,))
        number, nowhere = self.board.number, self.board.nowhere
        middle = number.shape[0] // 2
        sites = np.array([nowhere] * NUM_GOALS + number[middle, :2].tolist(), np.int32)
        facing = jnp.full(2, EAST, jnp.int32)
        if self.random_starts:
            sites, facing = np.full_like(sites, nowhere), (uniform(looks) * 4).astype(jnp.int32)
        known = None if self.instance is None else jnp.asarray(self.instance, jnp.int32)
        if known is not None:
            own = jnp.where(known[:NUM_GOALS] >= 0, known[:NUM_GOALS], nowhere)
            sites = jnp.concatenate([own, jnp.asarray(sites)[NUM_GOALS:]])
        cells = placed(cells, jnp.asarray(sites), jnp.asarray(sites == nowhere), nowhere)
        if known is not None:
            order = known[NUM_GOALS:]
        elif self.order_seed is None:
            order = (uniform(words) * NUM_GOALS).astype(jnp.int32)
        else:
            rng = np.random.default_rng(self.order_seed)
            order = jnp.asarray(rng.integers(0, NUM_GOALS, self.num_targets), jnp.int32)
        start, time = Avatars(cells[NUM_GOALS:], facing), jnp.int32(0)
        state = State(
            avatars=start,
            start=start,
            goals=cells[:NUM_GOALS],
            order=order,
            pointer=jnp.zeros(2, jnp.int32),
            misled=jnp.bool_(False),
            seen=happens(rest[0], self.visible_now(time)),
            time=time,
        )
        none = jnp.zeros(2, bool)
        return state, self._observe(state, none, none, jnp.int32(0))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Turn or walk, be paid, perhaps begin the next trial; `action` is [2] int."""
        (words,) = draw(key, (2,))
        avatars, hit, missed = self._act(state, action)
        pointer = state.pointer + hit - (missed if self.progress == "net_score" else 0)
        misled = jnp.where(hit[1], happens(words[0], self.noise_prob), state.misled)
        trial, time = state.time // self.trial_steps, state.time + 1
        anew = time % self.trial_steps == 0
        begun = state.start, jnp.zeros_like(pointer), jnp.bool_(False)
        avatars, pointer, misled = jax.tree.map(
            lambda x, y: jnp.where(anew, x, y), begun, (avatars, pointer, misled)
        )
        seen = happens(words[1], self.visible_now(time))
        state = state.replace(
            avatars=avatars,
            pointer=pointer,
            misled=misled & (self.demonstrator == "oracle"),
            seen=seen,
            time=time,
        )
        return state, self._observe(state, hit, missed, trial)

    def target(self, state: State, ahead: int | Array = 0) -> Array:
        """[2] int32 the goal that each seat must visit next, or the one `ahead` places later in the order."""
        return state.order[(state.pointer + 1 + ahead) % self.num_targets]

    def _forced(self, time: Array) -> Array:
        """[] bool, the next step is a trial's first and is not chosen."""
        return (time % self.trial_steps == 0) & self.forced_start

    def _act(self, state: State, action: Array) -> tuple[Avatars, Array, Array]:
        """The avatars after their actions; who came onto its target and who onto a wrong goal, [2] bool."""
        forced, old = self._forced(state.time), state.avatars
        action = jnp.where(forced, FORWARD, action)
        acts = ~forced | (np.arange(2) == 0)
        ahead = (action == FORWARD) & acts
        turn = jnp.where(acts, (action == RIGHT).astype(jnp.int32) - (action == LEFT), 0)
        goal = jnp.asarray(self.board.moves)[old.facing * (self.board.nowhere + 1) + old.cell]
        cell = jnp.where(ahead, goal, old.cell)
        on = cell[:, None] == state.goals  # [2, 3]
        wanted = np.arange(NUM_GOALS) == self.target(state)[:, None]
        came = cell != old.cell
        hit = (on & wanted).any(-1) & (acts if self.repo_exact else came)
        missed = (on & ~wanted).any(-1) & (ahead if self.repo_exact else came)
        return Avatars(cell, (old.facing + turn) % 4), hit, missed

    def _observe(self, state: State, hit: Array, missed: Array, trial: Array) -> TimeStep:
        legal = ~self._forced(state.time) | (np.arange(3) == FORWARD)
        reward = hit.astype(jnp.float32) - self.penalty * missed
        saw = state.seen & (np.arange(2) == 0)
        ended = (state.time % self.trial_steps == 0) & (state.time > 0)
        trials = jnp.broadcast_to(ended, saw.shape)
        events = {"hit": hit, "missed": missed, "saw": saw, "score": reward, "trials": trials}
        if self.num_trials > 1:
            events |= {f"trial_{k + 1}": reward * (trial == k) for k in range(self.num_trials)}
        return TimeStep(
            obs={"grid": self._grid(state), "vector": self._vector(state, hit, missed)},
            reward=reward,
            terminated=state.time >= self.fixed_horizon,
            truncated=jnp.bool_(False),
            action_mask=jnp.broadcast_to(legal, (2, 3)),
            events={name: x.astype(jnp.float32) for name, x in events.items()},
        )

    def _shown(self, state: State) -> Array:
        """[] int32 the goal that the oracle is shown as its target."""
        return self.target(state, jnp.where(state.misled, self.noise_shift, 0))[1]

    def _grid(self, state: State) -> Array:
        kind = np.arange(NUM_GOALS)
        looks = jnp.broadcast_to(GOAL + kind, (2, NUM_GOALS))
        if self.demonstrator == "oracle":
            looks = looks.at[1].set(jnp.where(kind == self._shown(state), TARGET, OTHER_GOAL))
        plane = jnp.zeros((2, self.board.nowhere + 1), jnp.uint8).at[:, -1].set(WALL)
        plane = plane.at[0, state.avatars.cell[1]].set(jnp.where(state.seen, AGENT, 0).astype(jnp.uint8))
        plane = plane.at[:, state.goals].set(looks.astype(jnp.uint8))
        window = jnp.asarray(self.board.window(self.view - 1, 0, self.view // 2))
        cells = window[state.avatars.cell * 4 + state.avatars.facing].astype(jnp.int32)  # [2, W]
        grid = jnp.take_along_axis(plane, cells, axis=1).reshape(2, self.view, self.view, 1)
        return grid.at[:, -1, self.view // 2].set(AGENT)

    def _vector(self, state: State, hit: Array, missed: Array) -> Array:
        parts = []
        told = self.num_told
        if told > 1:
            trial = jnp.full(2, jnp.minimum(state.time // self.trial_steps, told - 1))
            trial = trial.at[1].set(told - 1) if self.demonstrator == "peer" else trial
            parts.append(jax.nn.one_hot(trial, told))
        parts.append(jnp.stack([missed, ~hit & ~missed, hit], axis=-1))
        if self.shows_direction:
            parts.append(jax.nn.one_hot(state.avatars.facing, 4))
        if self.compass:
            parts.append(self._way(state))
        return jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=-1)

    def _way(self, state: State) -> Array:
        """[2, 2] cells ahead and to the right to what the oracle is shown; zeros for others."""
        rows, columns = (jnp.asarray(x) for x in self.board.row_column)
        here, there = state.avatars.cell[1], state.goals[self._shown(state)]
        down, over = rows[there] - rows[here], columns[there] - columns[here]
        ahead = jnp.stack([-down, over, down, -over])  # looking north, east, south, west
        way = jnp.stack([ahead[state.avatars.facing[1]], ahead[(state.avatars.facing[1] + 1) % 4]])
        return jnp.zeros((2, 2)).at[1].set(way * (self.demonstrator == "oracle"))

    def picture(self, state: Any) -> np.ndarray:
        """The map; goals are squares, the learner's target in green, seats look where they look."""
        rows, columns = self.board.row_column
        target = int(self.target(state)[0])
        things = []
        for kind, cell in enumerate(np.asarray(state.goals)):
            colour = PALETTE[2] if kind == target else PALETTE[8]
            things.append(Thing(rows[cell], columns[cell], colour, "square"))
        cells, facing = np.asarray(state.avatars.cell), np.asarray(state.avatars.facing)
        for seat, cell in enumerate(cells):
            things.append(Thing(rows[cell], columns[cell], PALETTE[seat], f"avatar_{'nesw'[facing[seat]]}"))
        return board(*self.board.shape, things)
