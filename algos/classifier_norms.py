"""Classifier Norm Model: learners that like to sanction what they believe the group disapproves of.

**Source**: Vinitsky, Koester, Agapiou, Duenez-Guzman, Vezhnevets, Leibo 2021, "A learning agent that acquires
social norms from public sanctions in decentralized multi-agent settings" (arXiv 2106.09012). An approximate
reproduction: the paper's text was not at hand, and weights, sample sizes and the time of freezing are those
that a later open implementation quotes, unverified.

Every learner has a classifier of its own: what a seat saw before a step in which it could have sanctioned
somebody -> the probability that it did. All learners' classifiers learn from the opportunities of all
seats, which are public. A seat that sanctions gets `accord_reward` if its classifier had said more than 1/2
of what it saw, else it loses `discord_cost`; no gradient flows into the classifier from there. The policy
sees [probability, 1 - probability] of what it sees now, beside the observation.

Deviations: the learners are PPO's, not actor-critics of many machines, and share nothing unless `seats` says
so; a sanction of somebody who was not in range before the moves earns or costs like others, but is no
opportunity to learn from. Axes: P learners, K seats a learner, T steps, E games, A seats, N steps of all
games and seats, B of them in a sample.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from algos.ppo import PPO
from marl.algorithm import Batch
from marl.environment import Environment, TimeStep, event_names
from marl.heads import PolicyNetwork
from marl.population import num_learners, to_learners, to_seats

COULD, DID = "could_zap", "zapped"  # events: an opportunity to sanction, and how many it hit


class Learner(struct.PyTreeNode):
    """What a learner knows; leaves have a leading axis P."""

    policy: Any  # of PPO
    classifier: Any  # parameters
    opt_state: Any  # of the classifier


class ClassifierNorms(PPO, kw_only=True):
    """PPO with a classifier of sanctions that rewards sanctions in accord with it."""

    accord_reward: Any  # [] reward units for a sanction that the own classifier expects (alpha)
    discord_cost: Any  # [] reward units lost by any other sanction (beta)
    classifier_learning_rate: Any  # [] Adam step size
    freeze_steps: Any  # [] environment steps after which classifiers learn no more
    classifier: Any = struct.field(pytree_node=False)  # torso without memory, see marl.networks
    classifier_steps: int = struct.field(pytree_node=False)  # gradient steps an update, one sample each
    num_disapprovals: int = struct.field(pytree_node=False)  # opportunities of a sample with a sanction
    num_approvals: int = struct.field(pytree_node=False)  # opportunities of a sample without
    public: bool = struct.field(pytree_node=False)  # False: a classifier learns from its own seats alone
    policy_sees: bool = struct.field(
        pytree_node=False
    )  # False: the policy is not told what the classifier says

    reads = (COULD, DID)

    def check(self, env: Environment) -> None:
        """Raise ValueError for a game without sanctions, a classifier with memory, or empty samples."""
        missing = sorted({COULD, DID} - set(event_names(env)))
        if missing:
            name = type(env).__name__
            raise ValueError(f"algo: {type(self).__name__} reads events {missing} that {name} does not tell")
        if self.classifier.carry_size:
            raise ValueError(f"algo.classifier.core={self.classifier.carry_size}: must be 0, without memory")
        for name in ("classifier_steps", "num_disapprovals", "num_approvals"):
            if getattr(self, name) < 1:
                raise ValueError(f"algo.{name}={getattr(self, name)}: must be at least 1")
        super().check(env)

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """P fresh learners with different initial weights."""
        obs, start = jax.tree.map(lambda x: x[None, :1, 0], ts.obs), jnp.zeros((1, 1), bool)
        keys = jax.random.split(_own(key), num_learners(self.seats))
        params = jax.vmap(lambda key: self._classifier(env).init(key, (), obs, start))(keys)
        shown = self._shown(ts, jnp.zeros(ts.reward.shape))
        policy = super().init(key, env, shown)
        return Learner(policy, params, jax.vmap(self._classifier_optimizer.init)(params))

    def for_acting(self, learner: Learner) -> Learner:
        """The parameters without the optimisers' states."""
        return learner.replace(policy=super().for_acting(learner.policy), opt_state=())

    def act(self, env, learner, carry, ts, key, greedy=False):
        """As PPO; also keeps `disapproval` [E, A], the probability of a sanction of what the seat sees."""
        said = self._disapproval(env, learner, ts.obs)
        action, carry, extras = super().act(env, learner.policy, carry, self._shown(ts, said), key, greedy)
        return action, carry, extras | {"disapproval": said}

    def bootstrap(self, env, learner, carry, ts):
        """[E, A] value of the state reached."""
        ts = self._shown(ts, self._disapproval(env, learner, ts.obs))
        return super().bootstrap(env, learner.policy, carry, ts)

    def update(self, env, learner, batch, key):
        """Learn to act for the rewards with what sanctions bring, then to classify.

        Metrics beside PPO's: `accord`, the share of sanctions that the own classifier expected, and those
        of the classifiers on opportunities that they have not learned from: `classifier`, the loss;
        `balanced_accuracy`, the mean of the shares of sanctions and of other opportunities that are told
        right (1/2 for a kind that there is not); `disapproval_rate`, the share of opportunities with a
        sanction.
        """
        policy, metrics = super().update(env, learner.policy, self._judged(env, learner, batch), key)
        did, could = batch.events[DID] > 0, batch.events[COULD] > 0
        agrees = batch.extras["disapproval"] > 0.5
        params, opt_state, found = self._classify(env, learner, batch, _own(key))
        metrics |= {name: x.mean() for name, x in found.items()}
        metrics["accord"] = _share(did & agrees, did)
        metrics["disapproval_rate"] = _share(did & could, could)
        return Learner(policy, params, opt_state), metrics

    def credits(self, env: Environment, learner: Learner, batch: Batch, learns: Array) -> Array:
        """As PPO, of rewards with what sanctions bring."""
        return super().credits(env, learner.policy, self._judged(env, learner, batch), learns)

    @property
    def _classifier_optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.classifier_learning_rate)

    def _classifier(self, env: Environment) -> PolicyNetwork:
        return PolicyNetwork(self.classifier.clone(grid_codes=tuple(env.grid_codes)), 1)

    def _logits(self, env: Environment, params: Any, obs: dict[str, Array]) -> Array:
        """[B] of one learner for what was seen, leaves [B, ...]."""
        obs = jax.tree.map(lambda x: x[None], obs)
        start = jnp.zeros(jax.tree.leaves(obs)[0].shape[:2], bool)
        return self._classifier(env).apply(params, (), obs, start)[1][0, :, 0]

    def _disapproval(self, env: Environment, learner: Learner, obs: dict[str, Array]) -> Array:
        """[E, A] probability of a sanction, by each seat's own classifier."""
        own = jax.tree.map(lambda x: to_learners(x, self.seats, 0), obs)
        logits = jax.vmap(lambda params, obs: self._logits(env, params, obs))(learner.classifier, own)
        return to_seats(jax.nn.sigmoid(logits), self.seats, 0)

    def _shown(self, seen: Any, disapproval: Array) -> Any:
        """A TimeStep or Batch whose observations tell the policy what its classifier says, [..., A]."""
        if not self.policy_sees:
            return seen
        said = jnp.stack([disapproval, 1 - disapproval], axis=-1)
        vector = seen.obs.get("vector")
        vector = said if vector is None else jnp.concatenate([vector, said], axis=-1)
        return seen.replace(obs=seen.obs | {"vector": vector})

    def _judged(self, env: Environment, learner: Learner, batch: Batch) -> Batch:
        """The batch as PPO learns from it: with what sanctions bring, and what classifiers said."""
        said, weights = batch.extras["disapproval"], (self.accord_reward, self.discord_cost)
        reward = batch.reward + pseudo_reward(batch.events[DID] > 0, said, *weights)
        last = self._shown(batch.last, self._disapproval(env, learner, batch.last.obs))
        return self._shown(batch, said).replace(reward=reward, last=last)

    def _classify(self, env: Environment, learner: Learner, batch: Batch, key: Array) -> tuple:
        """Parameters and optimisers' states after an update of the classifiers, and metrics [P]."""
        pool = {"obs": batch.obs, "could": batch.events[COULD] > 0, "did": batch.events[DID] > 0}
        if self.public:
            pool = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), pool)  # [N, ...]
        else:
            own = lambda x: to_learners(x, self.seats, 1)  # [P, T, E*K, ...]
            pool = jax.tree.map(lambda x: x.reshape(len(x), -1, *x.shape[3:]), jax.tree.map(own, pool))
        steps = batch.done.size  # environment steps of an update
        learn = lambda *args: self._learn_to_classify(env, steps, *args)
        axes = (0, 0, None if self.public else 0, 0)
        keys = jax.random.split(key, num_learners(self.seats))
        return jax.vmap(learn, in_axes=axes)(learner.classifier, learner.opt_state, pool, keys)

    def _learn_to_classify(
        self, env: Environment, steps: int, params: Any, opt_state: Any, pool: dict, key: Array
    ) -> tuple:
        """One learner's gradient steps on samples of the pool [N, ...]; the metrics are before the first."""
        played = optax.tree.get(opt_state, "count") / self.classifier_steps * steps
        learns = played < self.freeze_steps

        def loss_fn(params: Any, sample: tuple) -> tuple[Array, dict]:
            obs, did, weight = sample
            return sanction_loss(self._logits(env, params, obs), did, weight)

        def step(now: tuple, key: Array) -> tuple[tuple, dict]:
            params, opt_state = now
            index, did, weight = sampled(key, pool["could"], pool["did"], self._sizes)
            sample = jax.tree.map(lambda x: x[index], pool["obs"]), did, weight
            grads, found = jax.grad(loss_fn, has_aux=True)(params, sample)
            updates, opt_state = self._classifier_optimizer.update(grads, opt_state)
            new = optax.apply_updates(params, updates), opt_state
            return jax.tree.map(lambda new, old: jnp.where(learns, new, old), new, now), found

        now, found = jax.lax.scan(step, (params, opt_state), jax.random.split(key, self.classifier_steps))
        return *now, jax.tree.map(lambda x: x[0], found)

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.num_disapprovals, self.num_approvals


