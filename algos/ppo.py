"""Proximal policy optimisation, feed-forward or recurrent, for any number of learners.

**Source**: Schulman, Wolski, Dhariwal, Radford, Klimov 2017 (arXiv 1707.06347), eq. 7 and 9, with
generalised advantages. Deviations: values are clipped only on demand; advantages are normalised once over a
learner's whole batch (so that a credit can multiply them), not per minibatch. Axes: P
learners, K seats a learner, T steps, E games, B = E*K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from algos.ppo_loss import ppo_loss
from marl.algorithm import Algorithm, Batch
from marl.distributions import Distribution, distribution, num_params
from marl.environment import Environment, TimeStep
from marl.heads import ActorCritic, initial_carry
from marl.pieces import mean_over
from marl.population import Seats, normalised, num_learners, to_learners, to_seats
from marl.returns import gae, group_relative, less_group
from marl.shuffle import shuffle

Credit = Callable[..., Array]


class Learner(struct.PyTreeNode):
    """What a PPO learner knows; leaves have a leading axis P."""

    params: Any
    opt_state: Any


class PPO(Algorithm):
    """Clipped policy gradient with a learned value baseline."""

    learning_rate: float  # Adam step size
    gamma: float  # discount
    gae_lambda: float  # weight of longer returns in the advantage
    clip_eps: float  # the probability ratio may leave 1 by this much
    vf_coef: float  # weight of the value loss
    ent_coef: float  # weight of the entropy bonus
    max_grad_norm: float  # gradients are scaled down to this norm
    credit: Credit | None  # [T, E, A] advantages -> credit of the policy loss; None: the advantage
    # (a credit with `others_lambda` is also called with `others`, advantages of that gae_lambda)
    num_steps: int = struct.field(pytree_node=False)  # T
    num_epochs: int = struct.field(pytree_node=False)  # passes over a batch
    num_minibatches: int = struct.field(pytree_node=False)  # parts of a batch, one step each
    num_accumulations: int = struct.field(pytree_node=False)  # pieces that a step's gradient is summed over
    separate_critic: bool = struct.field(pytree_node=False)  # the critic has its own torso
    network: Any = struct.field(pytree_node=False)  # torso, see marl.networks
    seats: Seats = struct.field(pytree_node=False)  # [A] learner of each seat
    # above 1: so many games share the draws of the game, and their mean return is the baseline; 1: the
    # critic is, as in run folders that do not name it
    group_size: int = struct.field(pytree_node=False, default=1)
    # with a group: advantages by the critic less those of the others; False: returns less their returns
    group_critic: bool = struct.field(pytree_node=False, default=False)
    # ent_coef after `annealed_updates` updates, linear before; None, as in older run folders: it stays
    final_ent_coef: float | None = None
    annealed_updates: float | None = None
    # weights of the policy's head: small, all actions are nearly equally likely; large, first policies differ
    actor_gain: float = struct.field(pytree_node=False, default=0.01)
    # Adam step size of the critic's head and own torso; None, as in older run folders: learning_rate
    critic_learning_rate: float | None = None
    # step sizes after `annealed_updates`, as a share of those before; None, as in older run folders: 1
    final_learning_share: float | None = None
    # bound of a value's distance from the old one in its loss; None, as in older run folders: no bound
    value_clip_eps: float | None = None
    # added to the deviation that advantages are divided by; 1e-8, as in older run folders: none to speak of
    advantage_eps: float = 1e-8

    def _net(self, env: Environment) -> ActorCritic:
        torso = self.network.clone(grid_codes=tuple(env.grid_codes))
        critic_torso = torso.clone() if self.separate_critic else None
        return ActorCritic(torso, critic_torso, num_params(env.action_space), self.actor_gain)

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        steps = [optax.clip_by_global_norm(self.max_grad_norm), optax.adam(self.learning_rate, eps=1e-5)]
        if self.critic_learning_rate is not None:
            ratio = optax.scale(self.critic_learning_rate / self.learning_rate)
            steps.append(optax.masked(ratio, _of_critic))
        return optax.chain(*steps)

    def check(self, env: Environment) -> None:
        """Raise ValueError for a wrong credit or group, or if the network cannot read what the game shows."""
        if check := getattr(self.credit, "check", None):
            check(len(self.seats))
        if self.group_size > 1:
            self._check_groups(env)
        elif self.group_critic:
            raise ValueError("algo.group_critic=true: needs algo.group_size above 1")
        anneals = self.final_ent_coef is not None or self.final_learning_share is not None
        if anneals != (self.annealed_updates is not None):
            what = "algo.final_ent_coef or algo.final_learning_share, and algo.annealed_updates"
            raise ValueError(f"{what}: give both or neither")
        ts = jax.eval_shape(env.reset, jax.random.key(0))[1]
        games = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), ts)
        jax.eval_shape(lambda key, ts: self.init(key, env, ts), jax.random.key(0), games)

    def _check_groups(self, env: Environment) -> None:
        horizon = env.fixed_horizon
        wrong = f"algo.group_size={self.group_size}: needs"
        if not horizon or self.num_steps % horizon:
            raise ValueError(
                f"{wrong} whole episodes, algo.num_steps={self.num_steps} a multiple of the game's "
                f"{horizon or 'fixed number of steps, which it has not'}"
            )
        if getattr(self.credit, "others_lambda", None) is not None and not self.group_critic:
            raise ValueError(f"{wrong} algo.credit.others_lambda=null: there is no critic in the advantages")

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """P fresh learners with different initial weights."""
        net = self._net(env)
        obs = jax.tree.map(lambda x: x[None, :1, 0], ts.obs)  # [T=1, B=1, ...]

        def one(key: Array) -> Learner:
            params = net.init(key, initial_carry(net, (1,)), obs, jnp.zeros((1, 1), bool))
            return Learner(params, self._optimizer.init(params))

        return jax.vmap(one)(jax.random.split(key, num_learners(self.seats)))

    def for_acting(self, learner: Learner) -> Learner:
        """The parameters without the optimiser's state."""
        return learner.replace(opt_state=())

    def initial_carry(self, env: Environment, ts: TimeStep) -> Any:
        """[E, A, H] zeros, or () for feed-forward networks."""
        return initial_carry(self._net(env), ts.reward.shape)

    def _forward(self, env: Environment, learner: Learner, carry: Any, ts: TimeStep) -> tuple:
        """One network pass for all seats: carry, distribution over [E, A], value [E, A]."""
        split = lambda x: to_learners(x, self.seats, 0)
        carry, obs = jax.tree.map(split, (carry, ts.obs))
        net = self._net(env)

        def one(params: Any, carry: Any, obs: dict) -> tuple:
            obs = jax.tree.map(lambda x: x[None], obs)
            no_start = jnp.zeros(jax.tree.leaves(obs)[0].shape[:2], bool)
            carry, params, value = net.apply(params, carry, obs, no_start)
            return carry, params[0], value[0]

        out = jax.vmap(one)(learner.params, carry, obs)
        carry, params, value = jax.tree.map(lambda x: to_seats(x, self.seats, 0), out)
        mask = None if env.all_legal else ts.action_mask
        return carry, self._policy(env, learner, params, mask), value

    def _policy(self, env: Environment, learner: Learner, out: Array, mask: Array | None) -> Distribution:
        """The distribution of actions that the network's outputs stand for."""
        return distribution(env.action_space, out, mask)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Sample (or take the mode of) the policy; keeps log-probability and value [E, A]."""
        carry, pi, value = self._forward(env, learner, carry, ts)
        action = pi.mode() if greedy else pi.sample(key)
        return action, carry, {"log_prob": pi.log_prob(action), "value": value}

    def bootstrap(self, env, learner, carry, ts):
        """[E, A] value of the state reached."""
        return self._forward(env, learner, carry, ts)[2]

    def update(self, env, learner, batch, key):
        """Several epochs of minibatch steps on the batch; metrics are means over learners."""
        advantage, target, others = self._advantage(env, learner, batch)
        credit = batch.extras.get("credit")
        data = {
            "obs": batch.obs,
            "action_mask": None if env.all_legal else batch.action_mask,
            "action": batch.action,
            "log_prob": batch.extras["log_prob"],
            "credit": self._credit(advantage, others, batch.done) if credit is None else credit,
            "target": target,
            "start": jnp.broadcast_to(batch.start[..., None], target.shape),
        }
        if self.value_clip_eps is not None:
            data["value"] = batch.extras["value"]
        data = jax.tree.map(lambda x: to_learners(x, self.seats, 1), data)
        carry = jax.tree.map(lambda x: to_learners(x, self.seats, 0), batch.carry)
        keys = jax.random.split(key, num_learners(self.seats))
        learn = lambda *args: self._learn(env, *args)
        learner, metrics = jax.vmap(learn)(learner, carry, data, keys)
        return learner, {k: v.mean() for k, v in metrics.items()} | {"value": batch.extras["value"].mean()}

    def credits(self, env: Environment, learner: Learner, batch: Batch, learns: Array) -> Array:
        """[T, E, A] credit of all seats, normalised over the samples of those that learn, [E, A] bool.

        For `marl.past_policies`: where only some seats learn, the others still count in the credit.
        `update` prefers what stands in `extras` as "credit" to its own.
        """
        advantage, _, others = self._advantage(env, learner, batch)
        weight = jnp.broadcast_to(learns, advantage.shape).astype(jnp.float32)
        return self._credit(advantage, others, batch.done, weight)

    def _advantage(self, env: Environment, learner: Learner, batch: Batch) -> tuple:
        """[T, E, A] advantages, value targets, and what a credit reads of others; None: the advantages."""
        value, next_value = batch.extras["value"], self._next_value(env, learner, batch)
        seen = (batch.reward, value, next_value, batch.terminated, batch.ends)
        advantage, target = gae(*seen, gamma=self.gamma, gae_lambda=self.gae_lambda)
        others_lambda = getattr(self.credit, "others_lambda", None)
        if self.group_size > 1 and not self.group_critic:
            sizes = {"gamma": self.gamma, "group_size": self.group_size}
            return group_relative(batch.reward, batch.done, **sizes), target, None
        less_others = lambda x: less_group(x, self.group_size)
        if others_lambda is None:
            return less_others(advantage), target, None
        others = gae(*seen, gamma=self.gamma, gae_lambda=others_lambda)[0]
        return less_others(advantage), target, less_others(others)

    def _next_value(self, env: Environment, learner: Learner, batch: Batch) -> Array:
        """[T, E, A] value of the state that each step reached, before any restart."""
        last = self._forward(env, learner, batch.last_carry, batch.last)[2]
        reached = jnp.concatenate([batch.extras["value"][1:], last[None]])
        return jnp.where(batch.done[..., None], batch.bootstrap, reached)

    def _credit(self, advantage: Array, others: Any, done: Array, weight: Any = None) -> Array:
        """[T, E, A] what multiplies the policy gradient: normalised advantages, or their credit."""
        normal = lambda x: normalised(x, self.seats, weight, self.advantage_eps)
        advantage = normal(advantage)
        if self.credit is None:
            return advantage
        more = {} if others is None else {"others": normal(others)}
        return self.credit(advantage, done, gamma=self.gamma, **more)

    def _annealed(self, learner: Learner, first: Any, final: Any) -> float | Array:
        """[] a number on its way from `first` to `final` in the update that comes; None: it stays."""
        if final is None:
            return first
        steps = optax.tree.get(learner.opt_state, "count")  # Adam's
        updates = steps / (self.num_epochs * self.num_minibatches)
        done = jnp.minimum(updates / jnp.maximum(self.annealed_updates, 1.0), 1.0)
        return (1 - done) * first + done * final

    def _learn(self, env: Environment, learner: Learner, carry: Any, data: dict, key: Array) -> tuple:
        """One learner's update; data leaves [T, B, ...], carry [B, H]."""
        net, optimizer = self._net(env), self._optimizer
        recurrent = net.carry_size > 0
        time, games = data["target"].shape
        ent_coef = self._annealed(learner, self.ent_coef, self.final_ent_coef)
        share = self._annealed(learner, 1.0, self.final_learning_share)
        if recurrent:  # minibatches are whole sequences of some games
            data = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), data)  # [B, T, ...]
        else:
            data = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)  # [T*B, ...]

        def loss_fn(params: Any, carry: Any, part: dict) -> tuple[Array, dict]:
            # [T, B, ...] either way; feed-forward parts are one long step
            part = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1) if recurrent else x[None], part)
            _, out, value = net.apply(params, carry, part["obs"], part["start"])
            pi = self._policy(env, learner, out, part["action_mask"])
            weights = {"clip_eps": self.clip_eps, "vf_coef": self.vf_coef, "ent_coef": ent_coef}
            return ppo_loss(pi, value, part, value_clip_eps=self.value_clip_eps, **weights)

        def minibatch(learner: Learner, index: Array) -> tuple[Learner, dict]:
            def gradient(index: Array) -> tuple[Any, dict]:
                part, part_carry = jax.tree.map(lambda x: x[index], (data, carry))
                return jax.grad(loss_fn, has_aux=True)(learner.params, part_carry, part)

            grads, metrics = mean_over(gradient, index.reshape(self.num_accumulations, -1))
            updates, opt_state = optimizer.update(grads, learner.opt_state)
            if self.final_learning_share is not None:
                updates = optax.tree.scale(share, updates)
            metrics["grad_norm"] = optax.tree.norm(grads)
            return Learner(optax.apply_updates(learner.params, updates), opt_state), metrics

        def epoch(learner: Learner, key: Array) -> tuple[Learner, dict]:
            order = jax.random.permutation(key, games) if recurrent else shuffle(key, time, games)
            return jax.lax.scan(minibatch, learner, order.reshape(self.num_minibatches, -1))

        learner, metrics = jax.lax.scan(epoch, learner, jax.random.split(key, self.num_epochs))
        return learner, {k: v.mean() for k, v in metrics.items()}


def _of_critic(params: Any) -> Any:
    """The tree of an ActorCritic's parameters with True where only the value depends on them."""
    mark = lambda path, _: path[1].key.startswith("critic")  # ("params", NAME, ...)
    return jax.tree.map_with_path(mark, params)
