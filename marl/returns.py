"""Returns and advantages; time is the first axis, any axes may follow.

`done` (and `terminated`) may lack trailing axes of `reward`: [T, E] serves rewards [T, E, A].
Termination and truncation differ: after a termination the future is worth 0, after a
truncation it is worth `next_value`; either way nothing flows back from the next episode.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def align(mask: Array, like: Array) -> Array:
    """`mask` [T, E] as float32 with trailing axes of length one, to multiply `like` [T, E, ...]."""
    return jnp.asarray(mask, jnp.float32).reshape(mask.shape + (1,) * (like.ndim - mask.ndim))


def gae(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    done: Array,
    *,
    gamma: float | Array,
    gae_lambda: float | Array,
) -> tuple[Array, Array]:
    """Generalised advantage estimation.

    **Source**: Schulman, Moritz, Levine, Jordan, Abbeel 2016 (arXiv 1506.02438), eq. 16:
    A_t = sum_l (gamma lambda)^l delta_(t+l), delta_t = r_t + gamma V(s_(t+1)) - V(s_t).

    Args:
        reward: [T, ...] reward of each step.
        value: [T, ...] V of the state before the step.
        next_value: [T, ...] V of the state reached, before any restart.
        terminated: [T, ...] the state reached is final: its value counts as 0.
        done: [T, ...] the episode ended there, for either reason.
        gamma: discount; gae_lambda: weight of longer returns, 0 = one-step TD error.

    Returns:
        advantage [T, ...] and value target [T, ...] = advantage + value.
    """
    delta = reward + gamma * next_value * (1 - align(terminated, reward)) - value
    decay = gamma * gae_lambda * (1 - align(done, reward))
    advantage = _discount(delta, decay)
    return advantage, advantage + value


def discounted_sum(reward: Array, done: Array, last_value: Array, *, gamma: float | Array) -> Array:
    """Discounted sum of rewards to come.

    Args:
        reward: [T, ...].
        done: [T, ...] the sum starts anew after a step marked here.
        last_value: [...] worth of what follows the last step if it is not done.
        gamma: discount.

    Returns:
        [T, ...] G_t = r_t + gamma (1 - done_t) G_(t+1), with G_T = last_value.
    """
    decay = gamma * (1 - align(done, reward))
    tail = jnp.zeros_like(reward).at[-1].set(decay[-1] * last_value)
    return _discount(reward + tail, decay)


def group_relative(reward: Array, done: Array, *, gamma: float | Array, group_size: int) -> Array:
    """Returns less those of the other games of a group: an advantage without a critic.

    **Source**: the group-relative, leave-one-out baseline of Piche et al. 2025 (arXiv 2511.19405), read in
    the authors' code: A_t = G_t - mean over the other games of G_t, for every step and seat, G the
    discounted sum of rewards to come. It is unbiased where the games of a group share all draws of the game
    but not those of the players.

    Args:
        reward: [T, E, ...]; done: [T, E] nothing later counts, also after a truncation.
        gamma: discount.
        group_size: G; games g*G .. g*G + G - 1 are a group.

    Returns:
        [T, E, ...] advantages, whose sum over a group is 0.
    """
    return_ = discounted_sum(reward, done, jnp.zeros_like(reward[0]), gamma=gamma)
    return less_group(return_, group_size)


def less_group(x: Array, group_size: int) -> Array:
    """[T, E, ...] what each game has more than the mean of the other games of its group.

    Games as for `group_relative`; `x` itself if a group is one game.
    """
    if group_size == 1:
        return x
    groups = x.reshape(x.shape[0], -1, group_size, *x.shape[2:])
    others = (groups.sum(2, keepdims=True) - groups) / (group_size - 1)
    return (groups - others).reshape(x.shape)


def n_step(
    reward: Array,
    next_value: Array,
    terminated: Array,
    done: Array,
    *,
    gamma: float | Array,
    num_steps: int,
) -> Array:
    """Bootstrapped n-step return.

    Sums up to `num_steps` rewards, then adds the discounted value of the state reached;
    ends early at `done` and at the end of the batch (Sutton and Barto 2018, eq. 7.1).

    Args:
        reward: [T, ...]; next_value: [T, ...] value of the state each step reached.
        terminated, done: [T, ...] as in `gae`.
        gamma: discount; num_steps: n >= 1.

    Returns:
        [T, ...] targets.
    """
    one_step = reward + gamma * next_value * (1 - align(terminated, reward))
    keep_on = 1 - align(done, reward)
    target = one_step
    for _ in range(num_steps - 1):
        later = jnp.concatenate([target[1:], jnp.zeros_like(target[:1])])
        longer = reward + gamma * later
        inside = keep_on.at[-1].set(0.0)
        target = jnp.where(inside > 0, longer, one_step)
    return target


def _discount(x: Array, decay: Array) -> Array:
    """y_t = x_t + decay_t y_(t+1), y_T = 0; shapes [T, ...]."""
    decay = jnp.broadcast_to(decay, x.shape)

    def backward(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        x, decay = now
        y = x + decay * later
        return y, y

    return jax.lax.scan(backward, jnp.zeros_like(x[0]), (x, decay), reverse=True, unroll=8)[1]
