"""LOQA: a policy gradient that counts on others who answer with what their critic says is good for them.

**Sources**: Aghajohari et al. 2024, "LOQA: learning with opponent Q-learning awareness" (arXiv 2405.01035);
Duque et al. 2025 (arXiv 2406.14662), whose Coin Game agents are the same code with
`normaliser_gradient` off; both as read in their code. An opponent is taken to play
softmax(Q2 / temperature), Q2 being worth what it then earned. The gradient of their loss, a "loaded
DiCE" return of the opponent inside that softmax, weights grad log pi(a_k) by
d_k + beta (gamma / temperature) sum_(t<k) (gamma decay)^(k-t-1) d_t (1 - pi2_t) (G2_k - V2_k),
d the own advantage, pi2_t the softmax's probability of the opponent's action b_t with the entry of
b_t replaced by its return G2_t, and G2 - V2 the opponent's return less its critic; without the
softmax normaliser's gradient 1 - pi2_t is 1. beta, decay and what is removed are those of `credit`.

Training is centralised: a seat's gradient reads the others' rewards and critics. Deviations: own
advantages are constants (in their code the gradient enters one-step errors); returns that a horizon
cuts go on with the critic's value; the time that a critic is shown is divided by the horizon; of a past
agent's seat the current critic and policy are read, not its own. Explored actions are learnt from like
others. The critic's memory starts anew with every batch, so recurrent critics want whole episodes.
Axes: P learners, K seats a learner, T steps, E games, A seats, N actions, B = E*K, L ends, the steps
at which a game can end.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from gymnasium import spaces
from jax import Array

from algos.advantage_alignment import AdvantageAlignment
from algos.random_player import pick
from algos.td import answer_prob, q_loss
from marl.algorithm import Algorithm, Batch
from marl.distributions import distribution
from marl.environment import Environment, TimeStep
from marl.heads import PolicyNetwork, QNetwork, initial_carry
from marl.population import Seats, normalised, num_learners, to_learners, to_seats
from marl.returns import gae


class Learner(struct.PyTreeNode):
    """What a learner knows; leaves have a leading axis P."""

    actor: Any
    critic: Any
    target: Any  # parameters of the critic that lag behind
    actor_opt_state: Any
    critic_opt_state: Any


class Carry(struct.PyTreeNode):
    """What is remembered during an episode; zeros at its start."""

    memory: Any  # of the actor, [E, A, H] or ()
    time: Array  # [E, A] float32 steps played


class LOQA(Algorithm):
    """An actor and a critic of all actions, one gradient step of each a batch."""

    learning_rate: float  # Adam step size
    critic_learning_rate: float  # likewise
    gamma: float  # discount
    gae_lambda: float  # of the own advantage; 0: one-step error, 1: return less value
    epsilon: float  # probability of a random action
    temperature: float  # of the policy that the others are taken to play
    tau: float  # weight of the critic in an update of the target critic
    ent_coef: float  # weight of the entropy bonus
    max_grad_norm: float  # the actor's gradients are scaled down to this norm
    credit: AdvantageAlignment | None  # how others' advantages count; None: not at all
    num_steps: int = struct.field(pytree_node=False)  # T
    normalise: bool = struct.field(pytree_node=False)  # advantages to mean 0 and deviation 1
    normaliser_gradient: bool = struct.field(pytree_node=False)  # of the softmax: LOQA; without: AdAlign
    time_input: bool = struct.field(
        pytree_node=False
    )  # the critic is shown the time, where the horizon is fixed
    network: Any = struct.field(pytree_node=False)  # torso of the actor, see marl.networks
    critic_network: Any = struct.field(pytree_node=False)  # torso of the critic
    seats: Seats = struct.field(pytree_node=False)  # [A] learner of each seat

    def _actor(self, env: Environment) -> PolicyNetwork:
        torso = self.network.clone(grid_codes=tuple(env.grid_codes))
        return PolicyNetwork(torso, int(env.action_space.n))

    def _critic(self, env: Environment) -> QNetwork:
        torso = self.critic_network.clone(grid_codes=tuple(env.grid_codes))
        return QNetwork(torso, int(env.action_space.n), dueling=False)

    @property
    def _actor_optimizer(self) -> optax.GradientTransformation:
        clip = optax.clip_by_global_norm(self.max_grad_norm)
        return optax.chain(clip, optax.adam(self.learning_rate))

    def check(self, env: Environment) -> None:
        """Raise ValueError for fields that do not fit each other, the game, or what networks can read."""
        if not isinstance(env.action_space, spaces.Discrete):
            raise ValueError(f"algo loqa needs Discrete actions, not {env.action_space}")
        if self.credit is not None:
            self.credit.check(len(self.seats))
            if self.normaliser_gradient and len(self.seats) != 2:
                raise ValueError("algo.normaliser_gradient=true: must be false unless two seats learn")
        ts = jax.eval_shape(env.reset, jax.random.key(0))[1]
        games = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), ts)
        jax.eval_shape(lambda key, ts: self.init(key, env, ts), jax.random.key(0), games)

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """P fresh learners with different initial weights."""
        actor, critic = self._actor(env), self._critic(env)
        obs = jax.tree.map(lambda x: x[None, :1, 0], ts.obs)  # [T=1, B=1, ...]
        seen = self._with_time(env, obs, jnp.zeros((1, 1)))
        start = jnp.zeros((1, 1), bool)

        def one(key: Array) -> Learner:
            actor_key, critic_key = jax.random.split(key)
            policy = actor.init(actor_key, initial_carry(actor, (1,)), obs, start)
            q = critic.init(critic_key, initial_carry(critic, (1,)), seen, start)
            states = self._actor_optimizer.init(policy), optax.adam(0.0).init(q)
            return Learner(policy, q, jax.tree.map(jnp.copy, q), *states)

        return jax.vmap(one)(jax.random.split(key, num_learners(self.seats)))

    def for_acting(self, learner: Learner) -> Learner:
        """The actor alone."""
        return Learner(learner.actor, (), (), (), ())

    def initial_carry(self, env: Environment, ts: TimeStep) -> Carry:
        """Zeros."""
        memory = initial_carry(self._actor(env), ts.reward.shape)
        return Carry(memory, jnp.zeros(ts.reward.shape))

    def _with_time(self, env: Environment, obs: dict, time: Array) -> dict:
        """What the critic sees: obs [..., F], and time [...] in horizons if it is shown."""
        if not (self.time_input and env.fixed_horizon):
            return obs
        shown = (time / env.fixed_horizon)[..., None]
        return obs | {"vector": jnp.concatenate([obs["vector"], shown], -1) if "vector" in obs else shown}

    def _look(self, env: Environment, learner: Learner, carry: Carry, ts: TimeStep) -> tuple:
        """One pass of the actor for all seats: the carry, the policy over [E, A] and its probabilities."""
        memory, obs = jax.tree.map(lambda x: to_learners(x, self.seats, 0), (carry.memory, ts.obs))
        actor = self._actor(env)

        def one(params: Any, memory: Any, obs: dict) -> tuple:
            no_start = jnp.zeros((1, jax.tree.leaves(obs)[0].shape[0]), bool)
            memory, logits = actor.apply(params, memory, jax.tree.map(lambda x: x[None], obs), no_start)
            return memory, logits[0]

        out = jax.vmap(one)(learner.actor, memory, obs)
        memory, logits = jax.tree.map(lambda x: to_seats(x, self.seats, 0), out)
        policy = distribution(env.action_space, logits, None if env.all_legal else ts.action_mask)
        return Carry(memory, carry.time + 1), policy, jax.nn.softmax(policy.logits)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Sample (or take the mode of) the policy, or with probability epsilon any legal action.

        Keeps the policy [E, A, N], without what epsilon adds, and the time [E, A].
        """
        reached, policy, pi = self._look(env, learner, carry, ts)
        extras = {"pi": pi, "time": carry.time}
        if greedy:
            return policy.mode(), reached, extras
        key, explore_key = jax.random.split(key)
        u = jax.random.uniform(explore_key, (2, *carry.time.shape))
        action = jnp.where(u[0] < self.epsilon, pick(ts.action_mask, u[1]), policy.sample(key))
        return action, reached, extras

    def bootstrap(self, env, learner, carry, ts):
        """What is seen in the state reached, the policy there [E, A, N] and the time [E, A]."""
        return {"obs": ts.obs, "pi": self._look(env, learner, carry, ts)[2], "time": carry.time}

    def update(self, env, learner, batch, key):
        """One step of the actor, the critic and the target critic; metrics are means over learners."""
        data = self._data(env, learner, batch)
        credit = batch.extras.get("credit")
        data["credit"] = self.credits(env, learner, batch, None) if credit is None else credit
        data |= {"raw_obs": batch.obs, "action_mask": None if env.all_legal else batch.action_mask}
        data = jax.tree.map(lambda x: to_learners(x, self.seats, 1), data)
        memory = jax.tree.map(lambda x: to_learners(x, self.seats, 0), batch.carry.memory)
        learner, metrics = jax.vmap(lambda *x: self._learn(env, *x))(learner, memory, data)
        return learner, {k: v.mean() for k, v in metrics.items()}

    def credits(self, env: Environment, learner: Learner, batch: Batch, learns: Array | None) -> Array:
        """[T, E, A] what multiplies the policy gradient of each seat.

        If it is normalised, then over the samples of those that learn, [E, A] bool; None: all do. For
        `marl.past_policies`: where only some seats learn, the others still count in the credit;
        `update` prefers what stands in `extras` as "credit" to its own.
        """
        data = self._data(env, learner, batch)
        weight = None if learns is None else jnp.broadcast_to(learns, batch.reward.shape).astype(jnp.float32)
        q, next_q = self._values(env, learner.critic, data)
        value, next_value = (data["pi"] * q).sum(-1), (data["next_pi"] * next_q).sum(-1)
        seen = (batch.reward, value, next_value, batch.terminated, batch.done)
        scale = lambda x: normalised(x, self.seats, weight) if self.normalise else x
        own = scale(gae(*seen, gamma=self.gamma, gae_lambda=self.gae_lambda)[0])
        if self.credit is None:
            return own
        lambda_ = self.credit.others_lambda
        lambda_ = self.gae_lambda if lambda_ is None else lambda_
        others, return_ = gae(*seen, gamma=self.gamma, gae_lambda=lambda_)
        past = own
        if self.normaliser_gradient:
            past = own * (1 - answer_prob(q, batch.action, return_, temperature=self.temperature))[..., ::-1]
        shaping = self.credit.shaping(past, scale(others), batch.done, gamma=self.gamma)
        return own + shaping / self.temperature

    def _data(self, env: Environment, learner: Learner, batch: Batch) -> dict[str, Any]:
        """What critics read of a batch: leaves [T, E, A, ...], for the states reached at ends [L, E, A, ...].

        "next_pi" [T, E, A, N] is the policy in the state reached by each step, "next_choice" the
        same, but the action where the batch tells it.
        """
        steps, ends = batch.done.shape[0], _ends(batch.done.shape[0], env)
        last = self._look(env, learner, batch.last_carry, batch.last)[2]
        now = {"obs": batch.obs, "pi": batch.extras["pi"], "time": batch.extras["time"]}
        after = {"obs": batch.last.obs, "pi": last, "time": batch.last_carry.time}

        def reached(now: Array, after: Array, ended: Array) -> Array:
            done = batch.done.reshape(steps, -1, *(1,) * (now.ndim - 2))
            return jnp.where(done, ended, jnp.concatenate([now[1:], after[None]]))

        pi = reached(now["pi"], after["pi"], batch.bootstrap["pi"])
        at_ends = jax.tree.map(lambda *x: reached(*x)[ends], now, after, batch.bootstrap)
        chosen = jax.nn.one_hot(jnp.concatenate([batch.action[1:], batch.action[-1:]]), pi.shape[-1])
        is_told = ~batch.done & (np.arange(steps) < steps - 1)[:, None]
        everyone = lambda x: jnp.broadcast_to(x[..., None], batch.reward.shape)
        return {
            "obs": self._with_time(env, now["obs"], now["time"]),
            "end_obs": self._with_time(env, at_ends["obs"], at_ends["time"]),
            "pi": now["pi"],
            "next_pi": pi,
            "next_choice": jnp.where(is_told[..., None, None], chosen, pi),
            "action": batch.action,
            "reward": batch.reward,
            "terminated": everyone(batch.terminated),
            "start": everyone(batch.start),
        }

    def _q(self, env: Environment, params: Any, data: dict) -> tuple[Array, Array]:
        """[T, B, N] a learner's values in the states of its data, and in those reached."""
        critic, (steps, games) = self._critic(env), data["start"].shape
        carries, q = critic.apply(params, initial_carry(critic, (games,)), data["obs"], data["start"])
        ends = _ends(steps, env)
        flat = lambda x: x.reshape(1, -1, *x.shape[2:])
        memory = jax.tree.map(lambda x: flat(x[ends])[0], carries)
        no_start = jnp.zeros((1, len(ends) * games), bool)
        _, at_ends = critic.apply(params, memory, jax.tree.map(flat, data["end_obs"]), no_start)
        at_ends = at_ends.reshape(len(ends), games, -1)
        if len(ends) == steps:
            return q, at_ends
        return q, jnp.concatenate([q[1:], q[-1:]]).at[ends].set(at_ends)

    def _values(self, env: Environment, critics: Any, data: dict) -> tuple[Array, Array]:
        """[T, E, A, N] every seat's values in the states of the data, and in those reached."""
        seen = {name: data[name] for name in ("obs", "end_obs", "start")}
        seen = jax.tree.map(lambda x: to_learners(x, self.seats, 1), seen)
        found = jax.vmap(lambda params, seen: self._q(env, params, seen))(critics, seen)
        return jax.tree.map(lambda x: to_seats(x, self.seats, 1), found)

    def _goal(self, env: Environment, target: Any, data: dict) -> Array:
        """[T, B] one-step targets of a learner's critic by the target critic."""
        next_value = (data["next_choice"] * self._q(env, target, data)[1]).sum(-1)
        return data["reward"] + self.gamma * (1 - data["terminated"]) * next_value

    def _learn(self, env: Environment, learner: Learner, memory: Any, data: dict) -> tuple[Learner, dict]:
        """One learner's update; data leaves [T, B, ...], memory [B, H]."""
        goal = self._goal(env, learner.target, data)

        def actor_loss(params: Any) -> tuple[Array, dict]:
            _, logits = self._actor(env).apply(params, memory, data["raw_obs"], data["start"])
            policy = distribution(env.action_space, logits, data["action_mask"])
            loss = -(policy.log_prob(data["action"]) * data["credit"]).mean()
            entropy = policy.entropy().mean()
            return loss - self.ent_coef * entropy, {"policy": loss, "entropy": entropy}

        def critic_loss(params: Any) -> tuple[Array, dict]:
            return q_loss(self._q(env, params, data)[0], data["action"], goal, kind="huber")

        slope, metrics = jax.grad(actor_loss, has_aux=True)(learner.actor)
        critic_slope, found = jax.grad(critic_loss, has_aux=True)(learner.critic)
        step, actor_state = self._actor_optimizer.update(slope, learner.actor_opt_state)
        optimizer = optax.adam(self.critic_learning_rate)
        critic_step, critic_state = optimizer.update(critic_slope, learner.critic_opt_state)
        actor = optax.apply_updates(learner.actor, step)
        critic = optax.apply_updates(learner.critic, critic_step)
        target = optax.incremental_update(critic, learner.target, self.tau)
        metrics |= found | {"grad_norm": optax.tree.norm(slope)}
        return Learner(actor, critic, target, actor_state, critic_state), metrics


def _ends(steps: int, env: Environment) -> np.ndarray:
    """[L] the steps of a batch of T = `steps` at which a game can end, and the last."""
    length = math.gcd(steps, env.fixed_horizon or 1)
    return np.arange(length - 1, steps, length)
