"""LASE: learners that give away shares of their reward by how much others' actions are worth to them.

**Source**: Kong, Huang, Zhu, Qi, Feng 2024, "Learning to balance altruism and self-interest based on empathy
in mixed-motive games" (arXiv 2410.07863), eq. 2 to 5. Beside its policy, here PPO's (an actor-critic of
one-step errors with num_epochs=1, num_minibatches=1, gae_lambda=0), a learner has a policy and a value of
joint actions for its own reward alone, and guesses what another sees.

A seat gives another the share w = (Q(a) - what Q would be if the other acted as expected) / M of its reward,
clipped to 0 from below; M = (A-1) (max - min of Q over the other's actions). The group's sum stays as it is.

Seats that do not give are independent learners that may be given to. Where other players hold some of the
seats, what is given to them is gone.

Deviations: the three networks of a relation learn from the batch that the policy learns from, not from a
buffer; the policy for one's own reward weighs what the other policy did by how likely it is to do it itself,
at most 1 (unweighted, it moves away from what is played without end); all hyper-parameters are ours (the
paper's table was not readable). Axes: P learners, K seats a learner, T steps, E games, A seats of the game,
H held seats, G of them that give, N actions, B = T*E*K; others by their offset d = 1 .. A-1, see
`marl.relation_networks`.
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

from algos.lase_loss import expected_of, relation_loss, relation_optimizer
from algos.ppo import PPO
from marl.algorithm import Batch
from marl.distributions import Distribution
from marl.environment import Environment, TimeStep
from marl.gifts import given, shares, td_errors
from marl.metrics import equality
from marl.population import Seats, num_learners, to_learners, to_seats
from marl.relation_networks import Perspective, Relation, as_planes

PERSPECTIVES = ("guessed", "uniform", "actual")


class Learner(struct.PyTreeNode):
    """What a learner knows; leaves have a leading axis P."""

    policy: Any  # of PPO
    relation: Any  # parameters of Relation, here P counts only learners that give
    perspective: Any  # parameters of Perspective, likewise
    opt_state: Any  # of both


class LASE(PPO, kw_only=True):
    """PPO on rewards after gifts, with the networks that weigh the gifts."""

    relation_gamma: Any  # [] discount of the value of joint actions
    relation_policy_learning_rate: Any  # [] Adam step sizes: the relation's policy,
    relation_value_learning_rate: Any  # its value and encoding,
    perspective_learning_rate: Any  # and the guess of what others see
    relation_ent_coef: Any  # [] weight of the relation's policy's entropy
    likeness: Any  # [] in [0, 1]: how much a guess is held to one's own view, not the other's act (delta)
    flat: Any  # [] reward units: to whose actions the value differs by less, nothing is given
    perspective: str = struct.field(pytree_node=False)  # one of PERSPECTIVES: what others are taken to see
    gift_negative: bool = struct.field(pytree_node=False)  # shares of losses are passed on too
    # places, among the seats held, of those that give; None: all of them
    givers: tuple[int, ...] | None = struct.field(pytree_node=False)
    relation_minibatches: int = struct.field(pytree_node=False)  # gradient steps an update
    relation_batch_size: int | None = struct.field(pytree_node=False)  # steps that each of them learns
    # from at most, drawn without repetition; None: all steps of the update, shared out over them
    relation_width: int = struct.field(pytree_node=False)  # of the layer of each head
    perspective_channels: int = struct.field(pytree_node=False)  # of its convolution
    perspective_widths: tuple[int, ...] = struct.field(pytree_node=False)  # of its dense layers
    relation: Any = struct.field(pytree_node=False)  # torso without memory, see marl.networks
    explore_start: Any  # [] share of actions drawn from all alike in training, at first,
    explore_end: Any  # and after
    explore_updates: Any  # [] updates, in between linearly

    def check(self, env: Environment) -> None:
        """Raise ValueError for a wrong perspective, a torso with memory, one seat, or actions in parts."""
        if self.perspective not in PERSPECTIVES:
            raise ValueError(f"algo.perspective={self.perspective}: must be one of {', '.join(PERSPECTIVES)}")
        if self.relation.carry_size:
            raise ValueError(f"algo.relation.core={self.relation.carry_size}: must be 0, without memory")
        if not isinstance(env.action_space, spaces.Discrete) or env.num_agents < 2:
            raise ValueError("algo: LASE needs a game of at least two seats with Discrete actions")
        if self.perspective == "actual" and len(self.seats) != env.num_agents:
            raise ValueError("algo.perspective=actual: LASE must hold all seats to see what others see")
        if not self.perspective_widths:
            raise ValueError("algo.perspective_widths=[]: must have at least one layer")
        if not set(self.givers or ()) <= set(range(len(self.seats))):
            raise ValueError(f"algo.givers={list(self.givers or ())}: must be below {len(self.seats)}")
        super().check(env)

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """P fresh learners with different initial weights."""
        planes = as_planes(jax.tree.map(lambda x: x[:1, 0], ts.obs), tuple(env.grid_codes))
        joint = jnp.zeros((1, env.num_agents), jnp.int32)

        def one(key: Array) -> tuple:
            keys = jax.random.split(key)
            relation = self._relation(env).init(keys[0], planes, joint)
            params = {"relation": relation, "perspective": self._perspective(env).init(keys[1], planes)}
            return params["relation"], params["perspective"], self._relation_optimizer.init(params)

        giving = num_learners(self._giving[1])
        if not giving:
            return Learner(super().init(key, env, ts), (), (), ())
        own = jax.vmap(one)(jax.random.split(_own(key), giving))
        return Learner(super().init(key, env, ts), *own)

    def for_acting(self, learner: Learner) -> Learner:
        """The policy alone."""
        return Learner(super().for_acting(learner.policy), (), (), ())

    def act(self, env, learner, carry, ts, key, greedy=False):
        """As PPO."""
        return super().act(env, learner.policy, carry, ts, key, greedy)

    def bootstrap(self, env, learner, carry, ts):
        """[E, A] value of the state reached."""
        return super().bootstrap(env, learner.policy, carry, ts)

    def update(self, env, learner, batch, key):
        """Give, learn to act for what is left and received, then learn what others' actions are worth.

        Metrics beside PPO's: `weight/seat_I_to_J`, the mean share that seat I gives to J;
        `total_reward/seat_I`, mean reward a step after gifts; `total_equality`, of the sums of these over the
        rollout; losses `relation_policy`, `relation_value`, `perspective`.
        """
        if not num_learners(self._giving[1]):
            policy, metrics = super().update(env, learner.policy, batch, key)
            return learner.replace(policy=policy), metrics
        held, pool = _held(env, batch), self._pool(env, batch)
        value = self._values(env, learner, pool)
        weights = self._weights(env, learner, batch, pool, value)
        total = given(batch.reward, weights[..., held], gift_negative=self.gift_negative)
        policy, metrics = super().update(env, learner.policy, batch.replace(reward=total), key)
        own, found = self._relate(env, learner, batch, pool, value, _own(key))
        mean = weights.mean((0, 1))
        pairs = [(int(i), held[i], j) for i in self._giving[0] for j in range(env.num_agents)]
        metrics |= found | {f"weight/seat_{s}_to_{j}": mean[i, j] for i, s, j in pairs if s != j}
        metrics |= {f"total_reward/seat_{held[i]}": x for i, x in enumerate(total.mean((0, 1)))}
        metrics["total_equality"] = equality(total.sum(0)).mean()
        return learner.replace(policy=policy, **own), metrics

    def weights(self, env: Environment, learner: Learner, batch: Batch) -> Array:
        """[T, E, H, A] the share that each seat held gives to each in each step; rows sum to 1 (eq. 3)."""
        pool = self._pool(env, batch)
        return self._weights(env, learner, batch, pool, self._values(env, learner, pool))

    def _values(self, env: Environment, learner: Learner, pool: dict[str, Any]) -> Array:
        """[P, B, A-1, N] value of the joint action with an other's action replaced by each of its actions."""
        value = lambda *args: self._relation(env).apply(*args, method="alternatives")
        return jax.vmap(value)(learner.relation, pool["planes"], pool["joint"])

    def _weights(
        self, env: Environment, learner: Learner, batch: Batch, pool: dict[str, Any], value: Array
    ) -> Array:
        def one(relation: Any, perspective: Any, own: dict[str, Any], value: Array) -> Array:
            if self.perspective == "uniform":
                expected = jnp.full(value.shape, 1 / value.shape[-1])
            else:
                seen = own.get("others") or self._perspective(env).apply(perspective, own["planes"])
                expected = jax.nn.softmax(expected_of(self._relation(env), relation, seen))
            return shares(value, expected, own["joint"][:, 1:], flat=self.flat)

        share = jax.vmap(one)(learner.relation, learner.perspective, pool, value)  # [P, B, A-1]
        share = share.reshape(len(share), len(batch.done), -1, share.shape[-1])
        places, seats = self._giving
        share = to_seats(share, seats, 1)  # [T, E, G, A-1]
        is_seat = np.eye(env.num_agents, dtype=np.float32)[self._order(env, batch)]  # [G, A by offset, A]
        given_away = jnp.einsum("teid,idj->teij", share, is_seat[:, 1:])
        kept = (1 - share.sum(-1))[..., None] * is_seat[:, 0]
        all_kept = jnp.eye(env.num_agents)[np.array(_held(env, batch))]
        all_kept = jnp.broadcast_to(all_kept, (*batch.reward.shape, env.num_agents))
        return all_kept.at[:, :, places].set(given_away + kept)

    def _policy(self, env: Environment, learner: Any, out: Array, mask: Array | None) -> Distribution:
        """The policy mixed with all legal actions alike, in training."""
        pi = super()._policy(env, learner, out, mask)
        if not learner.opt_state:
            return pi
        gradients = optax.tree.get(learner.opt_state, "count").max()  # Adam's
        updates = gradients / (self.num_epochs * self.num_minibatches)
        done = jnp.minimum(updates / jnp.maximum(self.explore_updates, 1.0), 1.0)
        share = (1 - done) * self.explore_start + done * self.explore_end
        return pi.mixed(share, mask)

    def _relation(self, env: Environment) -> Relation:
        obs = jax.eval_shape(env.reset, jax.random.key(0))[1].obs
        num = sum(n - 1 for n in env.grid_codes) if "grid" in obs else 0
        torso = self.relation.clone(grid_codes=(2,) * num)
        return Relation(torso, self.relation_width, _num_actions(env), env.num_agents)

    def _perspective(self, env: Environment) -> Perspective:
        return Perspective(self.perspective_channels, tuple(self.perspective_widths), env.num_agents - 1)

    @property
    def _relation_optimizer(self) -> optax.GradientTransformation:
        rates = self.relation_policy_learning_rate, self.relation_value_learning_rate
        return relation_optimizer(*rates, self.perspective_learning_rate)

    @property
    def _giving(self) -> tuple[np.ndarray, Seats]:
        """Places of the seats held that give [G], and their learners, numbered anew."""
        places = np.arange(len(self.seats)) if self.givers is None else np.array(self.givers, int)
        learners = np.unique(np.array(self.seats)[places], return_inverse=True)[1]
        return places, tuple(int(learner) for learner in learners)

    def _order(self, env: Environment, batch: Batch) -> np.ndarray:
        """[G, A] seats by their offset from each that gives."""
        own = np.array(_held(env, batch))[self._giving[0]]
        return (own[:, None] + np.arange(env.num_agents)) % env.num_agents

    def _to_givers(self, x: Array) -> Array:
        """[T, E, G, ...] -> [P, T, E*K, ...]."""
        return to_learners(x, self._giving[1], 1)

    def _pool(self, env: Environment, batch: Batch) -> dict[str, Any]:
        """Steps as the learners that give see them, leaves [P, B, ...]; with "actual" also others' planes."""
        order, places = self._order(env, batch), self._giving[0]
        joint = batch.action if batch.joint is None else batch.joint
        own = {"obs": jax.tree.map(lambda x: x[:, :, places], batch.obs), "joint": joint[..., order]}
        if self.perspective == "actual":
            own["others"] = jax.tree.map(lambda x: x[:, :, order[:, 1:]], batch.obs)
        own = jax.tree.map(self._to_givers, own)
        own = jax.tree.map(lambda x: x.reshape(len(x), -1, *x.shape[3:]), own)
        expand = lambda obs: as_planes(obs, tuple(env.grid_codes))
        more = {"others": expand(own["others"])} if "others" in own else {}
        return {"planes": expand(own["obs"]), "joint": own["joint"]} | more

    def _relate(
        self, env: Environment, learner: Learner, batch: Batch, pool: dict[str, Any], value: Array, key: Array
    ) -> tuple[dict, dict]:
        """The relation's parameters after an update, and losses, means over learners that give."""
        places, steps = self._giving[0], len(batch.done)

        def in_time(x: Array) -> Array:  # [T, E, H] -> [P, T, E*K]
            return self._to_givers(jnp.broadcast_to(x, batch.reward.shape)[:, :, places])

        seen = {"reward": batch.reward, "over": batch.terminated[..., None], "cut": batch.done[..., None]}
        seen = {name: in_time(x) for name, x in seen.items()}
        played = in_time(batch.extras["log_prob"])

        relation, perspective = self._relation(env), self._perspective(env)
        perspective = perspective if self.perspective == "guessed" else None
        sizes = {"ent_coef": self.relation_ent_coef, "likeness": self.likeness}
        loss = lambda params, part: relation_loss(relation, perspective, params, part, **sizes)

        def one(
            params: Any, opt_state: Any, own: dict, value: Array, seen: dict, log_prob: Array, key: Array
        ) -> tuple:
            done = jnp.take_along_axis(value[:, 0], own["joint"][:, 1:2], axis=1)  # [B, 1], of what was done
            done = done.reshape(steps, -1)
            error, counts = td_errors(done, **seen, gamma=self.relation_gamma)
            data = {k: own[k] for k in ("planes", "joint")}
            data |= {"error": error, "target": done + error, "counts": counts, "log_prob": log_prob}
            data = {k: v if k in own else v.ravel() for k, v in data.items()}
            num = len(own["joint"])
            size = num // self.relation_minibatches
            size = min(size, self.relation_batch_size or size)
            order = jax.random.permutation(key, num)[: size * self.relation_minibatches]

            def step(now: tuple, index: Array) -> tuple[tuple, dict]:
                part = jax.tree.map(lambda x: x[index], data)
                grads, found = jax.grad(loss, has_aux=True)(now[0], part)
                updates, opt_state = self._relation_optimizer.update(grads, now[1], now[0])
                return (optax.apply_updates(now[0], updates), opt_state), found

            (params, opt_state), found = jax.lax.scan(step, (params, opt_state), order.reshape(-1, size))
            return params, opt_state, jax.tree.map(lambda x: x.mean(), found)

        keys = jax.random.split(key, len(value))
        params = {"relation": learner.relation, "perspective": learner.perspective}
        params, opt_state, found = jax.vmap(one)(params, learner.opt_state, pool, value, seen, played, keys)
        return params | {"opt_state": opt_state}, {name: x.mean() for name, x in found.items()}


def _held(env: Environment, batch: Batch) -> tuple[int, ...]:
    """[H] seats of the game that the batch is of."""
    return batch.held or tuple(range(env.num_agents))


def _num_actions(env: Environment) -> int:
    return int(env.action_space.n)  # type: ignore[attr-defined]


def _own(key: Array) -> Array:
    """The key of the relation's draws; PPO gets `key` itself, and so draws as it does alone."""
    return jax.random.fold_in(key, np.uint32(1 << 31))
