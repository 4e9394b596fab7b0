"""The population game: partners are selected, play a two-player game, and may be punished.

**Sources**: Dasgupta and Musolesi 2023 (arXiv 2301.08278), their code's rules; Anastassacos, Hailes and
Musolesi 2020 (arXiv 1902.03185) for selection by last moves. Rules and numbers were read, the code is ours.

An episode gives every seat one turn as host, in fixed order. A turn is `rounds` rounds of the two-player
game between the host (its row player) and the partner; a round is two steps, or four with punishment:

1. turn: a new host takes its turn; before the first turn of an episode all seats choose partners at once.
2. play: host and guest move, the others wait.
3., 4. judgement: first the host's, then the guest's move of this round may be punished.

A seat with one legal action decides nothing. Reputations, last moves and records outlive episodes; they begin
anew with the game, a whole society of `horizon` episodes.

Deviations: the source's individual reputations change while a selection is learnt from, by an alias; here a
selection keeps what was seen. On a graph, seats with fewer neighbours see zeros in the columns left over.
Axes: N seats, D most neighbours of a seat.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from envs.population.partners import Partners
from envs.population.punishment import Punishment
from envs.population.record import Record
from envs.population.reputation import Reputation, Scores
from marl.environment import Environment, TimeStep, num_discrete

STAGES = np.array([0, 1, 2, 2], np.int32)  # of a round's steps: selection, move, judgement
TURN, PLAY, GUEST_JUDGED = 0, 1, 3  # steps of a round
COOPERATE, DEFECT, UNKNOWN = range(3)  # moves
EVENTS = ("cooperated", "defected", "reputation", "chose", "chose_cooperator")
OF_PUNISHMENT = ("punished", "spared", "punished_directly", "punished_justly", "punished_unjustly")
OF_PUNISHMENT += ("was_punished", "chose_punisher", "chose_just_punisher")


class State(struct.PyTreeNode):
    """A society under way."""

    game: Any  # of the two-player game
    live: Array  # [] bool, the two-player game goes on
    moved: Array  # [2] bool, whether host and guest moved in this round
    last: Array  # [N] int32 last move against anyone, or UNKNOWN
    scores: Scores
    record: Record
    partner: Array  # [N] int32
    host: Array  # [] int32
    round: Array  # [] int32 rounds played in this turn
    third: Array  # [2] int32 third parties that may judge host and guest
    time: Array  # [] int32 steps

    @property
    def pair(self) -> Array:
        """[2] int32 host and guest."""
        return jnp.stack([self.host, self.partner[self.host]])


class PopulationGame(Environment):
    """Partner selection, play and punishment in turns; see the module.

    obs["vector"] holds what the decisions of the stages turn on, side by side (`stage_columns`): of a
    selection see `Partners`; of a move the opponent's and the own last move and, if seen, their reputations;
    of a judgement the victim's and its opponent's last move and, if seen, the opponent's and the victim's
    reputation. obs["role"]: 1 host, 2 guest, 0 neither. obs["over"]: 1, no more moves this turn.

    Events: cooperated, defected; `spared` or `punished` for each decision, of these punished_directly (not as
    a third party), punished_justly, punished_unjustly; was_punished; reputation (of a seat, as it is seen on
    average, at each step); those of `Record.of_partners` whenever partners are chosen or drawn.
    """

    game: Environment  # two seats, Discrete actions, of which 0 cooperates and 1 defects
    partners: Partners
    punishment: Punishment
    reputation: Reputation
    num_players: int = struct.field(pytree_node=False)  # N
    rounds: int = struct.field(pytree_node=False)  # of a turn
    alternate: bool = struct.field(pytree_node=False)  # the game's seats move one after the other
    horizon: int = struct.field(pytree_node=False)  # episodes

    @property
    def num_agents(self) -> int:
        """N."""
        return self.num_players

    @property
    def action_space(self) -> spaces.Discrete:
        """A neighbour's number; or 0 cooperate, 1 defect; or 0 spare, 1 punish."""
        return spaces.Discrete(max(self.partners.legal(self.num_players).shape[1], 2))

    @property
    def round_stages(self) -> tuple[int, ...]:
        """The stage of each step of a round."""
        return tuple(STAGES.tolist())[: 4 if self.punishment.num_punishers else 2]

    @property
    def num_stages(self) -> int:
        """Selection, move and, where there is any, judgement."""
        return max(self.round_stages) + 1

    @property
    def stage_actions(self) -> tuple[int, ...]:
        """Number of actions of each stage, 0 where nobody decides."""
        chosen = self.partners.rule == "chosen"
        return (self.partners.legal(self.num_players).shape[1] * chosen, 2, 2)[: self.num_stages]

    @property
    def stage_columns(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of the columns of obs["vector"] that a decision of each stage turns on."""
        none = jax.ShapeDtypeStruct((self.num_players,), jnp.int32), Scores.none(self.num_players).points
        chooser = jax.eval_shape(self.partners.features, *none).shape[1]
        ends = np.cumsum([chooser, *(4 if self.reputation.sees(s) else 2 for s in ("play", "punishment"))])
        return tuple(zip([0, *ends.tolist()], ends.tolist(), strict=False))[: self.num_stages]

    @property
    def stage_values(self) -> tuple[int | None, ...]:
        """How many values 0, 1 ... each column of a stage can take, None: any number."""
        moves = tuple(None if self.reputation.sees(stage) else 3 for stage in ("play", "punishment"))
        return (None, *moves)[: self.num_stages]

    @property
    def stage_deciders(self) -> tuple[int, ...]:
        """Most seats that learn from one step of each stage: the host chose, two play, some may punish."""
        return (1, 2, self.punishment.num_punishers)[: self.num_stages]

    @property
    def fixed_horizon(self) -> int:
        """Steps of `horizon` episodes."""
        return self.horizon * self.num_players * self.rounds * len(self.round_stages)

    def check(self) -> None:
        """Raise ValueError for a two-player game that does not fit, or what the parts say."""
        self.game.check()
        if self.game.num_agents != 2 or num_discrete(self.game, "population_game") != 2:
            raise ValueError("env.game: must have 2 seats with 2 actions each")
        if self.num_players < 3:
            raise ValueError(f"env.num_players={self.num_players}: must be at least 3")
        if self.rounds < 1:
            raise ValueError(f"env.rounds={self.rounds}: must be at least 1")
        self.partners.check(self.num_players)
        self.punishment.check()
        self.reputation.check()

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Before the first turn, nothing known of anybody."""
        num = self.num_players
        state = State(
            game=self.game.reset(key)[0],
            live=jnp.bool_(False),
            moved=jnp.zeros(2, bool),
            last=jnp.full(num, UNKNOWN, jnp.int32),
            scores=Scores.none(num),
            record=Record.none(num),
            partner=(jnp.arange(num, dtype=jnp.int32) + 1) % num,
            host=jnp.int32(num - 1),
            round=jnp.int32(self.rounds),
            third=jnp.zeros(2, jnp.int32),
            time=jnp.int32(0),
        )
        return state, self._look(*self._outcome(state, jnp.zeros(num), {}))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Begin a turn or go on with it, move, or judge a move; `action` is [N] int."""
        kinds = (self._turn, self._play, self._judge)[: self.num_stages]
        stage = jnp.asarray(STAGES)[state.time % len(self.round_stages)]
        state, reward, events = jax.lax.switch(stage, kinds, key, state, action.astype(jnp.int32))
        state = state.replace(time=state.time + 1)
        return state, self._look(state, reward, events)

    def _turn(self, key: Array, state: State, action: Array) -> tuple[State, Array, dict]:
        fresh = state.round >= self.rounds
        host = jnp.where(fresh, (state.host + 1) % self.num_players, state.host)
        begins = fresh & (host == 0)
        choose = lambda flag, new, old: jax.tree.map(lambda x, y: jnp.where(flag, x, y), new, old)
        record = state.record.turned(begins)
        partner = choose(begins, self.partners.drawn(key, self.num_players, action), state.partner)
        events = {name: fact & begins for name, fact in record.of_partners(partner).items()}
        state = state.replace(
            game=choose(fresh, self.game.reset(jax.random.fold_in(key, 1))[0], state.game),
            live=state.live | fresh,
            record=record,
            partner=partner,
            host=host,
            round=jnp.where(fresh, 0, state.round),
        )
        return self._outcome(state, jnp.zeros(self.num_players), events)

    def _play(self, key: Array, state: State, action: Array) -> tuple[State, Array, dict]:
        pair, moved = state.pair, self._movers(state)
        game, ts = self.game.step(jax.random.fold_in(key, 1), state.game, action[pair])
        did = self._spread(pair, moved)
        cooperated, defected = did & (action == COOPERATE), did & (action == DEFECT)
        state = state.replace(
            game=jax.tree.map(lambda new, old: jnp.where(state.live, new, old), game, state.game),
            live=state.live & ~ts.done,
            moved=moved,
            last=jnp.where(did, action, state.last),
            scores=self.reputation.after_play(state.scores, cooperated, defected),
            record=state.record.replace(now=state.record.now.add(cooperated=cooperated, defected=defected)),
            round=state.round + 1,
            third=self.partners.third_parties(key, pair, self.num_players),
        )
        reward = self._spread(pair, ts.reward * moved.any())
        return self._outcome(state, reward, {"cooperated": cooperated, "defected": defected})

    def _judge(self, key: Array, state: State, action: Array) -> tuple[State, Array, dict]:
        victim, rival, may = self._case(state)
        acts, just = may & (action == 1), state.last[victim] == DEFECT
        justly, unjustly = acts & just, acts & ~just
        record = state.record.replace(
            now=state.record.now.add(just=justly, unjust=unjustly),
            spared=jnp.where(may, ~acts, state.record.spared),
        )
        scores = self.reputation.after_judgement(state.scores, justly, unjustly, victim, rival)
        seats = np.arange(self.num_players)
        events = {
            "punished": acts,
            "spared": may & ~acts,
            "punished_directly": acts & (seats == rival),
            "punished_justly": justly,
            "punished_unjustly": unjustly,
            "was_punished": acts.sum() * (seats == victim),
        }
        return self._outcome(
            state.replace(record=record, scores=scores), self.punishment.reward(acts, victim, just), events
        )

    def _outcome(self, state: State, reward: Array, events: dict) -> tuple[State, Array, dict]:
        names = EVENTS if self.num_stages == 2 else EVENTS + OF_PUNISHMENT
        none = jnp.zeros(self.num_players)
        events = events | {"reputation": self.reputation.shown(state.scores).mean(0)}
        return state, reward.astype(jnp.float32), {name: none + events.get(name, none) for name in names}

    def _spread(self, pair: Array, values: Array) -> Array:
        """[2] values of host and guest -> [N], 0 or False for the others."""
        mine = np.arange(self.num_players)[:, None] == pair
        return (mine & values).any(1) if values.dtype == bool else (mine * values).sum(1)

    def _movers(self, state: State) -> Array:
        """[2] bool, whether host and guest move in the coming play."""
        turn = (state.round % 2 == np.arange(2)) if self.alternate else np.ones(2, bool)
        return turn & state.live

    def _case(self, state: State) -> tuple[Array, Array, Array]:
        """The coming judgement: victim [], its opponent [], and who may punish [N] bool."""
        guest = (state.time % len(self.round_stages) == GUEST_JUDGED).astype(jnp.int32)
        pair = state.pair
        victim, rival = pair[guest], pair[1 - guest]
        may = self.punishment.may(rival, state.third[guest], self.num_players)
        return victim, rival, may & state.moved[guest]

    def _look(self, state: State, reward: Array, events: dict) -> TimeStep:
        num, seats, pair = self.num_players, np.arange(self.num_players), state.pair
        role = self._spread(pair, np.array([1, 2], np.int32)).astype(jnp.int32)
        shown, last = self.reputation.shown(state.scores), state.last
        opponent = jnp.where(role == 1, pair[1], jnp.where(role == 2, pair[0], seats))
        victim, rival, may = self._case(state)
        move = [last[opponent], last, shown[seats, opponent], shown[seats, seats]]
        judge = [jnp.full(num, last[victim]), jnp.full(num, last[rival]), shown[:, rival], shown[:, victim]]
        parts = [self.partners.features(last, shown)]
        for stage, facts in (("play", move), ("punishment", judge))[: self.num_stages - 1]:
            parts.append(jnp.stack(facts[: 4 if self.reputation.sees(stage) else 2], axis=1))
        stage = jnp.asarray(STAGES)[state.time % len(self.round_stages)]
        over = ~state.live | (state.round + self.alternate * (role == 1) >= self.rounds)
        return TimeStep(
            obs={
                "vector": jnp.concatenate(parts, axis=1).astype(jnp.float32),
                "stage": jnp.broadcast_to(stage, num),
                "role": role,
                "over": over.astype(jnp.int32),
            },
            reward=reward,
            terminated=jnp.bool_(False),
            truncated=state.time >= self.fixed_horizon,
            action_mask=self._legal(state, stage, may),
            events=events,
        )

    def _legal(self, state: State, stage: Array, may: Array) -> Array:
        """[N, n] bool; the first action is always legal."""
        num, size = self.num_players, int(self.action_space.n)
        second = np.arange(size) == 1
        chooses = (state.round >= self.rounds) & (state.host == num - 1) & (self.partners.rule == "chosen")
        choices = np.pad(self.partners.legal(num), ((0, 0), (0, size)))[:, :size] & chooses
        movers = self._spread(state.pair, self._movers(state))[:, None] & second
        more = jnp.select([stage == 0, stage == 1], [choices, movers], may[:, None] & second)
        return more | (np.arange(size) == 0)