def pseudo_reward(
    did: Array, said: Array, accord_reward: float | Array, discord_cost: float | Array
) -> Array:
    """[...] reward units that sanctions bring: of who `did` sanction, by what its classifier had `said`."""
    return jnp.where(did, jnp.where(said > 0.5, accord_reward, -jnp.asarray(discord_cost)), 0.0)


def sampled(key: Array, could: Array, did: Array, sizes: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Opportunities drawn without replacement, sanctions and others apart.

    Args:
        key: of the draw.
        could, did: [N] bool, whether it was an opportunity, and whether it was used.
        sizes: of sanctions and of others; fewer where there are fewer.

    Returns:
        index [B], did [B] float32, weight [B] float32, 0 for what fills up the sample.
    """
    chance = jax.random.uniform(key, could.shape, minval=1e-6)
    parts = []
    for kind, size in zip((could & did, could & ~did), sizes, strict=True):
        score, index = jax.lax.top_k(jnp.where(kind, chance, 0.0), min(size, len(chance)))
        parts.append((index, score > 0))
    index, used = (jnp.concatenate(x) for x in zip(*parts, strict=True))
    is_sanction = np.arange(len(index)) < len(parts[0][0])
    return index, is_sanction.astype(np.float32), used.astype(jnp.float32)


def sanction_loss(logits: Array, did: Array, weight: Array) -> tuple[Array, dict[str, Array]]:
    """Binary cross-entropy of a sample, each [B], and the metrics `classifier` and `balanced_accuracy`."""
    loss = (weight * optax.sigmoid_binary_cross_entropy(logits, did)).sum() / jnp.maximum(weight.sum(), 1)
    right, counts = (logits > 0) == (did > 0.5), weight > 0
    kinds = [counts & (did > 0.5), counts & (did < 0.5)]
    shares = [_share(right & kind, kind, absent=0.5) for kind in kinds]
    return loss, {"classifier": loss, "balanced_accuracy": (shares[0] + shares[1]) / 2}


def _own(key: Array) -> Array:
    """The key of the classifiers' draws; PPO gets `key` itself, and so draws as it does alone."""
    return jax.random.fold_in(key, np.uint32(1 << 31))


def _share(part: Array, whole: Array, absent: float = 0.0) -> Array:
    """[] how much of `whole` is in `part`, both bool; `absent` where there is none."""
    num = whole.sum()
    return jnp.where(num > 0, part.sum() / jnp.maximum(num, 1), absent)
