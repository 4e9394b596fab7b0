"""LOLA with DiCE: each of two players differentiates its return through the other's learning step.

**Sources**: Foerster, Chen, Al-Shedivat, Whiteson, Abbeel, Mordatch 2018 (arXiv 1709.04326): player 1
climbs J1(theta1, theta2 + eta grad_theta2 J2(theta1, theta2)) in theta1, and player 2 likewise.
Foerster, Farquhar, Al-Shedivat, Rocktaeschel, Xing, Whiteson 2018 (arXiv 1802.05098): the objectives
that stand for J1 and J2, and fresh games for every gradient. Mao, Foerster, Rocktaeschel,
Al-Shedivat, Farquhar, Whiteson 2019 (ICML): a baseline for derivatives of any order.
Deviations, the first two as in the public port LOLA_DiCE of A. Jacq: the outer step is Adam's, the
inner one plain gradient ascent; both players learn at the same time. The critic learns discounted
returns (in that port: the reward of the step), and a player's return is that of one episode: what
would follow its horizon counts nothing. Each player knows the other's parameters and critic.
Axes: A = 2 players, one a seat; T steps of an episode; G simulated games; N actions.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from marl.algorithm import Algorithm, Batch
from marl.distributions import Distribution, distribution, num_params
from marl.environment import Environment, TimeStep
from marl.heads import ActorCritic, initial_carry
from marl.learner import rollout, start
from marl.population import Seats
from marl.returns import discounted_sum

BASELINES = ("none", "first_order", "any_order")


class Learner(struct.PyTreeNode):
    """What both players know; leaves have a leading axis A."""

    params: Any
    opt_state: Any


class LOLA(Algorithm):
    """Learning with opponent-learning awareness, for two players.

    An update simulates its own episodes: for each player `num_inner_steps` times G games in which
    the other's steps are imagined, then G games against the other as it would be. The loop's
    batch is not learnt from, it only shows how the players do. `inner_learning_rate` 0 is the
    naive learner: a plain policy gradient.
    """

    learning_rate: float  # Adam step size of the policies
    critic_learning_rate: float  # Adam step size of the critics
    inner_learning_rate: float  # eta, step size of the other's imagined gradient steps
    gamma: float  # discount
    baseline: str = struct.field(pytree_node=False)  # one of BASELINES
    num_inner_steps: int = struct.field(pytree_node=False)  # imagined steps of the other
    num_games: int = struct.field(pytree_node=False)  # G
    num_steps: int = struct.field(pytree_node=False)  # length of the loop's rollout
    network: Any = struct.field(pytree_node=False)  # torso of the policy and of the critic, see marl.networks
    seats: Seats = struct.field(pytree_node=False)  # (0, 1) to learn

    def _net(self, env: Environment) -> ActorCritic:
        torso = self.network.clone(grid_codes=tuple(env.grid_codes))
        return ActorCritic(torso, torso.clone(), num_params(env.action_space))

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        steps = {"policy": optax.adam(self.learning_rate), "critic": optax.adam(self.critic_learning_rate)}
        part = lambda name: "critic" if name.startswith("critic") else "policy"
        return optax.multi_transform(steps, lambda params: {"params": {k: part(k) for k in params["params"]}})

    def check(self, env: Environment) -> None:
        """Raise ValueError for other games than those of two seats and fixed length, or bad fields."""
        if env.num_agents != 2:
            raise ValueError(f"algo lola: is for games of 2 seats, not {env.num_agents}")
        self._require_both_seats()
        if not env.fixed_horizon:
            raise ValueError("algo lola: needs a game whose episodes have a fixed length (a horizon)")
        if self.baseline not in BASELINES:
            raise ValueError(f"algo.baseline={self.baseline}: must be one of {', '.join(BASELINES)}")
        jax.eval_shape(lambda key: start(self, env, key, 1), jax.random.key(0))

    def _require_both_seats(self) -> None:
        if self.seats != (0, 1):
            raise ValueError(
                f"seats={list(self.seats)}: algo lola needs seats=independent, a learner in each of both "
                "seats, and past=null"
            )

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """Two fresh players with different initial weights.

        Raises:
            ValueError: unless each of the two seats has a learner of its own.
        """
        self._require_both_seats()
        net = self._net(env)
        obs = jax.tree.map(lambda x: x[None, :1, 0], ts.obs)  # [T=1, B=1, ...]

        def one(key: Array) -> Learner:
            params = net.init(key, initial_carry(net, (1,)), obs, jnp.zeros((1, 1), bool))
            return Learner(params, self._optimizer.init(params))

        return jax.vmap(one)(jax.random.split(key, 2))

    def for_acting(self, learner: Learner) -> Learner:
        """The parameters without the optimiser's state."""
        return learner.replace(opt_state=())

    def initial_carry(self, env: Environment, ts: TimeStep) -> Any:
        """[E, A, H] zeros, or () for feed-forward networks."""
        return initial_carry(self._net(env), ts.reward.shape)

    def _forward(
        self, env: Environment, params: Any, carry: Any, obs: dict, mask: Array | None
    ) -> tuple[Any, Distribution, Array]:
        """All seats: carry [E, A, H], distribution over [T, E, A], value [T, E, A].

        `params` are in the order of the seats, leaves [A, ...]; obs [T, E, A, ...], mask [T, E, A, N].
        """
        net = self._net(env)

        def one(params: Any, carry: Any, obs: dict) -> tuple:
            return net.apply(params, carry, obs, jnp.zeros(jax.tree.leaves(obs)[0].shape[:2], bool))

        carry, out, value = jax.vmap(one, in_axes=(0, 1, 2), out_axes=(1, 2, 2))(params, carry, obs)
        return carry, distribution(env.action_space, out, None if env.all_legal else mask), value

    def act(self, env, learner, carry, ts, key, greedy=False):
        """Sample (or take the mode of) the policies; keeps nothing."""
        params = learner.params
        if self.seats != (0, 1):  # frozen, in other seats
            params = jax.tree.map(lambda x: x[np.asarray(self.seats)], params)
        obs, mask = jax.tree.map(lambda x: x[None], (ts.obs, ts.action_mask))
        carry, pi, _ = self._forward(env, params, carry, obs, mask)
        return (pi.mode() if greedy else pi.sample(key))[0], carry, ()

    def update(self, env, learner, batch, key):
        """Both players take one step at the same time; metrics are means over them."""
        other = jax.tree.map(lambda x: x[::-1], learner.params)
        learn = functools.partial(self._learn, env)
        learner, metrics = jax.vmap(learn)(learner, other, jnp.arange(2), jax.random.split(key, 2))
        return learner, {k: v.mean() for k, v in metrics.items()}

    def _learn(self, env: Environment, learner: Learner, other: Any, seat: Array, key: Array) -> tuple:
        """One player's step; `seat` [] is its own, `other` the parameters of the other player."""
        loss_fn = functools.partial(self.loss, env, other=other, seat=seat, key=key)
        grads, metrics = jax.grad(loss_fn, has_aux=True)(learner.params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        updates, opt_state = self._optimizer.update(grads, learner.opt_state)
        return Learner(optax.apply_updates(learner.params, updates), opt_state), metrics

    def loss(self, env: Environment, own: Any, other: Any, seat: Array, key: Array) -> tuple[Array, dict]:
        """Minus the return against the other after its imagined steps, plus the critic's error.

        Args:
            env: the game.
            own: parameters of the player in seat `seat` []; other: those of the other player.
            seat: [] int, 0 or 1.
            key: all randomness of the simulated games.

        Returns:
            loss [], and scalar metrics.
        """
        inner_key, outer_key = jax.random.split(key)
        imagined = self.lookahead(env, own, other, seat, inner_key)
        both = _in_seats(own, imagined, seat)
        batch = self.simulate(env, both, outer_key)
        objective, value = self.objective(env, both, batch, seat)
        reward = jnp.take(batch.reward, seat, axis=-1)
        target = discounted_sum(reward, batch.done, jnp.zeros_like(reward[0]), gamma=self.gamma)
        value_error = 0.5 * jnp.square(value - target).mean()
        moved = jax.tree.map(jnp.subtract, imagined, other)
        metrics = {"objective": objective, "value_error": value_error, "inner_step": optax.tree.norm(moved)}
        return value_error - objective, metrics

    def lookahead(self, env: Environment, own: Any, other: Any, seat: Array, key: Array) -> Any:
        """The other's parameters after its imagined gradient steps, a function of `own`; as in `loss`."""

        def step(other: Any, key: Array) -> tuple[Any, None]:
            batch = self.simulate(env, _in_seats(own, other, seat), key)
            climb = lambda other: self.objective(env, _in_seats(own, other, seat), batch, 1 - seat)[0]
            move = lambda x, gradient: x + self.inner_learning_rate * gradient
            return jax.tree.map(move, other, jax.grad(climb)(other)), None

        return jax.lax.scan(step, other, jax.random.split(key, self.num_inner_steps))[0]

    def simulate(self, env: Environment, both: Any, key: Array) -> Batch:
        """One episode of G fresh games, leaves [T, G, A, ...]; nothing of it is differentiated.

        `both` are the players' parameters in the order of the seats, leaves [A, ...].
        """
        start_key, play_key = jax.random.split(key)
        runner = start(self, env, start_key, self.num_games)
        runner = runner.replace(learner=Learner(jax.lax.stop_gradient(both), ()))
        return rollout(self, env, runner, play_key, 0, env.fixed_horizon)[1]

    def objective(self, env: Environment, both: Any, batch: Batch, seat: Array) -> tuple[Array, Array]:
        """The DiCE objective [] of the player in `seat` [], and what its critic says, [T, G]."""
        _, pi, value = self._forward(env, both, batch.carry, batch.obs, batch.action_mask)
        log_prob = pi.log_prob(batch.action).sum(-1)
        reward, value = (jnp.take(x, seat, axis=-1) for x in (batch.reward, value))
        return dice_objective(log_prob, reward, value, gamma=self.gamma, baseline=self.baseline), value


def magic_box(x: Array) -> Array:
    """[...] ones whose derivatives of any order are those of exp(x) (arXiv 1802.05098)."""
    return jnp.exp(x - jax.lax.stop_gradient(x))


def dice_objective(
    log_prob: Array, reward: Array, value: Array, *, gamma: float | Array, baseline: str
) -> Array:
    """Mean discounted return; its derivatives estimate those of the expected return.

    sum_t gamma^t box(L_t) r_t + sum_t gamma^t (1 - box(l_t)) V_t, where l_t is the log-probability
    of what was done in step t and L_t = l_0 + ... + l_t (arXiv 1802.05098). The
    second sum is 0 and lowers the variance of first derivatives. With `any_order` its terms are
    multiplied by box(L_(t-1)), so that every return in a higher derivative has its V taken off too.

    Args:
        log_prob: [T, G] of the actions of a step, summed over both players.
        reward: [T, G] of the player whose return it is; value: [T, G] what is expected of it from
            step t on, taken as constant.
        gamma: discount; baseline: one of BASELINES.

    Returns:
        [] mean over the G games.
    """
    discount = gamma ** jnp.arange(reward.shape[0], dtype=jnp.float32)[:, None]
    past = jnp.cumsum(log_prob, axis=0)
    terms = magic_box(past) * reward
    if baseline != "none":
        node = 1.0 - magic_box(log_prob)
        node = node * magic_box(past - log_prob) if baseline == "any_order" else node
        terms += node * jax.lax.stop_gradient(value)
    return (discount * terms).sum(0).mean()


def _in_seats(own: Any, other: Any, seat: Array) -> Any:
    """Parameters of both players in the order of the seats, leaves [A, ...]."""
    order = (jnp.arange(2) + seat) % 2  # of (own, other): 0 1 or 1 0
    return jax.tree.map(lambda own, other: jnp.stack([own, other])[order], own, other)
