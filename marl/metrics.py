"""Social outcomes, from rewards and events; knows no game.

**Sources**: efficiency, equality, sustainability and peace as in Perolat, Leibo, Zambaldi,
Beattie, Tuyls, Graepel 2017 (arXiv 1707.06600), section 2.3; power-mean welfare as in
Pardeshi, Shapira, Procaccia, Singh 2024 (arXiv 2405.17700). Axes: T steps, E games, A seats.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from marl.environment import TimeStep

MAX_SEATS_SHOWN = 16
# {metric: (event, the events that together make the whole)}, of what all seats did.
SHARES = {
    "cooperation_rate": ("cooperated", ("cooperated", "defected")),
    "share_of_best": ("points", ("best_points",)),
    "punishment_rate": ("punished", ("punished", "spared")),
    "direct_rate": ("punished_directly", ("punished",)),
    "just_rate": ("punished_justly", ("punished_justly", "punished_unjustly")),
    "cooperator_choice_rate": ("chose_cooperator", ("chose",)),
    "punisher_choice_rate": ("chose_punisher", ("chose",)),
    "just_punisher_choice_rate": ("chose_just_punisher", ("chose",)),
}


class Tally(struct.PyTreeNode):
    """Sums over the steps and games of a rollout; small enough to keep for every update."""

    steps: Array  # [] float32, environment steps over all games
    reward: Array  # [A]
    events: dict[str, Array]  # each [A]
    episodes: Array  # [] float32, episodes that ended
    return_: Array  # [A] returns of those episodes
    length: Array  # [] steps of those episodes
    equality: Array  # [] sum over those episodes

    @classmethod
    def zero(cls, ts: TimeStep) -> Tally:
        """Nothing yet; `ts` [E, ...] gives the seats and the events."""
        per_seat = jnp.zeros(ts.reward.shape[-1])
        none = jnp.zeros(())
        events = dict.fromkeys(ts.events, per_seat)
        return cls(none, per_seat, events, none, per_seat, none, none)

    def add(self, num_steps: int, reward: Array, events: dict[str, Array]) -> Tally:
        """Count `num_steps` steps of E games; reward and events are sums over them, each [E, A]."""
        return self.replace(
            steps=self.steps + num_steps * reward.shape[0],
            reward=self.reward + reward.sum(0),
            events={k: v + events[k].sum(0) for k, v in self.events.items()},
        )

    def finish(self, done: Array, episode_return: Array, episode_length: Array) -> Tally:
        """Count the episodes that are `done` [E], with their returns [E, A] and lengths [E]."""
        ended = done.astype(jnp.float32)
        return self.replace(
            episodes=self.episodes + ended.sum(),
            return_=self.return_ + ended @ episode_return,
            length=self.length + (ended * episode_length).sum(),
            equality=self.equality + (ended * equality(episode_return)).sum(),
        )


def report(tally: Tally, losses: dict[str, Array]) -> dict[str, Array]:
    """Scalars from the Tally and the algorithm's metrics of several updates (leaves [U, ...]).

    Names: `reward` per step and seat, `reward/seat_i`, `return` and `equality` of the
    episodes that ended (nan if none did), `events/NAME` per step and seat, and those of SHARES whose
    events the game tells.
    """
    total = jax.tree.map(lambda x: x.sum(0), tally)
    out = {"reward": total.reward.mean() / total.steps}
    for seat in range(min(total.reward.shape[0], MAX_SEATS_SHOWN)):
        out[f"reward/seat_{seat}"] = total.reward[seat] / total.steps
    out["return"] = total.return_.mean() / total.episodes
    out["episode_length"] = total.length / total.episodes
    out["equality"] = total.equality / total.episodes
    out |= {f"events/{k}": v.mean() / total.steps for k, v in total.events.items()}
    out |= shares(total.events)
    return out | {f"loss/{k}": v.mean() for k, v in losses.items()}


def shares(events: dict[str, Array]) -> dict[str, Array]:
    """Those of SHARES whose events are told, [] each; 0 where nothing was done."""
    out = {}
    for name, (part, wholes) in SHARES.items():
        if {part, *wholes} <= events.keys():
            whole = sum(events[event].sum() for event in wholes)
            out[name] = events[part].sum() / jnp.where(whole > 0, whole, 1.0)
    return out


def efficiency(reward: Array) -> Array:
    """[T, ..., A] rewards -> [...] sum over seats of the mean reward per step."""
    return reward.mean(0).sum(-1)


def equality(return_: Array) -> Array:
    """[..., A] returns -> [...] 1 - Gini = 1 - sum_ij |R_i - R_j| / (2 A sum_i R_i).

    Meant for returns that are not negative. Where their sum is not positive the quotient
    means nothing, and the result is 1 for equal returns, else 0; it is cut to [0, 1].
    """
    num = return_.shape[-1]
    ordered = jnp.sort(return_, axis=-1)
    weight = 2 * jnp.arange(1, num + 1) - num - 1
    spread = (weight * ordered).sum(-1)  # = sum_ij |R_i - R_j| / 2
    total = return_.sum(-1)
    gini = spread / jnp.where(total > 0, num * total, 1.0)
    guarded = jnp.where(total > 0, 1 - gini, (spread <= 1e-6).astype(jnp.float32))
    return jnp.clip(guarded, 0.0, 1.0)


def sustainability(reward: Array) -> Array:
    """[T, ..., A] rewards -> [...] mean over seats of the mean step (0 .. T-1) of positive rewards.

    A seat that earned nothing counts as 0.
    """
    time = jnp.arange(reward.shape[0]).reshape(-1, *(1,) * (reward.ndim - 1))
    earned = reward > 0
    mean_time = (time * earned).sum(0) / jnp.maximum(earned.sum(0), 1)
    return mean_time.mean(-1)


def peace(removed: Array) -> Array:
    """[T, ..., A] 1 where a seat is timed out -> [...] mean number of seats in play per step."""
    return removed.shape[-1] - removed.mean(0).sum(-1)


def welfare(utility: Array, power: float) -> Array:
    """[..., A] positive utilities -> [...] power mean (1/A sum u^p)^(1/p).

    power 1 is utilitarian, 0 Nash (geometric mean), -inf the worst-off, inf the best-off.
    """
    log_u = jnp.log(utility)
    if power == -jnp.inf:
        return utility.min(-1)
    if power == jnp.inf:
        return utility.max(-1)
    if abs(power) < 1e-6:
        return jnp.exp(log_u.mean(-1))
    mean = jax.nn.logsumexp(power * log_u, axis=-1) - jnp.log(utility.shape[-1])
    return jnp.exp(mean / power)
