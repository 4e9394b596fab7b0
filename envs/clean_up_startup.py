"""Clean Up with a start-up problem: two kinds of dirt, and apples grow once the river is rid of either.

**Source**: the variant of Clean Up in Vinitsky et al. 2021 (arXiv 2106.09012), whose groups must settle on
the kind of pollution that they all clean, by sanctions. Its functional form is not published in detail: this
is an approximate stand-in of our own, on top of `envs.clean_up` and the graduated zap of
`envs.graduated_zap_game`, so no number of that paper can be expected from it.

A river cell holds dirt of kind 1 or 2; the kind of new dirt is uniform, as is that of the map's dirt. A bare
orchard cell grows an apple with probability apple_prob * clip((t - min(f_1, f_2)) / (t - r), 0, 1), f_k the
share of river cells with dirt of kind k, t the `depletion` and r the `restoration` threshold: who cleans
another kind than the group works in vain. Each kind has a cleaning action, both with one cooldown: a ray
cleans the first cell with dirt of its own kind, and dirt of the other kind does not stop it, as clean water
does not. Who is frozen can clean, as it can plant in Allelopathic Harvest.

Ours too: `dirt_limit` holds for each kind. Without it the kind that nobody cleans would fill the river, the
other could appear no more, and apples would grow for ever without work. And the status layer shows, beside
marks and acts, which kind a seat cleaned last since its first step or its last removal: sanctions of
free riders and of who cleans the wrong kind need something to be seen, as the bodies that planting paints in
Allelopathic Harvest. Axes: A seats, D river cells.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from envs import clean_up
from envs.clean_up import CLEAN, DIRT, CleanUp
from envs.graduated_zap_game import GraduatedZapGame, Sanctioned
from envs.grid import draw
from marl.environment import TimeStep

CLEANS = (CLEAN, CLEAN + 1)  # actions that clean kind 1 and kind 2


class State(Sanctioned, clean_up.State):
    """A game under way; `dirt` is [D] uint8, 0 clean, 1 or 2."""

    body: Array  # [A] int32, the kind that a seat cleaned last, 0: none


class CleanUpStartup(GraduatedZapGame, CleanUp):
    """A river with two kinds of dirt, of which the group must clean one, and sanctions that mark first.

    obs["vector"] is that of `envs.clean_up`. The status layer is body + 3 * marked + 6 * (1 zapped in the
    last step, 2 fired the beam against kind 1, 3 against kind 2). Events: `ate`, `cleaned` (cells),
    `cleaned_1` and `cleaned_2` (those of a kind), `monoculture` (the commoner kind's share of all dirt, 1/2
    without any), and those of `envs.graduated_zap_game`.
    """

    KINDS = 2
    NUM_ACTIONS = CLEANS[-1] + 1
    ITEMS = DIRT + 2
    CHORE = ((DIRT,), (), CLEANS[0], 3, 1)  # kind 1, whoever works
    STATUS = 24
    COLOURS = CleanUp.COLOURS | {DIRT + 1: ("dirt", (122, 62, 150))}

    def first(self, key: Array) -> State:
        """The map's dirt (letter D), of random kinds; no body shows a kind."""
        state, num = super().first(key), self.num_players
        kinds = draw(key, (2, num), state.dirt.shape)[1]  # the first words are those of the starts
        dirt = state.dirt * (1 + (kinds >> 31)).astype(jnp.uint8)
        none = jnp.zeros(num, jnp.int32)
        return State(**vars(state) | self.unsanctioned() | {"dirt": dirt, "body": none})

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """Remove who was condemned, then as in Clean Up; `action` is [A] int."""
        return super().step(key, self.banish(state), action)

    def banish(self, state: State) -> State:
        """As in other games of graduated zaps; who leaves will show no kind."""
        return super().banish(state).replace(body=state.body * ~state.condemned)

    def clean(self, state: State, kind: Array) -> tuple[State, Array]:
        """As in Clean Up; who cleaned anything of `kind` [A] shows it."""
        state, cleaned = super().clean(state, kind)
        return state.replace(body=jnp.where(cleaned > 0, kind, state.body)), cleaned

    def status(self, state: State, did: Array) -> Array:
        """[A] code of the last layer."""
        return state.body + 3 * (state.mark > 0) + 6 * did

    def facts(self, state: State, did: Array, ate: Array, cleaned: Array) -> dict[str, Array]:
        """The events but those of zapping, each [A]."""
        share = self.shares(state)
        most = jnp.where(share.sum() > 0, share.max() / jnp.maximum(share.sum(), 1e-6), 0.5)
        kinds = {f"cleaned_{kind}": cleaned * (did == 1 + kind) for kind in (1, 2)}
        events = super().facts(state, did, ate, cleaned) | kinds
        return events | {"monoculture": jnp.broadcast_to(most, (self.num_players,))}
