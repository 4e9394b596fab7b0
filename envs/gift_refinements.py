"""Gift Refinements: a token that is given away is worth more to who gets it, so that giving in turn pays.

**Sources**: Agapiou et al. 2022 (arXiv 2211.13746), Melting Pot's substrate gift_refinements ("mp2"), and
`gift` of SocialJax. Rules and numbers were read in their code; the map is our own with their counts.

One step: avatars move and turn, who enters the cell of a token picks it up as one of the first type if it
holds fewer than `capacity` of them; who consumes gets `token_reward` for each token of any type that it
holds and is left with none; gifts are given; bare sites on which nobody stands grow a token each with
`spawn_prob`. A gift is a straight beam that walls and the first avatar end. Only who holds a token can
fire it, and a beam that hits nobody costs no token, but cools down as any other. Who hits loses one
token of the lowest or highest type that it holds; who is hit gets `multiplier` of the next type, or one of
the last for one of the last. All gifts of a step are chosen by what is held before any of them, then
handed over at once; what is above the capacity is lost. What arrives in the step of consuming is kept.

Deviations: the sources reward a gift by a role that nobody has in the game as published; `gift_reward` is
that number (mp2 has 10 * 0.2 for its gifters and 10 * -2 for its selfish ones, and 0 without a role). A
gift of `gift` reaches only who looks the same way as the giver, which is not copied. Axes: A seats, N sites.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from envs.avatar_game import AvatarGame
from envs.grid import (
    ZAP,
    Avatars,
    at_site,
    counted,
    draw,
    goals,
    happens,
    hits,
    is_first,
    moved,
    ranks,
    rays,
    seats_of,
    turned,
)
from marl.environment import TimeStep

FLOOR, WALL, TOKEN = range(3)  # item codes
GIFT, CONSUME = ZAP, ZAP + 1
NUM_TYPES = 3
GIVES = ("lowest", "highest")


class State(struct.PyTreeNode):
    """A game under way."""

    avatars: Avatars
    held: Array  # [A, NUM_TYPES] int32 tokens of each type
    tokens: Array  # [N] bool
    cooldown: Array  # [A] int32 steps until a gift can be given again, 0 or 1: at the next
    time: Array  # [] int32 steps played


class GiftRefinements(AvatarGame):
    """Tokens to pick up, to consume, and to give away for others to hold more and finer ones.

    obs["vector"]: how ready the beam is, 0 to 1, then the tokens of each type as shares of the capacity.
    Events: `picked` and `consumed`, tokens; `gifted` and `was_gifted`, numbers of hits; `could_gift`, 1 if
    the beam was ready, a token held before consuming, and it would have hit somebody.
    """

    token_reward: Any  # [] reward units of a token consumed, of any type
    gift_reward: Any  # [] reward units of a gift, to the giver
    spawn_prob: Any  # [] of a bare site to grow a token, a step
    multiplier: Any  # [] whole number of tokens that one given becomes
    gives: str = struct.field(pytree_node=False)  # one of GIVES, the type that is given
    capacity: int = struct.field(pytree_node=False)  # tokens of each type that a seat can hold
    beam_length: int = struct.field(pytree_node=False)  # cells
    cooldown: int = struct.field(pytree_node=False)  # steps between two beams in which none can be fired

    ORDER = "TP"
    NUM_ACTIONS = 9
    ITEMS = 3
    FOOD = (TOKEN,)
    BLOCKS = (WALL,)
    STATUS = 3  # 1: gifted in the last step, 2: consumed
    COLOURS = {WALL: ("wall", (96, 92, 88)), TOKEN: ("token", (0, 150, 136))}

    def check(self) -> None:
        """Raise ValueError for a map or numbers that do not fit."""
        super().check()
        if self.gives not in GIVES:
            raise ValueError(f"env.gives={self.gives}: must be {' or '.join(GIVES)}")
        for name, least in (("capacity", 1), ("multiplier", 1), ("beam_length", 1), ("cooldown", 0)):
            value = getattr(self, name)
            if value < least or value % 1:
                raise ValueError(f"env.{name}={value}: must be a whole number of at least {least}")
        if not 0 <= self.spawn_prob <= 1:
            raise ValueError(f"env.spawn_prob={self.spawn_prob}: must lie in 0 .. 1")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """No tokens anywhere."""
        num = self.num_players
        avatars, none = self.start(*draw(key, (2, num))), jnp.zeros(num, jnp.int32)
        tokens = jnp.zeros(self.board.count("T"), bool)
        state = State(avatars, jnp.zeros((num, NUM_TYPES), jnp.int32), tokens, none, jnp.int32(0))
        over = jnp.bool_(False), jnp.bool_(False)
        events = dict.fromkeys(("picked", "consumed", "gifted", "was_gifted", "could_gift"), none)
        return state, self._look(state, jnp.zeros(num), over, events)

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Move, pick up, consume, give, grow; `action` is [A] int."""
        board, sites = self.board, self.board.sites("T")
        order, growth, end = draw(key, (self.num_players,), state.tokens.shape, ())
        cell = moved(state.avatars.cell, goals(board, state.avatars, action), ranks(order))
        here = at_site(state.tokens, sites, cell)
        picked = (cell != state.avatars.cell) & here & (state.held[:, 0] < self.capacity)
        tokens = state.tokens | happens(growth, self.spawn_prob)
        tokens = tokens.at[cell].set(here & ~picked, mode="drop")  # nothing grows where somebody stands
        avatars = turned(state.avatars, action).replace(cell=cell)
        held = state.held.at[:, 0].add(picked)
        ready = (state.cooldown <= 1) & (held > 0).any(-1)
        fires = ready & (action == GIFT)
        reach = hits(board, rays(self.beam_of(self.beam_length, 0), avatars), avatars)
        target, consumes = jnp.where(fires, reach, 0), action == CONSUME
        consumed = jnp.where(consumes, held.sum(-1), 0)
        held = self._after_gifts(jnp.where(consumes[:, None], 0, held), target)
        wait = counted(state.cooldown, fires, self.cooldown + 1)
        state = State(avatars, held, tokens, wait, state.time + 1)
        events = {
            "picked": picked,
            "consumed": consumed,
            "gifted": target > 0,
            "was_gifted": seats_of(target).sum(0),
            "could_gift": ready & (reach > 0),
        }
        reward = self.token_reward * consumed + self.gift_reward * events["gifted"]
        return state, self._look(state, reward, self.over(end, state.time), events)

    def _after_gifts(self, held: Array, target: Array) -> Array:
        """[A, NUM_TYPES] tokens after gifts; `target` [A] uint32, whom each seat hits."""
        step = 1 if self.gives == "lowest" else -1
        chosen = is_first((held > 0)[:, None, ::step])[:, 0, ::step]
        given = (chosen & (target > 0)[:, None]).astype(jnp.int32)
        refined = given[:, :-1] * jnp.asarray(self.multiplier, jnp.int32)
        refined = refined.at[:, -1].add(given[:, -1])
        got = jnp.where(seats_of(target)[..., None], refined[:, None], 0).sum(0)
        after = (held - given).at[:, 1:].add(got)
        return jnp.minimum(after, self.capacity)

    def fired(self, state: State) -> Iterable[tuple[Array, np.ndarray]]:
        """The beams of the last step, also those that hit nobody."""
        return [(state.cooldown == self.cooldown + 1, self.beam_of(self.beam_length, 0))]

    def items(self, state: State) -> Array:
        """[C] uint8 floor, wall or token."""
        still = (self.board.letters == "W").astype(np.uint8) * WALL
        return jnp.concatenate([state.tokens.astype(jnp.uint8) * TOKEN, still[self.board.sites("T").stop :]])

    def _look(self, state: State, reward: Array, over: tuple, events: dict[str, Array]) -> TimeStep:
        ready = self.readiness(state.avatars, state.cooldown, self.cooldown)
        vector = jnp.concatenate([ready, state.held / self.capacity], axis=1)
        status = jnp.where(events["consumed"] > 0, 2, events["gifted"].astype(jnp.int32))
        return self.observe(self.items(state), state.avatars, status, vector, reward, over, events)
