"""Learning beside frozen predecessors: what they would do now is seen in the slots of a game.

**Source**: the inner loop of algorithm 3 of Cook et al. 2024 (arXiv 2406.00392): nothing is learned from
predecessors but by reward. A game for this has, like `envs.demonstrated_game`, `demonstrators`,
`show(obs, action)` and `alone(obs, flag)`. Axes: E games, A seats, M predecessors.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import struct
from jax import Array

from marl.algorithm import AlgorithmWrapper
from marl.environment import Environment, TimeStep


class Learner(struct.PyTreeNode):
    """Who learns, and who is seen."""

    current: Any  # of the algorithm inside
    past: Any  # what M such learners need to act, leaves [M, ...]


class Carry(struct.PyTreeNode):
    """Recurrent states; all zeros at the start of an episode."""

    current: Any  # leaves [E, A, ...]
    past: Any  # leaves [E, A, M, ...]


class Predecessors(AlgorithmWrapper):
    """`algo` learning in a game whose demonstrators are learners of the same kind.

    A predecessor sees what the learner sees without demonstrators, and `flag` where it is told whether there
    are any; its recurrent state begins anew with each episode. `init` makes untrained predecessors.
    """

    flag: Any  # [] 1 in the source's code, where predecessors are told that they see somebody

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """A fresh learner and M fresh predecessors."""
        own_key, past_key = jax.random.split(key)
        keys = jax.random.split(past_key, env.demonstrators)
        past = jax.vmap(lambda key: self.algo.init(key, env, ts))(keys)
        return Learner(self.algo.init(own_key, env, ts), self.algo.for_acting(past))

    def for_acting(self, learner: Learner) -> Learner:
        """What the learner needs, and the predecessors."""
        return learner.replace(current=self.algo.for_acting(learner.current))

    def initial_carry(self, env: Environment, ts: TimeStep) -> Carry:
        """Of the learner and of each predecessor."""
        one = self.algo.initial_carry(env, ts)
        many = jax.tree.map(lambda x: x[:, :, None].repeat(env.demonstrators, 2), one)
        return Carry(one, many)

    def _see(
        self, env: Environment, learner: Learner, carry: Carry, ts: TimeStep, key: Array
    ) -> tuple[TimeStep, Any]:
        """`ts` with what predecessors would do in its slots, and their new carry."""
        own = ts.replace(obs=env.alone(ts.obs, self.flag))
        act = lambda learner, carry, key: self.algo.act(env, learner, carry, own, key)[:2]
        keys = jax.random.split(key, env.demonstrators)
        action, past = jax.vmap(act, in_axes=(0, 2, 0), out_axes=2)(learner.past, carry.past, keys)
        return ts.replace(obs=env.show(ts.obs, action)), past

    def act(self, env, learner, carry, ts, key, greedy=False):
        """The learner's action; what it saw is put aside for `update`."""
        see_key, key = jax.random.split(key)
        ts, past = self._see(env, learner, carry, ts, see_key)
        action, current, extras = self.algo.act(env, learner.current, carry.current, ts, key, greedy)
        return action, Carry(current, past), {"own": extras, "obs": ts.obs}

    def bootstrap(self, env, learner, carry, ts):
        """As the algorithm inside, of a state in which nobody is seen."""
        ts = ts.replace(obs=env.alone(ts.obs))
        return self.algo.bootstrap(env, learner.current, carry.current, ts)

    def update(self, env, learner, batch, key):
        """The algorithm inside learns from what was seen."""
        see_key, key = jax.random.split(key)
        batch = batch.replace(
            obs=batch.extras["obs"],
            extras=batch.extras["own"],
            carry=batch.carry.current,
            last=self._see(env, learner, batch.last_carry, batch.last, see_key)[0],
            last_carry=batch.last_carry.current,
        )
        current, metrics = self.algo.update(env, learner.current, batch, key)
        return learner.replace(current=current), metrics
