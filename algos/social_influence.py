"""Social influence: learners that are paid for what changes what others do next.

**Source**: Jaques, Lazaridou, Hughes, Gulcehre, Ortega, Strouse, Leibo, de Freitas 2019, "Social influence as
intrinsic motivation for multi-agent deep reinforcement learning" (arXiv 1810.08647), with the numbers of the
open-source code of the sequential social dilemmas. Seat i learns from a r_i + b c_i, where

    c_i(t) = sum_(j != i) KL(p(a_j(t+1) | a_i(t), s) || sum_a p(a_j(t+1) | a, s) pi_i(a | s)),

cut at `influence_clip`, and p is what i's model of the others predicts, learnt by cross-entropy from what
they did. Nobody needs to see the others' rewards or policies. The learners are PPO's.

Deviations: the model has a network and an optimiser of its own (the source's shares convolutions with the
policy, with the weight .0666 of its loss); its memory reads observations, begins anew with each batch, and
what all did in the step enters after it; all others count, seen or not; what is earned for an action counts
at that action's step (the source's at the next); the last step of an episode has no next action, earns
nothing and teaches nothing. Axes: T steps, E games, A seats, P learners, K seats a learner, B = E*K, N
actions; others by offset d = 1 .. A-1.
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

from algos.ppo import PPO
from marl.algorithm import Batch
from marl.distributions import num_params
from marl.environment import Environment, TimeStep
from marl.gifts import others_of
from marl.heads import initial_carry
from marl.population import num_learners, to_learners, to_seats
from marl.relation_networks import OthersModel

DIVERGENCES = ("kl", "jsd")


class Learner(struct.PyTreeNode):
    """What a learner knows; leaves have a leading axis P."""

    policy: Any  # of PPO
    model: Any  # parameters of OthersModel
    opt_state: Any  # of the model


class SocialInfluence(PPO, kw_only=True):
    """PPO on rewards with those for influence. Neutral: extrinsic_weight 1, influence_weight 0."""

    extrinsic_weight: Any  # [] of the game's reward, a
    influence_weight: Any  # [] reward units a nat, b
    influence_clip: Any  # [] nats, the most that counts of a seat and step
    schedule_updates: Any  # [M] updates at which influence_weight is multiplied by
    schedule_shares: Any  # [M] these; linear in between
    model_learning_rate: Any  # [] Adam
    divergence: str = struct.field(pytree_node=False)  # one of DIVERGENCES
    model_steps: int = struct.field(pytree_node=False)  # gradient steps on the whole batch, an update
    model_width: int = struct.field(pytree_node=False)  # of the layer that reads who did what
    model: Any = struct.field(pytree_node=False)  # torso of the model, with or without memory

    def check(self, env: Environment) -> None:
        """Raise ValueError for one seat, other actions, or a wrong divergence or schedule."""
        if self.divergence not in DIVERGENCES:
            raise ValueError(f"algo.divergence={self.divergence}: must be one of {', '.join(DIVERGENCES)}")
        if not isinstance(env.action_space, spaces.Discrete) or env.num_agents < 2:
            raise ValueError("algo social_influence: needs two seats or more with Discrete actions")
        if len(self.seats) != env.num_agents:
            raise ValueError("algo social_influence: models all seats, so it must hold all of them")
        updates, shares = (list(x) for x in (self.schedule_updates, self.schedule_shares))
        if len(updates) != len(shares) or not updates or updates != sorted(updates):
            wrong = f"algo.schedule_updates={updates}: must rise and be as many as algo.schedule_shares"
            raise ValueError(wrong)
        super().check(env)

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """P fresh learners with different initial weights."""
        net, obs = self._model(env), jax.tree.map(lambda x: x[None, :1, 0], ts.obs)  # [T=1, B=1, ...]
        joint, no_start = jnp.zeros((1, 1, env.num_agents), jnp.int32), jnp.zeros((1, 1), bool)

        def one(key: Array) -> tuple:
            params = net.init(key, initial_carry(net.torso, (1,)), obs, no_start, joint)
            return params, optax.adam(self.model_learning_rate).init(params)

        own = jax.vmap(one)(jax.random.split(_own(key), num_learners(self.seats)))
        return Learner(super().init(key, env, ts), *own)

    def for_acting(self, learner: Learner) -> Learner:
        """The policy alone."""
        return Learner(super().for_acting(learner.policy), (), ())

    def act(self, env, learner, carry, ts, key, greedy=False):
        """As PPO; keeps also the log-probabilities of all actions, [E, A, N]."""
        carry, pi, value = self._forward(env, learner.policy, carry, ts)
        action = pi.mode() if greedy else pi.sample(key)
        kept = {"log_prob": pi.log_prob(action), "value": value, "log_pi": jax.nn.log_softmax(pi.logits)}
        return action, carry, kept

    def bootstrap(self, env, learner, carry, ts):
        """[E, A] value of the state reached."""
        return super().bootstrap(env, learner.policy, carry, ts)

    def update(self, env, learner, batch, key):
        """As PPO, of rewards with those for influence; then the model learns.

        Metrics beside PPO's: `influence`, nats a step and seat, and `influence/seat_I`; `influence_weight`,
        now; `model`, the cross-entropy in nats of another's next action, and `model_accuracy`.
        """
        found = self.influence(env, learner, batch)
        steps = optax.tree.get(learner.policy.opt_state, "count").max()  # Adam's
        updates = steps / (self.num_epochs * self.num_minibatches)
        xs, ys = (jnp.asarray(x, jnp.float32) for x in (self.schedule_updates, self.schedule_shares))
        weight = self.influence_weight * jnp.interp(updates, xs, ys)
        total = self.extrinsic_weight * batch.reward + weight * found
        policy, metrics = super().update(env, learner.policy, batch.replace(reward=total), key)
        model, opt_state, losses = self._learn_model(env, learner, batch)
        metrics |= losses | {"influence": found.mean(), "influence_weight": weight}
        metrics |= {f"influence/seat_{i}": x for i, x in enumerate(found.mean((0, 1)))}
        return Learner(policy, model, opt_state), metrics

    def influence(self, env: Environment, learner: Learner, batch: Batch) -> Array:
        """[T, E, A] nats by which each seat's action changed what it expects of the others next."""
        net, own = self._model(env), self._seen(batch)
        log_pi = to_learners(batch.extras["log_pi"], self.seats, 1)

        def one(params: Any, own: dict, log_pi: Array) -> Array:
            given = (initial_carry(net.torso, log_pi.shape[1:2]), own["obs"], own["start"], own["joint"])
            logits = net.apply(params, *given, method="alternatives")  # [T, B, N, A-1, N]
            return influence(logits, log_pi, own["joint"][..., 0], self.divergence)

        found = to_seats(jax.vmap(one)(learner.model, own, log_pi), self.seats, 1)
        return jnp.where(batch.done[..., None], 0.0, jnp.minimum(found, self.influence_clip))

    def _model(self, env: Environment) -> OthersModel:
        torso = self.model.clone(grid_codes=tuple(env.grid_codes))
        return OthersModel(torso, self.model_width, num_params(env.action_space), env.num_agents)

    def _seen(self, batch: Batch) -> dict[str, Any]:
        """Steps as their learners see them, leaves [P, T, B, ...]; joint actions with one's own first."""
        num = batch.reward.shape[2]
        order = np.concatenate([np.arange(num)[:, None], others_of(num)], axis=1)
        start = jnp.broadcast_to(batch.start[..., None], batch.reward.shape)
        own = {"obs": batch.obs, "joint": batch.action[..., order], "start": start}
        return jax.tree.map(lambda x: to_learners(x, self.seats, 1), own)

    def _learn_model(self, env: Environment, learner: Learner, batch: Batch) -> tuple[Any, Any, dict]:
        """Parameters and optimiser's state after the steps of an update, and losses, means over learners."""
        net, optimizer, own = self._model(env), optax.adam(self.model_learning_rate), self._seen(batch)
        goes_on = jnp.broadcast_to(~batch.done[..., None], batch.reward.shape)[:-1]
        goes_on = to_learners(goes_on.astype(jnp.float32), self.seats, 1)  # [P, T-1, B]

        def one(params: Any, opt_state: Any, own: dict, counts: Array) -> tuple:
            carry = initial_carry(net.torso, counts.shape[1:])
            target, total = own["joint"][1:, :, 1:], jnp.maximum(counts.sum(), 1)
            mean = lambda x: (counts * x.mean(-1)).sum() / total  # of [T-1, B, A-1]

            def loss(params: Any) -> tuple[Array, dict]:
                logits = net.apply(params, carry, own["obs"], own["start"], own["joint"])[:-1]
                log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], axis=-1)[..., 0]
                error = -mean(log_p)
                return error, {"model": error, "model_accuracy": mean(logits.argmax(-1) == target)}

            def step(now: tuple, _: Any) -> tuple[tuple, dict]:
                grads, found = jax.grad(loss, has_aux=True)(now[0])
                updates, opt_state = optimizer.update(grads, now[1], now[0])
                return (optax.apply_updates(now[0], updates), opt_state), found

            (params, opt_state), found = jax.lax.scan(step, (params, opt_state), None, self.model_steps)
            return params, opt_state, jax.tree.map(lambda x: x[0], found)

        params, opt_state, found = jax.vmap(one)(learner.model, learner.opt_state, own, goes_on)
        return params, opt_state, {name: x.mean() for name, x in found.items()}


def influence(logits: Array, log_pi: Array, action: Array, divergence: str) -> Array:
    """[...] nats, summed over the others: how far what is expected after an action is from before it.

    Args:
        logits: [..., N, A-1, N'] of the others' next actions after each of one's own actions.
        log_pi: [..., N] with which one acts; action: [...] what one did.
        divergence: kl, of the expectation after the action from that before it; jsd, symmetric.
    """
    log_p = jax.nn.log_softmax(logits)
    after = jnp.take_along_axis(log_p, action[..., None, None, None], axis=-3)[..., 0, :, :]
    before = jax.nn.logsumexp(log_pi[..., None, None] + log_p, axis=-3)
    kl = lambda p, q: (jnp.exp(p) * (p - q)).sum((-2, -1))
    if divergence == "kl":
        return kl(after, before)
    middle = jnp.logaddexp(after, before) - jnp.log(2.0)
    return (kl(after, middle) + kl(before, middle)) / 2


def _own(key: Array) -> Array:
    """The key of the model's first weights; PPO gets `key` itself, and so begins as it does alone."""
    return jax.random.fold_in(key, np.uint32(1 << 31))
