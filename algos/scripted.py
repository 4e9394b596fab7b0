"""Scripted players of repeated games: tit-for-tat and its relatives, grim, alternators and others.

**Sources**: the partners of Akata et al. 2023, "Playing repeated games with large language models" (arXiv
2305.16867): the constant players, defect-once, the two alternators, tit-for-tat, tit-for-two-tats,
suspicious, reverse and hard tit-for-tat, naive prober. Win-stay lose-shift and generous tit-for-tat
are the memory-one strategies of Nowak and Sigmund (1992, 1993); grim is Friedman's trigger as in pax.
Deviations: hard tit-for-tat starts with cooperation, as the authors' comment says, where their code
starts with defection; the memory starts anew with every episode, where their script carries it
from one partner to the next; naive prober never defects in the first round (as in the Axelrod
library).

The players read obs["vector"][..., :4] = [own C, own D, other C, other D] of the last round, zeros
before the first. In a game of more than two seats (`envs.public_goods`) the other is the
majority of the others, and a tie counts as cooperation. Axes: E games, A seats, N actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.algorithm import Algorithm
from marl.environment import Environment, TimeStep, bare_game

COOPERATE, DEFECT = 0, 1
NUM_FEATURES = 4  # of the observation that the players read

# Leaves [E, A, 4] bool: the other defected in the last round, in the one before, in the third last, ever.
_PROVOKED: dict[str, Callable[[Array], Array]] = {
    "tit_for_two_tats": lambda seen: seen[..., 0] & seen[..., 1],
    "hard_tit_for_tat": lambda seen: seen[..., :3].any(-1),
    "grim": lambda seen: seen[..., 3],
}


def memory_one(forgive_prob: Any, probe_prob: Any) -> dict[str, tuple]:
    """Probabilities of cooperation (first round, after CC, CD, DC, DD; own action first) by strategy.

    Args:
        forgive_prob: [] probability of cooperation after the other's defection.
        probe_prob: [] probability of defection without cause.
    """
    return {
        "always_cooperate": (1, 1, 1, 1, 1),
        "always_defect": (0, 0, 0, 0, 0),
        "tit_for_tat": (1, 1, 0, 1, 0),
        "suspicious_tit_for_tat": (0, 1, 0, 1, 0),
        "reverse_tit_for_tat": (0, 0, 1, 0, 1),
        "generous_tit_for_tat": (1, 1, forgive_prob, 1, forgive_prob),
        "naive_prober": (1, 1 - probe_prob, 0, 1 - probe_prob, 0),
        "win_stay_lose_shift": (1, 1, 0, 0, 1),
        "defect_once": (0, 1, 1, 1, 1),
        "alternate": (1, 0, 0, 1, 1),
        "alternate_defect_first": (0, 0, 0, 1, 1),
    }


BLIND = ("always_cooperate", "always_defect")  # need no observation
STRATEGIES = (*memory_one(0, 0), *_PROVOKED)


class Scripted(Algorithm):
    """A player that follows a fixed rule: action 0 cooperates, action 1 defects.

    Where its choice is not legal it takes the lowest-numbered legal action. In a stage that a
    mechanism inserts (neither action 0 nor 1 is legal) its memory stands still.
    """

    forgive_prob: Any  # [] of generous_tit_for_tat: cooperation after a defection
    probe_prob: Any  # [] of naive_prober: defection after a cooperation
    strategy: str = struct.field(pytree_node=False)  # one of STRATEGIES

    def check(self, env: Environment) -> None:
        """Raise ValueError for an unknown strategy, a bad probability or a game of another kind."""
        if self.strategy not in STRATEGIES:
            raise ValueError(f"algo.strategy={self.strategy}: must be one of {', '.join(STRATEGIES)}")
        for name in ("forgive_prob", "probe_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"algo.{name}={getattr(self, name)}: must lie in [0, 1]")
        who = f"scripted player {self.strategy}"
        if not isinstance(env.action_space, spaces.Discrete) or env.action_space.n < 2:
            raise ValueError(f"{who} needs Discrete actions 0 and 1, not {env.action_space}")
        if bare_game(env).num_stages > 1:
            raise ValueError(f"{who} needs a game whose rounds are one step each")
        ts = jax.eval_shape(env.reset, jax.random.key(0))[1]
        if not {"cooperated", "defected"} <= ts.events.keys():
            raise ValueError(f"{who} needs a game with the events cooperated and defected")
        width = ts.obs["vector"].shape[-1] if "vector" in ts.obs else 0
        if self.strategy not in BLIND and ("grid" in ts.obs or width < NUM_FEATURES):
            raise ValueError(
                f"{who} needs a game whose obs['vector'] begins with own C, own D, other C, other D "
                f"of the last round; this game's observation is {_shapes(ts.obs)}"
            )

    def initial_carry(self, env: Environment, ts: TimeStep) -> Any:
        """[E, A, 4] bool zeros: the other's defections, see `_PROVOKED`; () if one round is enough."""
        return jnp.zeros((*ts.reward.shape, 4), bool) if self.strategy in _PROVOKED else ()

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Actions [E, A] int32; `greedy` takes the likelier action of a rule that draws."""
        mask = ts.action_mask
        if self.strategy in _PROVOKED:
            carry, cooperate_prob = self._remember(carry, ts)
        else:
            cooperate_prob = self._look_up(ts)
        u = 0.5 if greedy else jax.random.uniform(key, mask.shape[:-1])
        cooperates = u < cooperate_prob
        legal = jnp.where(cooperates, mask[..., COOPERATE], mask[..., DEFECT])
        own = jnp.where(cooperates, COOPERATE, DEFECT)
        return jnp.where(legal, own, mask.argmax(-1)).astype(jnp.int32), carry, ()

    def _look_up(self, ts: TimeStep) -> Array:
        """[E, A] (or []) probability of cooperation after the last joint action."""
        entries = memory_one(self.forgive_prob, self.probe_prob)[self.strategy]
        first, cc, cd, dc, dd = (jnp.asarray(x, jnp.float32) for x in entries)
        if self.strategy in BLIND:
            return first
        last = ts.obs["vector"]
        other = _other_defected(last)
        after = jnp.where(last[..., 1] > 0, jnp.where(other, dd, dc), jnp.where(other, cd, cc))
        return jnp.where(last[..., :NUM_FEATURES].any(-1), after, first)

    def _remember(self, memory: Array, ts: TimeStep) -> tuple[Array, Array]:
        """The memory [E, A, 4] with the last round added, and the probability [E, A]."""
        last = _other_defected(ts.obs["vector"])[..., None]
        seen = jnp.concatenate([last, memory[..., :2], memory[..., 3:] | last], axis=-1)
        playing = ts.action_mask[..., :2].any(-1, keepdims=True)
        provoked = _PROVOKED[self.strategy](seen)
        return jnp.where(playing, seen, memory), 1.0 - provoked.astype(jnp.float32)


def _other_defected(vector: Array) -> Array:
    """[..., F] -> [...] bool, more of the others defected than cooperated in the last round."""
    return vector[..., 3] > vector[..., 2]


def _shapes(obs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {list(x.shape)}" for name, x in obs.items())
