"""Social value orientation: how much a seat wants the others to earn beside itself, as an angle.

**Source**: McKee, Gemp, McWilliams, Duenez-Guzman, Hughes, Leibo 2020, "Social diversity and social
preferences in mixed-motive reinforcement learning" (arXiv 2002.02325): the reward angle and the
utility r_i - w * |theta_SVO - theta(R)|. Doubts: the paper's w and its unit were not at hand; here
angles are radians, and w is 0.2 as in a third party's code (there in degrees). Deviations: the
angle is atan2, so that it tells all four quadrants apart; where a seat and the others on average
earn 0 there is no angle, and no penalty. The difference of angles is a plain one, not wrapped:
it may exceed pi for rewards that are negative. Axes: A seats.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from envs.mechanisms.shaping import RewardShaping, check_numbers, check_others, mean_of_others


class SVO(RewardShaping):
    """Takes `weight` for each radian between the angle a seat wants and the angle of the rewards.

    The angle of the rewards of seat i is theta_i = atan2(mean of the others' rewards, r_i), and its
    utility r_i - weight * |angle_i - theta_i|. Wanted angles: 0 selfish, pi/4 prosocial, pi/2
    altruistic. With an angle for each seat the population is mixed. Emits `extrinsic_reward`,
    the reward before. Neutral: weight 0.
    """

    weight: Any  # [] reward units per radian
    angle: Any  # [] or [1] of all seats, or [A], radians: the wanted angle

    def check(self) -> None:
        """Raise ValueError for a negative weight, angles out of range or number, or a lonely seat."""
        self.env.check()
        check_others("svo", self.num_agents)
        check_numbers("svo.weight", self.weight, 1, 0, np.inf)
        check_numbers("svo.angle", self.angle, self.num_agents, -np.pi, np.pi)

    def utility(self, reward: Array) -> Array:
        """[A] rewards -> [A] rewards less the weighted distance between the angles."""
        others = mean_of_others(reward)
        nothing = (reward == 0) & (others == 0)
        # other numbers stand in there, because the gradient of atan2(0, 0) is nan
        theta = jnp.arctan2(jnp.where(nothing, 1.0, others), jnp.where(nothing, 1.0, reward))
        distance = jnp.where(nothing, 0.0, jnp.abs(self.angle - theta))
        return reward - self.weight * distance
