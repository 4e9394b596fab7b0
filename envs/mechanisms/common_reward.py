"""All seats get the reward of the group, wholly or in part.

**Source**: the fully cooperative benchmark of the literature on social dilemmas; no paper is
followed. With share sum and weight 1 it is the baseline "group optimal" of Kong et al. 2024
(arXiv 2410.07863), where each seat maximises the sum of all rewards. With share mean it is
`envs.mechanisms.reward_exchange` of self-interest 1 - weight + weight / A. Axes: A seats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from envs.mechanisms.shaping import RewardShaping, check_numbers

SHARES = ("mean", "sum")


class CommonReward(RewardShaping):
    """Gives each seat (1 - weight) * r_i + weight * the mean, or the sum, of all rewards.

    The mean keeps the sum of the rewards, the sum makes it A times as large (at weight 1).
    Emits `extrinsic_reward`, the reward before. Neutral: weight 0.
    """

    weight: Any  # [] or [1] of all seats, or [A]: share of the common reward in what a seat gets
    share: str = struct.field(pytree_node=False)  # "mean" or "sum"

    def check(self) -> None:
        """Raise ValueError for an unknown share or a weight outside [0, 1]."""
        self.env.check()
        check_numbers("common_reward.weight", self.weight, self.num_agents, 0, 1)
        if self.share not in SHARES:
            raise ValueError(
                f"mechanism.common_reward.share={self.share}: must be one of {', '.join(SHARES)}"
            )

    def utility(self, reward: Array) -> Array:
        """[A] rewards -> [A] rewards mixed with the group's."""
        common = reward.mean() if self.share == "mean" else reward.sum()
        weight = jnp.asarray(self.weight)
        return (1 - weight) * reward + weight * common
