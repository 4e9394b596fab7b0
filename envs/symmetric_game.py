"""Repeated symmetric games of two players and two actions, named by their four payoffs.

**Source**: the class of games with payoffs R, S, T, P in Kong, Huang, Zhu, Qi, Feng 2024 (LASE,
arXiv 2410.07863). With R = 1 and P = 0 it holds the prisoner's dilemma (T > 1, S < 0), stag
hunt (T < 1, S < 0), snowdrift or chicken (T > 1, S > 0) and harmony (T < 1, S > 0). Each payoff is
a number of its own, so that one can be swept: the risk of a stag hunt is its `sucker` payoff.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from envs.matrix_game import RepeatedGame


class SymmetricGame(RepeatedGame):
    """A repeated game in which both seats have the same four payoffs."""

    reward: Any  # [] reward units, R: each of two cooperators
    sucker: Any  # [] reward units, S: who cooperates with a defector
    temptation: Any  # [] reward units, T: who defects on a cooperator
    punishment: Any  # [] reward units, P: each of two defectors

    @property
    def table(self) -> Array:
        """[2, 2, 2] float32 reward units: table[row action, column action, player]."""
        r, s, t, p = (
            jnp.asarray(x, jnp.float32) for x in (self.reward, self.sucker, self.temptation, self.punishment)
        )
        return jnp.stack([r, r, s, t, t, s, p, p]).reshape(2, 2, 2)
