"""Self-play against a buffer of past agents: a ring of snapshots, and training with them as opponents.

**Sources**: the agent replay buffer of LOQA (Aghajohari et al. 2024, arXiv 2405.01035) and Advantage
Alignment (Duque et al. 2024, arXiv 2406.14662), read in their code: current parameters are pushed
every few updates, and each episode's opponent is drawn uniformly from the filled part. As in LOQA a
game against the past has one learning seat; here that seat turns from game to game, where LOQA
trains seat 0 only.
Axes: N snapshots, T steps, E games, A seats, P learners, n rows: pairs of a game and a seat.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from marl.algorithm import AlgorithmWrapper, Batch
from marl.environment import Environment, TimeStep
from marl.population import Seats, num_learners
from marl.rows import learnt_from, pick, put, seen


class Ring(struct.PyTreeNode):
    """The last N snapshots of something; the oldest is overwritten first."""

    snapshots: Any  # leaves [N, ...]
    num_pushed: Array  # [] int32, pushes so far

    @classmethod
    def of(cls, first: Any, size: int) -> Ring:
        """A ring of N = `size` places that holds one snapshot, `first`."""
        zeros = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), first)
        return cls(zeros, jnp.int32(0)).push(first)

    @property
    def size(self) -> int:
        """N."""
        return jax.tree.leaves(self.snapshots)[0].shape[0]

    def push(self, snapshot: Any, when: Array | bool = True) -> Ring:
        """Add a snapshot, or change nothing where `when` [] is False."""
        when = jnp.asarray(when)
        place = self.num_pushed % self.size
        put = lambda old, new: old.at[place].set(jnp.where(when, new, old[place]))
        snapshots = jax.tree.map(put, self.snapshots, snapshot)
        return Ring(snapshots, self.num_pushed + when.astype(jnp.int32))

    def draw(self, key: Array, shape: tuple[int, ...]) -> Array:
        """[*shape] int32 places of snapshots, uniform over the filled part."""
        return jax.random.randint(key, shape, 0, jnp.minimum(self.num_pushed, self.size))

    def take(self, places: Array) -> Any:
        """The snapshots at `places` [*shape]; leaves [*shape, ...]."""
        return jax.tree.map(lambda x: x[places], self.snapshots)


class Learner(struct.PyTreeNode):
    """A learner and its past."""

    current: Any  # of the algorithm inside, leaves [P, ...]
    past: Ring  # of what it needs to act
    num_updates: Array  # [] int32


class Carry(struct.PyTreeNode):
    """Recurrent states; all zeros at the start of an episode."""

    current: Any  # of the current learner, in all seats, leaves [E, A, ...]
    past: Any  # of the game's snapshot, in all seats, leaves [E, A, ...]
    place: Array  # [E] int32, place of the game's snapshot + 1; 0: not drawn yet


class PastPlay(AlgorithmWrapper):
    """`algo`, which learns in at least two seats, in games of its own and in games against its past.

    The first games of a batch, the share `current_fraction` of them, are plain self-play in which
    all seats learn. In the others one seat, number (game mod A), is held by the current learner,
    and the rest by one snapshot, drawn anew for every episode; only the current learner's own
    data is learnt from. A credit also sees the advantages of the snapshots' seats, by the current
    learner's critic. The number of games against the past is rounded down to a multiple of A. Where
    games share draws in groups, the same holds for groups of games. With `games_per_snapshot` G > 1,
    G neighbouring games share a snapshot, so that one product serves them all: on a CPU small products
    with different weights cost more. Such games must begin together.
    """

    size: int = struct.field(pytree_node=False)  # N, snapshots kept
    push_every: int = struct.field(pytree_node=False)  # updates between snapshots
    current_fraction: float = struct.field(pytree_node=False)  # share of games of plain self-play
    games_per_snapshot: int = struct.field(pytree_node=False)  # G, games that share a snapshot

    @property
    def seats(self) -> Seats:
        """As the algorithm inside."""
        return self.algo.seats

    def check(self, env: Environment) -> None:
        """Raise ValueError for bad sizes, or an algorithm that cannot learn from single seats."""
        self.check_sizes()
        if self.games_per_snapshot > 1 and not env.fixed_horizon:
            raise ValueError(
                f"past.games_per_snapshot={self.games_per_snapshot}: must be 1 unless all games end together"
            )
        self.algo.check(env)
        if self.current_fraction < 1:
            self._check_alone(env)

    def _check_alone(self, env: Environment) -> None:
        """Raise ValueError for an algorithm that refuses to be one learner of one seat."""
        one = lambda key: jax.tree.map(lambda x: x[None], env.reset(key)[1].take([0], axis=0))
        try:
            jax.eval_shape(lambda key: self._alone.init(key, env, one(key)), jax.random.key(0))
        except ValueError as error:
            name = type(self.algo).__name__
            raise ValueError(
                f"past: {name} cannot learn from single seats; set past=null ({error})"
            ) from error

    def check_sizes(self) -> None:
        """Raise ValueError for fields that do not fit each other."""
        for name in ("size", "push_every", "games_per_snapshot"):
            if getattr(self, name) < 1:
                raise ValueError(f"past.{name}={getattr(self, name)}: must be at least 1")
        if self.games_per_snapshot != 1 and self.games_per_snapshot % self._turn:
            what = f"past.games_per_snapshot={self.games_per_snapshot}"
            raise ValueError(f"{what}: must be 1 or a multiple of {self._turn}")
        if not 0 <= self.current_fraction <= 1:
            raise ValueError(f"past.current_fraction={self.current_fraction}: must lie in [0, 1]")
        if len(self.seats) < 2:
            raise ValueError("past: needs at least two learning seats, one for the past")
        if self._has_credit and not hasattr(self.algo, "credits") and self.current_fraction < 1:
            raise ValueError(
                f"past: {type(self.algo).__name__} cannot tell the credit of seats that do not learn; "
                "set algo.credit=null or past.current_fraction=1"
            )

    def num_past(self, num_games: int) -> int:
        """Games of E = `num_games` that are played against snapshots: the last ones, in whole turns.

        Raises:
            ValueError: if there is none, though the fraction asks for some.
        """
        turn, share = max(self._turn, self.games_per_snapshot), 1 - self.current_fraction
        found = turn * int(share * num_games / turn + 1e-6)
        if share > 0 and not found:
            raise ValueError(
                f"past.current_fraction={self.current_fraction}: leaves no game against the past of "
                f"{num_games} games; raise num_envs"
            )
        return found

    def rows(self, num_games: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs that learn: game [P, n] and seat [P, n] of each learner's rows."""
        return self._rows(num_games, learning=True)

    def _rows(self, num_games: int, *, learning: bool) -> tuple[np.ndarray, np.ndarray]:
        """The pairs that learn, or those that snapshots play, by learner and then by game."""
        num_seats = len(self.seats)
        first = num_games - self.num_past(num_games)
        game, seat = np.divmod(np.arange(num_games * num_seats), num_seats)
        learns = (game < first) | (seat == game // self.group_size % num_seats)
        holder = np.asarray(self.seats)[seat]
        chosen = [
            np.flatnonzero((learns == learning) & (holder == p)) for p in range(num_learners(self.seats))
        ]
        return game[np.stack(chosen)], seat[np.stack(chosen)]

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """A fresh learner, whose first snapshot is itself."""
        if self.num_past(ts.reward.shape[0]):
            alone, rows = self._alone, self.rows(ts.reward.shape[0])
            keys = jax.random.split(key, num_learners(self.seats))
            current = jax.vmap(lambda key, ts: alone.init(key, env, ts))(keys, seen(ts, rows))
            current = jax.tree.map(lambda x: x[:, 0], current)
        else:
            current = self.algo.init(key, env, ts)
        return Learner(current, Ring.of(self.algo.for_acting(current), self.size), jnp.int32(0))

    def for_acting(self, learner: Learner) -> Learner:
        """What the current learner needs, and the past."""
        return learner.replace(current=self.algo.for_acting(learner.current))

    def initial_carry(self, env: Environment, ts: TimeStep) -> Carry:
        """Zeros; the snapshot is drawn with the first action."""
        none = jnp.zeros(ts.reward.shape[0], jnp.int32)
        return Carry(self.algo.initial_carry(env, ts), self.algo.initial_carry(env, ts), none)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """The current learner's actions [E, A, ...], replaced by the snapshots' in their seats."""
        num_games = ts.reward.shape[0]
        num_past = self.num_past(num_games)
        if not num_past:
            action, current, extras = self.algo.act(env, learner.current, carry.current, ts, key, greedy)
            return action, carry.replace(current=current), extras
        own_key, draw_key, past_key = jax.random.split(key, 3)
        action, current, extras = self.algo.act(env, learner.current, carry.current, ts, own_key, greedy)
        drawn = learner.past.draw(draw_key, (num_past // self.games_per_snapshot,)) + 1
        who = np.maximum(np.arange(num_games) - (num_games - num_past), 0) // self.games_per_snapshot
        place = jnp.where(carry.place == 0, drawn[who], carry.place)
        theirs, past = self._act_past(env, learner.past, carry.past, ts, place, past_key, greedy)
        rows = self._rows(num_games, learning=False)
        past = jax.tree.map(lambda old, new: put(old, new, rows), carry.past, past)
        return put(action, theirs, rows), Carry(current, past, place), extras

    def _act_past(
        self, env: Environment, past: Ring, memory: Any, ts: TimeStep, place: Array, key: Array, greedy: bool
    ) -> tuple[Array, Any]:
        """Actions and memories [P, n, 1, ...] of the rows that snapshots play; `place` [E] as in a Carry.

        Rows are cut into blocks that share a snapshot: those of G games, or each row alone if G is 1.
        """
        alone, rows = self._alone, self._rows(place.shape[0], learning=False)
        num, num_rows = rows[0].shape
        share = self.games_per_snapshot / self.num_past(place.shape[0])
        block = 1 if self.games_per_snapshot == 1 else round(num_rows * share)
        blocks = num_rows // block
        chosen = place[rows[0][:, ::block]] - 1  # [P, blocks]
        who = np.arange(num)[:, None]
        params = jax.tree.map(lambda x: x[chosen, who][:, :, None], past.snapshots)
        cut = lambda x: x.reshape(num, blocks, block, *x.shape[2:])
        memory = jax.tree.map(lambda x: cut(pick(x, rows, 0)), memory)
        act = jax.vmap(jax.vmap(lambda *x: alone.act(env, *x, greedy)[:2]))
        keys = jax.random.split(key, (num, blocks))
        found = act(params, memory, jax.tree.map(cut, seen(ts, rows)), keys)
        return jax.tree.map(lambda x: x.reshape(num, num_rows, *x.shape[3:]), found)

    def bootstrap(self, env, learner, carry, ts):
        """As the current learner."""
        return self.algo.bootstrap(env, learner.current, carry.current, ts)

    def update(self, env, learner, batch, key):
        """Learn from the rows that the current learner played; keep a snapshot when it is due."""
        batch = batch.replace(carry=batch.carry.current, last_carry=batch.last_carry.current)
        if self.num_past(batch.done.shape[1]):
            current, metrics = self._learn(env, learner.current, batch, key)
        else:
            current, metrics = self.algo.update(env, learner.current, batch, key)
        num_updates = learner.num_updates + 1
        due = num_updates % self.push_every == 0
        past = learner.past.push(self.algo.for_acting(current), due)
        return Learner(current, past, num_updates), metrics

    @property
    def _turn(self) -> int:
        """Games after which every seat was the learning one equally often."""
        return len(self.seats) * self.group_size

    @property
    def _has_credit(self) -> bool:
        """Whether learning reads other seats, also those that do not learn, or other games."""
        return getattr(self.algo, "credit", None) is not None or self.group_size > 1

    @property
    def _alone(self) -> Any:
        """The algorithm as one learner of one seat."""
        return self.algo.replace(seats=(0,))

    def _learn(self, env: Environment, current: Any, batch: Batch, key: Array) -> tuple[Any, dict]:
        """Each learner learns from its rows as if every row were a game of one seat."""
        alone, rows = self._alone, self.rows(batch.done.shape[1])
        if self._has_credit:
            learns = np.zeros(batch.reward.shape[1:], bool)
            learns[rows] = True
            credit = self.algo.credits(env, current, batch, learns)
            batch = batch.replace(extras=batch.extras | {"credit": credit})
        keys = jax.random.split(key, num_learners(self.seats))
        current = jax.tree.map(lambda x: x[:, None], current)  # [P, 1, ...]
        learn = lambda learner, batch, key: alone.update(env, learner, batch, key)
        current, metrics = jax.vmap(learn)(current, learnt_from(batch, rows), keys)
        return jax.tree.map(lambda x: x[:, 0], current), {k: v.mean(0) for k, v in metrics.items()}


def without_past(algo: Any, learner: Any) -> tuple[Any, Any]:
    """The algorithm and the current learner inside a PastPlay, also of a Mixture's first member.

    Others are returned as they are.
    """
    if hasattr(algo, "members") and isinstance(algo.members[0], PastPlay):
        first, own = without_past(algo.members[0], learner[0])
        return algo.replace(members=(first, *algo.members[1:])), (own, *learner[1:])
    return (algo.algo, learner.current) if isinstance(algo, PastPlay) else (algo, learner)
