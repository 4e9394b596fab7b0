"""Scripted players of trust and split: one maximises welfare, the other keeps all coins.

**Source**: what honest welfare-maximising and greedy models do in Piche et al. 2025 (arXiv 2511.19405); the
paper scripts none for this game. Both announce their own hand. The cooperative player then
proposes all coins if its hand beats the one that the other announced, else none; the greedy player
proposes all coins always. Axes: E games, A seats, M symbols.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from marl.algorithm import Algorithm
from marl.environment import Environment, bare_game, legal_or_first

STRATEGIES = ("cooperative", "greedy")
NUM_HANDS = 3  # hand h beats hand h - 1 mod 3
HAND, SPLITS, HEARD_FROM = slice(0, 3), 5, 7  # of obs["vector"]: own hand, last phase, own message


class TrustPlayer(Algorithm):
    """Speaks and proposes by a fixed rule; reads its hand, the phase and what it heard in obs["vector"].

    Where its choice is not legal (it must wait) it takes the lowest-numbered legal action.
    """

    strategy: str = struct.field(pytree_node=False)  # one of STRATEGIES

    def check(self, env: Environment) -> None:
        """Raise ValueError for an unknown strategy, another game, or too few symbols to tell hands."""
        if self.strategy not in STRATEGIES:
            raise ValueError(f"algo.strategy={self.strategy}: must be one of {', '.join(STRATEGIES)}")
        game: Any = bare_game(env)
        who = f"scripted player trust_{self.strategy}"
        if not all(hasattr(game, name) for name in ("num_symbols", "num_coins")):
            raise ValueError(f"{who} needs env=trust_and_split, not {type(game).__name__}")
        if game.num_symbols < NUM_HANDS:
            raise ValueError(f"{who} needs env.num_symbols of at least {NUM_HANDS}, not {game.num_symbols}")

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Actions [E, A] int32; `greedy` changes nothing."""
        game: Any = bare_game(env)
        vector, num = ts.obs["vector"], game.num_symbols
        hand = vector[..., HAND].argmax(-1)
        heard = vector[..., HEARD_FROM + num : HEARD_FROM + 2 * num]
        beaten = (hand - 1) % NUM_HANDS
        wins = (heard * (jnp.arange(num) == beaten[..., None])).any(-1)
        takes_all = jnp.ones_like(wins) if self.strategy == "greedy" else wins
        proposal = num + jnp.where(takes_all, game.num_coins, 0)
        action = jnp.where(vector[..., SPLITS] > 0, proposal, hand)
        return legal_or_first(ts.action_mask, action), carry, ()
