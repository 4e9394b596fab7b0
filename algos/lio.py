"""LIO: learners that learn which actions of others to pay for, through what those learn from the payment.

**Source**: Yang, Li, Farajtabar, Sunehag, Hughes, Zha 2020, "Learning to incentivize other learning agents"
(arXiv 2006.06051), and their code. Seat i pays seat j != i an incentive in (0, R_max) for what the others
just did. One update:

1. games tau under the policies theta;
2. theta'_j = theta_j + alpha grad J_j(tau), with J_j of j's own reward plus what it received;
3. games tau' under theta';
4. i's incentives climb, by Adam, sum_(j != i) sum_t log pi_theta'_j(a'_t) A_i(tau') in their parameters, on
   which theta' depends by 2; A_i is of i's extrinsic reward. They descend their cost, c sum_t gamma^t times
   the sum over j of the shares of R_max paid in tau, with Adam of its own or the same;
5. theta = theta'.

Who pays does not lose what it pays in its own learning (a payment creates reward); with max_incentive 0 it is
a plain policy gradient. Deviations: objectives are sums over steps and means over the games of a batch (the
source plays one game an update); the critic learns both the extrinsic and the total reward, of GAE targets
without a target network; what follows the end of an episode counts nothing. Doubt: that the optimiser of the
cost is Adam. The loop counts the steps of tau only: as many again are played for tau', whole episodes where
their length is fixed. Axes: A seats, each a learner; T steps, E games, N actions; others by offset
d = 1 .. A-1, see `marl.relation_networks`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.algorithm import Algorithm, Batch
from marl.distributions import Distribution, distribution, num_params
from marl.environment import Environment, TimeStep, event_names
from marl.gifts import accounts, by_pair, others_of
from marl.heads import PolicyNetwork, QNetwork
from marl.learner import rollout, start
from marl.population import Seats
from marl.relation_networks import Incentive
from marl.returns import gae

EXTRINSIC, TOTAL = 0, 1  # outputs of the critic


class Learner(struct.PyTreeNode):
    """What the seats know; leaves have a leading axis A."""

    policy: Any
    incentive: Any
    critic: Any  # () without one
    opt_state: Any  # of "incentive", "cost" and "critic"
    updates: Any  # [A] int32, updates made


class LIO(Algorithm, kw_only=True):
    """Policy gradients that learn to pay each other."""

    learning_rate: Any  # [] step size of the policies' plain gradient ascent, alpha
    incentive_learning_rate: Any  # [] Adam, of the incentives
    cost_learning_rate: Any  # [] Adam that lowers the cost alone; None: the incentives' does
    critic_learning_rate: Any  # [] Adam
    max_incentive: Any  # [] reward units that a seat can pay each other a step, R_max
    cost_weight: Any  # [] c, objective of a step's payment of R_max
    gamma: Any  # [] discount
    gae_lambda: Any  # [] with the critic: 0 one-step errors, 1 returns less values
    ent_coef: Any  # [] weight of the policies' entropy
    explore_start: Any  # [] share of actions drawn from all alike in training, at first,
    explore_end: Any  # and after
    explore_updates: Any  # [] updates, in between linearly
    has_critic: bool = struct.field(pytree_node=False)  # False: A is the discounted return
    reads: tuple[str, ...] = struct.field(
        pytree_node=False
    )  # events of others that are paid for; (): actions
    incentive_widths: tuple[int, ...] = struct.field(pytree_node=False)  # of layers after what others did
    num_steps: int = struct.field(pytree_node=False)  # T
    network: Any = struct.field(pytree_node=False)  # torso of policy and critic, without memory
    incentive: Any = struct.field(pytree_node=False)  # torso of the incentives, without memory
    seats: Seats = struct.field(pytree_node=False)  # (0, 1, .. A-1) to learn

    def check(self, env: Environment) -> None:
        """Raise ValueError for shared or too few seats, other actions, memory, or unknown events."""
        self._require_all_seats(env)
        if not isinstance(env.action_space, spaces.Discrete):
            raise ValueError(f"algo lio: needs Discrete actions, not {env.action_space}")
        for name in ("network", "incentive"):
            if size := getattr(self, name).carry_size:
                raise ValueError(f"algo.{name}.core={size}: must be 0, without memory")
        if unknown := set(self.reads) - set(known := event_names(env)):
            known = ", ".join(known)
            raise ValueError(f"algo.reads: the game tells no event {min(unknown)}; one of {known}")
        jax.eval_shape(lambda key: start(self, env, key, 1), jax.random.key(0))

    def _require_all_seats(self, env: Environment) -> None:
        if env.num_agents < 2 or self.seats != tuple(range(env.num_agents)):
            wrong = f"seats={list(self.seats)}: algo lio needs two seats or more and seats=independent,"
            raise ValueError(f"{wrong} a learner in each seat, and past=null")

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """A fresh learner for each seat; raises ValueError unless it holds all of them."""
        self._require_all_seats(env)
        obs = jax.tree.map(lambda x: x[None, :1, 0], ts.obs)  # [T=1, B=1, ...]
        did = jnp.zeros((1, 1, env.num_agents - 1, len(self.reads) or num_params(env.action_space)))

        def one(key: Array) -> Learner:
            keys, no_start = jax.random.split(key, 3), jnp.zeros((1, 1), bool)
            policy = self._net(env).init(keys[0], (), obs, no_start)
            incentive = self._incentive(env).init(keys[1], obs, did)
            critic = self._critic(env).init(keys[2], (), obs, no_start) if self.has_critic else ()
            adam = optax.adam(1.0).init
            states = {"incentive": adam(incentive), "cost": adam(incentive), "critic": adam(critic)}
            return Learner(policy, incentive, critic, states, jnp.int32(0))

        return jax.vmap(one)(jax.random.split(key, env.num_agents))

    def for_acting(self, learner: Learner) -> Learner:
        """The policies alone, which then no longer explore."""
        return Learner(learner.policy, (), (), (), ())

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Sample (or take the mode of) the policies; keeps nothing."""
        policy = learner.policy
        if self.seats != tuple(range(env.num_agents)):  # frozen, in other seats
            policy = jax.tree.map(lambda x: x[np.asarray(self.seats)], policy)
        obs, mask = jax.tree.map(lambda x: x[None], (ts.obs, ts.action_mask))
        pi = self._policy(env, policy, learner.updates, obs, mask)
        return (pi.mode() if greedy else pi.sample(key))[0], carry, ()

    def update(self, env, learner, batch, key):
        """One step of policies, incentives and critics of all seats.

        Metrics: `extrinsic`, `received` and `given`, in reward units a step and seat, and of each of them
        NAME/seat_I; `incentive/seat_I_to_J`; `cost`, an episode's; `value_error`; `explored`, a share.
        """
        value = self._values(env, learner.critic, batch)
        step = lambda incentive: self.learned(env, learner, incentive, batch, value)
        policy, back, paid = jax.vjp(step, learner.incentive, has_aux=True)
        played = self.simulate(env, learner.replace(policy=policy), key, batch.done.shape[1])
        found = self.meta_gradients(env, learner, policy, played)
        own = lambda along, giver: jax.tree.map(lambda x: x[giver], back(along)[0])
        climb = jax.vmap(own)(found, jnp.arange(env.num_agents))
        cost, down = jax.value_and_grad(lambda incentive: self.cost(env, incentive, batch))(learner.incentive)
        incentive, states = self._pay_better(learner, climb, down)
        critic, states["critic"], error = self._learn_values(env, learner, batch, paid, value)
        metrics = accounts(batch.reward, paid) | {"cost": cost, "value_error": error}
        metrics["explored"] = jnp.mean(self._explored(learner.updates))
        return Learner(policy, incentive, critic, states, learner.updates + 1), metrics

    def learned(
        self, env: Environment, learner: Learner, incentive: Any, batch: Batch, value: Array | None
    ) -> tuple[Any, Array]:
        """Policies after a step of plain gradient ascent, a function of the incentives' parameters.

        Args:
            env: the game; learner: before the step.
            incentive: parameters of all seats' incentives.
            batch: games under the learner's policies.
            value: as of `_values`.

        Returns:
            the policies, and what was paid, [T, E, A (giver), A (taker)] reward units.
        """
        paid = self.max_incentive * self.shares(env, incentive, batch)
        advantage, counts = self._advantages(batch, batch.reward + paid.sum(2), value, TOTAL)[::2]

        def objective(policy: Any) -> Array:
            pi = self._policy(env, policy, learner.updates, batch.obs, batch.action_mask)
            terms = pi.log_prob(batch.action) * advantage + self.ent_coef * pi.entropy()
            return (counts * terms).sum((0, 2)).mean()  # seats share no parameters

        grads = jax.grad(objective)(learner.policy)
        return jax.tree.map(lambda x, g: x + self.learning_rate * g, learner.policy, grads), paid

    def meta_gradients(self, env: Environment, learner: Learner, policy: Any, played: Batch) -> Any:
        """Gradients of each giver's objective in the policies after their step, [A (giver), A, ...]."""
        value = self._values(env, learner.critic, played)
        advantage, _, counts = self._advantages(played, played.reward, value, EXTRINSIC)

        def objective(policy: Any, giver: Array) -> Array:
            pi = self._policy(env, policy, learner.updates, played.obs, played.action_mask)
            others = jnp.arange(env.num_agents) != giver
            terms = pi.log_prob(played.action) * jnp.take(advantage, giver, axis=2)[..., None]
            return (counts * others * terms).sum((0, 2)).mean()

        return jax.vmap(jax.grad(objective), in_axes=(None, 0))(policy, jnp.arange(env.num_agents))

    def shares(self, env: Environment, incentive: Any, batch: Batch) -> Array:
        """[T, E, A (giver), A (taker)] what seats pay, in (0, 1) of the most; 0 to themselves."""
        did = jax.nn.one_hot(batch.action, num_params(env.action_space))
        if self.reads:
            did = jnp.stack([batch.events[name] for name in self.reads], axis=-1)
        did = did[:, :, others_of(env.num_agents)]  # [T, E, A, A-1, C]
        net = self._incentive(env)
        return by_pair(jax.vmap(net.apply, in_axes=(0, 2, 2), out_axes=2)(incentive, batch.obs, did))

    def cost(self, env: Environment, incentive: Any, batch: Batch) -> Array:
        """[] the weighted, discounted sum over steps of the shares that all seats pay, mean over games."""
        paid = self.shares(env, incentive, batch).sum((2, 3))
        return self.cost_weight * (self.gamma**batch.age * paid).sum(0).mean()

    def simulate(self, env: Environment, learner: Learner, key: Array, num_games: int) -> Batch:
        """Fresh games, leaves [T, E, A, ...]; nothing of it is differentiated."""
        start_key, play_key = jax.random.split(key)
        runner = start(self, env, start_key, num_games)
        runner = runner.replace(learner=jax.lax.stop_gradient(learner))
        return rollout(self, env, runner, play_key, 0, env.fixed_horizon or self.num_steps)[1]

    def _net(self, env: Environment) -> PolicyNetwork:
        return PolicyNetwork(
            self.network.clone(grid_codes=tuple(env.grid_codes)), num_params(env.action_space)
        )

    def _critic(self, env: Environment) -> QNetwork:
        return QNetwork(self.network.clone(grid_codes=tuple(env.grid_codes)), 2, False)

    def _incentive(self, env: Environment) -> Incentive:
        torso = self.incentive.clone(grid_codes=tuple(env.grid_codes))
        return Incentive(torso, tuple(self.incentive_widths), env.num_agents - 1)

    def _explored(self, updates: Any) -> Array:
        done = jnp.minimum(updates / jnp.maximum(self.explore_updates, 1.0), 1.0)
        return (1 - done) * self.explore_start + done * self.explore_end

    def _policy(self, env: Environment, policy: Any, updates: Any, obs: dict, mask: Array) -> Distribution:
        """The distribution over [T, E, A] of obs [T, E, A, ...]; `updates` is () where nobody explores."""
        apply = lambda params, obs: self._net(env).apply(params, (), obs, _no_start(obs))[1]
        mask = None if env.all_legal else mask
        pi = distribution(env.action_space, jax.vmap(apply, in_axes=(0, 2), out_axes=2)(policy, obs), mask)
        return pi if isinstance(updates, tuple) else pi.mixed(self._explored(updates[0]), mask)

    def _values(self, env: Environment, critic: Any, batch: Batch) -> Array | None:
        """[T + 1, E, A, 2] values of the states before the steps and of the last; None without a critic."""
        if not self.has_critic:
            return None
        obs = jax.tree.map(lambda x, last: jnp.concatenate([x, last[None]]), batch.obs, batch.last.obs)
        apply = lambda params, obs: self._critic(env).apply(params, (), obs, _no_start(obs))[1]
        return jax.vmap(apply, in_axes=(0, 2), out_axes=2)(critic, obs)

    def _advantages(self, batch: Batch, reward: Array, value: Array | None, output: int) -> tuple:
        """[T, E, A] advantages and value targets of a reward [T, E, A], and [T, E, 1] which steps count.

        Without a critic those do not count whose episode goes on after the batch.
        """
        if value is None:
            zero = jnp.zeros_like(reward)
            ends = jax.lax.cummax(batch.done.astype(jnp.float32), reverse=True)
            return *gae(reward, zero, zero, batch.done, batch.done, gamma=self.gamma, gae_lambda=1.0), ends[
                ..., None
            ]
        value = jax.lax.stop_gradient(value[..., output])
        sizes = {"gamma": self.gamma, "gae_lambda": self.gae_lambda}
        found = gae(reward, value[:-1], value[1:], batch.done, batch.done, **sizes)
        return *found, jnp.ones((*batch.done.shape, 1))

    def _pay_better(self, learner: Learner, climb: Any, down: Any) -> tuple[Any, dict]:
        """Incentives and states of optimisers after a step up the objective and down the cost."""
        states, rate = dict(learner.opt_state), self.cost_learning_rate
        down_own = down if rate is None else jax.tree.map(jnp.zeros_like, down)
        grads = jax.tree.map(lambda cost, gain: cost - gain, down_own, climb)
        steps, states["incentive"] = _adam(self.incentive_learning_rate, grads, states["incentive"])
        incentive = optax.apply_updates(learner.incentive, steps)
        if rate is None:
            return incentive, states
        steps, states["cost"] = _adam(rate, down, states["cost"])
        return optax.apply_updates(incentive, steps), states

    def _learn_values(
        self, env: Environment, learner: Learner, batch: Batch, paid: Array, value: Array | None
    ) -> tuple[Any, Any, Array]:
        """Critics and their optimiser's states after a step, and their error []."""
        state = learner.opt_state["critic"]
        if value is None:
            return learner.critic, state, jnp.float32(0)
        rewards = {EXTRINSIC: batch.reward, TOTAL: batch.reward + paid.sum(2)}
        targets = [self._advantages(batch, reward, value, output)[1] for output, reward in rewards.items()]
        target = jnp.stack(targets, axis=-1)

        def loss(critic: Any) -> Array:
            return 0.5 * jnp.square(self._values(env, critic, batch)[:-1] - target).mean((0, 1, 3)).sum()

        error, grads = jax.value_and_grad(loss)(learner.critic)
        steps, state = _adam(self.critic_learning_rate, grads, state)
        return optax.apply_updates(learner.critic, steps), state, error / env.num_agents


def _adam(rate: Any, grads: Any, state: Any) -> tuple[Any, Any]:
    """Steps and states of every seat's Adam, leaves [A, ...]."""
    return jax.vmap(optax.adam(rate).update)(grads, state)


def _no_start(obs: dict[str, Array]) -> Array:
    """[T, B] False, for networks without memory."""
    return jnp.zeros(jax.tree.leaves(obs)[0].shape[:2], bool)
