"""Deep Q-learning with a target network and replay, feed-forward or recurrent, for any number of learners.

**Sources**: Mnih et al. 2015 (Nature 518); double Q-learning of van Hasselt, Guez, Silver 2016 (arXiv
1509.06461, eq. 4); duelling heads of Wang et al. 2016 (arXiv 1511.06581, eq. 9). Recurrent
networks replay whole rollouts from their stored state, with a burn-in, as R2D2 does
(Kapturowski et al. 2019). Deviations: many games fill the replay at once; Adam; no prioritised
replay, no n-step targets and no rescaled rewards. Axes: P learners, K seats a learner, T steps,
E games, B = E*K, M stages, N actions, H width of the recurrent state, G gradient steps, C
capacity and L length of what is replayed: 1 step, or T where the network is recurrent.
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

from algos.random_player import pick
from algos.replay import Replay, add, draw, empty, reached, take
from algos.td import CHOICES, epsilon_at, q_loss, q_optimizer, q_target
from marl.algorithm import Algorithm, Batch
from marl.environment import Environment, TimeStep
from marl.heads import QNetwork, initial_carry
from marl.population import Seats, each_learner, num_learners, to_learners, to_seats
from marl.validation import require_choices

PER_STAGE = ("learning_rate", "epsilon_start", "epsilon_end", "epsilon_steps")
MANY_STEPS = 1 << 30  # where the count of steps stands still, before it overflows


class Networks(struct.PyTreeNode):
    """What gradient steps change; leaves have leading axes P, M."""

    params: Any
    target: Any  # parameters that lag behind
    opt_state: Any


class Learner(struct.PyTreeNode):
    """What a Q-learner knows; leaves have a leading axis P."""

    networks: Networks
    replay: Replay
    num_steps: Array  # int32 environment steps over all games so far
    num_gradients: Array  # int32 gradient steps so far


class DQN(Algorithm):
    """Q-learning from uniform replay, epsilon-greedy.

    With `by_stage` a learner has a complete network, with an optimiser of its own, for each of
    the game's stages, and the fields in PER_STAGE may hold one value a stage. All of them see
    every step, so that recurrent ones remember all of it; each learns from the samples of its stage.
    """

    learning_rate: Any  # [1] or [M], Adam step size
    gamma: float  # discount
    epsilon_start: Any  # [1] or [M], probability of a random action at the beginning
    epsilon_end: Any  # [1] or [M], and later
    epsilon_steps: Any  # [1] or [M], environment steps over all games, see `algos.td`
    tau: float  # weight of the online network in an update of the target network, 1 = copy
    target_every: int  # gradient steps between updates of the target network
    learning_starts: int  # transitions in the replay before the first gradient step
    max_grad_norm: float  # gradients are scaled down to this norm
    epsilon_schedule: str = struct.field(pytree_node=False)  # see CHOICES of algos.td
    batch_size: int = struct.field(pytree_node=False)  # transitions, or sequences, of a gradient step
    buffer_size: int = struct.field(pytree_node=False)  # transitions that a learner keeps
    num_steps: int = struct.field(pytree_node=False)  # T
    num_updates: int = struct.field(pytree_node=False)  # G
    burn_in: int = struct.field(pytree_node=False)  # first steps of a sequence that only warm up the state
    loss: str = struct.field(pytree_node=False)  # likewise
    double: bool = struct.field(pytree_node=False)  # the online network chooses the next action
    dueling: bool = struct.field(pytree_node=False)  # heads for the state and for the actions
    by_stage: bool = struct.field(pytree_node=False)  # one network a stage
    network: Any = struct.field(pytree_node=False)  # torso, see marl.networks
    seats: Seats = struct.field(pytree_node=False)  # [A] learner of each seat
    max_grad_value: float | None = None  # of every number in a gradient, after the norm; None: no bound
    # only what a seat decided is kept and counted by epsilon_steps, in decisions of the learner
    decisions_only: bool = struct.field(pytree_node=False, default=False)
    optimizer: str = struct.field(pytree_node=False, default="adam")  # see CHOICES of algos.td

    def _net(self, env: Environment) -> QNetwork:
        torso = self.network.clone(grid_codes=tuple(env.grid_codes))
        return QNetwork(torso, int(env.action_space.n), self.dueling)

    def _optimizer(self, rate: Any) -> optax.GradientTransformation:
        return q_optimizer(rate, self.max_grad_norm, self.max_grad_value, self.optimizer)

    def _num_networks(self, env: Environment) -> int:
        return env.num_stages if self.by_stage else 1

    def check(self, env: Environment) -> None:
        """Raise ValueError for fields that do not fit each other, the game, or what the network can read."""
        if not isinstance(env.action_space, spaces.Discrete):
            raise ValueError(f"algo dqn needs Discrete actions, not {env.action_space}")
        require_choices(self, "algo", CHOICES)
        num = self._num_networks(env)
        for key in PER_STAGE:
            value = np.asarray(getattr(self, key))
            if value.size not in (1, num):
                wanted = "one number" if num == 1 else f"one number or {num}, one a stage"
                raise ValueError(f"algo.{key}={[float(str(x)) for x in value]}: must be {wanted}")
        if self.learning_starts > self.buffer_size:
            limit = f"must be at most algo.buffer_size={self.buffer_size}"
            raise ValueError(f"algo.learning_starts={self.learning_starts}: {limit}")
        if not 0 <= self.burn_in < self.num_steps:
            limit = f"at least 0 and below algo.num_steps={self.num_steps}"
            raise ValueError(f"algo.burn_in={self.burn_in}: must be {limit}")
        if self.decisions_only and self.network.core:
            raise ValueError("algo.decisions_only=true: needs a feed-forward network, network.core=0")
        ts = jax.eval_shape(env.reset, jax.random.key(0))[1]
        games = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), ts)
        jax.eval_shape(lambda key, ts: self.init(key, env, ts), jax.random.key(0), games)

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """P fresh learners with different initial weights and an empty replay.

        The replay holds `buffer_size` transitions, rounded down to whole rollouts, but at least one.
        """
        net, num = self._net(env), self._num_networks(env)
        obs = jax.tree.map(lambda x: x[None, :1, 0], ts.obs)  # [T=1, B=1, ...]
        length = self.num_steps if net.carry_size else 1
        share = ts.reward.size // num_learners(self.seats)  # B
        num_items = share * self.num_steps // length  # of a rollout
        capacity = max(1, self.buffer_size // (num_items * length)) * num_items
        mask = None if env.all_legal else ts.action_mask[0, 0]
        seen, no = jax.tree.map(lambda x: x[0, 0], obs), jnp.bool_(False)
        item = {"obs": seen, "action": jnp.int32(0), "reward": jnp.float32(0), "terminated": no}
        item |= {"next_obs": seen, "next_mask": mask} | ({"start": no} if net.carry_size else {})
        item = jax.tree.map(lambda x: jnp.broadcast_to(x, (length, *x.shape)), item)
        item["carry"] = initial_carry(net, (num,))

        def one(key: Array) -> Learner:
            fresh = lambda key: net.init(key, initial_carry(net, (1,)), obs, jnp.zeros((1, 1), bool))
            params = jax.vmap(fresh)(jax.random.split(key, num))
            opt_state = jax.vmap(self._optimizer(0.0).init)(params)
            networks = Networks(params, jax.tree.map(jnp.copy, params), opt_state)
            return Learner(networks, empty(item, capacity), jnp.int32(0), jnp.int32(0))

        return jax.vmap(one)(jax.random.split(key, num_learners(self.seats)))

    def for_acting(self, learner: Learner) -> Learner:
        """The online networks and the count of steps, on which epsilon depends."""
        networks = Networks(learner.networks.params, (), ())
        return learner.replace(networks=networks, replay=(), num_gradients=())

    def initial_carry(self, env: Environment, ts: TimeStep) -> Any:
        """[E, A, M, H] zeros, or () for feed-forward networks."""
        return initial_carry(self._net(env), (*ts.reward.shape, self._num_networks(env)))

    def epsilon(self, num_steps: Array) -> Array:
        """[], [1] or [M] probability of a random action after `num_steps` [] environment steps."""
        numbers = (self.epsilon_start, self.epsilon_end, self.epsilon_steps)
        return epsilon_at(num_steps, *numbers, self.epsilon_schedule)

    def _values(self, env: Environment, params: Any, carry: Any, obs: dict, start: Array) -> tuple:
        """Of one learner: carries after every step [T, B, M, H], values [T, B, N] of the stage that is on.

        `carry` [B, M, H] is the one before the first step; obs [T, B, ...]; start [T, B] bool.
        """
        net, carry = self._net(env), jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), carry)
        if self._num_networks(env) == 1:  # as a batch of one its products would take longer
            carries, q = net.apply(*jax.tree.map(lambda x: x[0], (params, carry)), obs, start)
            return jax.tree.map(lambda x: x[:, :, None], carries), q
        carries, q = jax.vmap(net.apply, in_axes=(0, 0, None, None))(params, carry, obs, start)
        carries = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), carries)  # of [M, T, B, ...]
        is_on = obs["stage"] == np.arange(q.shape[0])[:, None, None]
        return carries, jnp.where(is_on[..., None], q, 0.0).sum(0)

    def act(self, env, learner, carry, ts, key, greedy=False):
        """The best legal action, or with probability epsilon any; keeps the value of the best [E, A]."""
        carry, obs = jax.tree.map(lambda x: to_learners(x, self.seats, 0), (carry, ts.obs))
        num = self._num_networks(env)

        def one(params: Any, num_steps: Array, carry: Any, obs: dict) -> tuple:
            start = jnp.zeros((1, jax.tree.leaves(obs)[0].shape[0]), bool)
            carry, q = self._values(env, params, carry, jax.tree.map(lambda x: x[None], obs), start)
            epsilon = jnp.broadcast_to(self.epsilon(num_steps), (num,))
            stage = obs["stage"] if num > 1 else jnp.zeros(q.shape[1], jnp.int32)
            return jax.tree.map(lambda x: x[0], carry), q[0], epsilon[stage]

        out = jax.vmap(one)(learner.networks.params, learner.num_steps, carry, obs)
        carry, q, epsilon = jax.tree.map(lambda x: to_seats(x, self.seats, 0), out)
        q = jnp.where(ts.action_mask, q, jnp.finfo(q.dtype).min)
        action = q.argmax(-1).astype(jnp.int32)
        if not greedy:
            u = jax.random.uniform(key, (2, *action.shape))
            action = jnp.where(u[0] < epsilon, pick(ts.action_mask, u[1]), action)
        return action, carry, {"value": q.max(-1)}

    def bootstrap(self, env, learner, carry, ts):
        """What is seen and legal in the state reached, [E, A, ...]."""
        return ts.obs, (None if env.all_legal else ts.action_mask)

    def update(self, env, learner, batch, key):
        """Store the batch and take G gradient steps; metrics are means over learners and steps."""
        items, num, keep = self._items(env, batch), num_learners(self.seats), None
        steps = jnp.full(num, batch.done.size)
        if self.decisions_only:
            keep = to_learners(batch.action_mask.sum(-1) > 1, self.seats, 1).reshape(num, -1)
            steps = keep.sum(1, dtype=jnp.int32)
        replay = jax.vmap(add)(learner.replay, items, keep)
        taken = lambda *x: take(x[0], draw(*x, (self.num_updates, self.batch_size)))
        taken = jax.vmap(taken)(replay, jax.random.split(key, num))  # [P, G, batch_size, L, ...]
        descend = lambda *x: self._descend(env, *x)
        now = learner.networks, learner.num_gradients, taken
        networks, metrics = each_learner(descend, now, convolves=self.network.needs_grid)
        # no branch, of which both sides would be computed under vmap: the first steps are taken back
        length = items["reward"].shape[2]
        full = lambda replay: replay.size >= jnp.minimum(self.learning_starts / length, replay.capacity)
        ready = jax.vmap(full)(replay)
        keep_old = jax.vmap(lambda ready, *x: jax.tree.map(lambda *y: jnp.where(ready, *y), *x))
        metrics["epsilon"] = jax.vmap(self.epsilon)(learner.num_steps)
        learner = Learner(
            networks=keep_old(ready, networks, learner.networks),
            replay=replay,
            num_steps=jnp.minimum(learner.num_steps, MANY_STEPS) + steps,
            num_gradients=learner.num_gradients + ready * self.num_updates,
        )
        return learner, {k: v.mean() for k, v in metrics.items()} | {"value": batch.extras["value"].mean()}

    def _items(self, env: Environment, batch: Batch) -> dict:
        """What a rollout adds to each learner's replay: leaves [P, n, L, ...]; carry [P, n, M, H]."""
        mask, last_mask = batch.action_mask, batch.last.action_mask
        if env.all_legal:
            mask, last_mask = None, None
        now, last = (batch.obs, mask), (batch.last.obs, last_mask)
        next_obs, next_mask = reached(now, last, batch.bootstrap, batch.done)
        everyone = lambda x: jnp.broadcast_to(x if x.ndim == 3 else x[..., None], batch.reward.shape)
        data = {"obs": batch.obs, "action": batch.action, "reward": batch.reward}
        data |= {"terminated": everyone(batch.terminated), "next_obs": next_obs, "next_mask": next_mask}
        if not self._net(env).carry_size:
            data = jax.tree.map(lambda x: to_learners(x, self.seats, 1), data)
            return jax.tree.map(lambda x: x.reshape(x.shape[0], -1, 1, *x.shape[3:]), data) | {"carry": ()}
        if batch.reward.shape[0] != self.num_steps:
            raise ValueError(f"algo.num_steps={self.num_steps}: rollouts have {batch.reward.shape[0]} steps")
        data["start"] = everyone(batch.start)
        data = jax.tree.map(lambda x: jnp.moveaxis(to_learners(x, self.seats, 1), 1, 2), data)
        return data | {"carry": to_learners(batch.carry, self.seats, 0)}

    def _descend(self, env: Environment, networks: Networks, num_gradients: Array, taken: dict) -> tuple:
        """One learner's gradient steps, on items [G, batch_size, L, ...]; metrics [G]."""

        def step(networks: Networks, now: tuple) -> tuple[Networks, dict]:
            return self._gradient_step(env, networks, *now)

        number = num_gradients + 1 + jnp.arange(self.num_updates)
        return jax.lax.scan(step, networks, (taken, number))

    def _gradient_step(self, env: Environment, networks: Networks, items: dict, number: Array) -> tuple:
        """Step `number` of one learner, on items [B, L, ...]; each network has its own optimiser."""
        loss = lambda params: self._loss(env, params, networks.target, items)
        grads, metrics = jax.grad(loss, has_aux=True)(networks.params)

        def descend(rate: Array, grads: Any, opt_state: Any, params: Any) -> tuple:
            updates, opt_state = self._optimizer(rate).update(grads, opt_state)
            return optax.apply_updates(params, updates), opt_state

        rate = jnp.broadcast_to(jnp.asarray(self.learning_rate, jnp.float32), self._num_networks(env))
        params, opt_state = jax.vmap(descend)(rate, grads, networks.opt_state, networks.params)
        weight = jnp.where(number % self.target_every == 0, jnp.float32(self.tau), 0.0)
        follow = lambda online, target: weight * online + (1 - weight) * target
        target = jax.tree.map(follow, params, networks.target)
        return Networks(params, target, opt_state), metrics | {"grad_norm": optax.tree.norm(grads)}

    def _loss(self, env: Environment, params: Any, target: Any, items: dict) -> tuple[Array, dict]:
        """Loss and metrics of one learner on items [B, L, ...]."""
        carry = items["carry"]
        time_first = lambda x: jnp.moveaxis(x, 1, 0)
        data = jax.tree.map(time_first, {k: v for k, v in items.items() if k != "carry"})  # [L, B, ...]
        data["start"] = data.get("start", jnp.zeros_like(data["terminated"]))
        early = jax.tree.map(lambda x: x[: self.burn_in], data)
        data = jax.tree.map(lambda x: x[self.burn_in :], data) if jax.tree.leaves(carry) else data

        def unroll(params: Any) -> tuple:
            now = carry
            if self.burn_in and jax.tree.leaves(carry):
                carries, _ = self._values(env, params, carry, early["obs"], early["start"])
                now = jax.lax.stop_gradient(jax.tree.map(lambda x: x[-1], carries))
            return self._values(env, params, now, data["obs"], data["start"])

        def look_ahead(params: Any, carries: Any) -> Array:  # values of the states reached, [L, B, N]
            shape = data["reward"].shape
            carries = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), carries)
            obs = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), data["next_obs"])
            _, q = self._values(env, params, carries, obs, jnp.zeros((1, shape[0] * shape[1]), bool))
            return q.reshape(*shape, -1)

        carries, q = unroll(params)
        next_q = look_ahead(target, unroll(target)[0])
        chooser = look_ahead(params, carries) if self.double else next_q
        reached = (data["next_mask"], data["reward"], data["terminated"])
        goal = jax.lax.stop_gradient(q_target(chooser, next_q, *reached, gamma=self.gamma))
        return q_loss(q, data["action"], goal, kind=self.loss)
