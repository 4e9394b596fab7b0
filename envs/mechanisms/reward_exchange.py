"""Every seat keeps a share of its reward and passes the rest to the others in equal parts.

**Source**: Willis, Du, Leibo, Luck 2023, "Resolving social dilemmas with minimal reward transfer"
(arXiv 2310.12928), for the self-interest level s that is the same for all seats; the formula as in
SocialJax: r_i' = s * r_i + (1 - s) / (A - 1) * sum over j != i of r_j. Negative rewards are shared
like positive ones. Axes: A seats.
"""

from __future__ import annotations

from typing import Any

from jax import Array

from envs.mechanisms.shaping import RewardShaping, check_numbers, check_others, mean_of_others


class RewardExchange(RewardShaping):
    """Gives seat i self_interest * r_i + (1 - self_interest) * the mean reward of the others.

    The sum of the rewards stays what it was. 1 / A gives all seats the mean reward of the group, 0
    only what the others earn. Emits `extrinsic_reward`, the reward before. Neutral:
    self_interest 1.
    """

    self_interest: Any  # [] share of its reward that a seat keeps

    def check(self) -> None:
        """Raise ValueError for a share outside [0, 1], or a lonely seat."""
        self.env.check()
        check_others("reward_exchange", self.num_agents)
        check_numbers("reward_exchange.self_interest", self.self_interest, 1, 0, 1)

    def utility(self, reward: Array) -> Array:
        """[A] rewards -> [A] rewards after the exchange."""
        return self.self_interest * reward + (1 - self.self_interest) * mean_of_others(reward)
