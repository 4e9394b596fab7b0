"""Deep Q-learning with a network for each seat and stage, and a gradient step after each decision.

**Source**: the learners of Dasgupta and Musolesi 2023 (arXiv 2301.08278), rules and numbers as their code
has them, after Mnih et al. 2015 (Nature 518). Made for games of several stages in rounds (`envs.population`).

An update is one round. After it learn, in this order: the host's selection, from what the host earned
in the round (see `choice_learns`); both players' moves; the punishers' decisions. Every decision becomes one
transition in its seat's replay of the stage, followed by one gradient step of that network as soon as
`batch_size` transitions are there. A decision to punish earns what the punisher gets in its own step, and
leads back to where it was made. A move earns everything else of the round, payoffs and fines, and leads to
the same pair after the round. Nothing is terminal unless `ends`.

Quirks of the source, each a field: values bootstrap beyond a turn's last round (`ends` false); exploration
falls by a fraction of its whole range at every gradient step (`epsilon_decay`) and is at its floor after
four; the whole history is replayed, without bound; in the centipede game a move earns the running total of
its turn (`reward: total`) and a selection learns once a turn (`choice_learns: turn`). Inputs are raw numbers.
Weights and biases start uniform within 1 / sqrt(inputs), PyTorch's default.

Deviations: batches are drawn with replacement. A stage that sees only last moves evaluates its network
once on each of the few inputs there are, which changes nothing but the time. Axes: A seats, M stages, D seats
that learn at once, B batch, W row of the replay, F features, H hidden units, N actions, C capacity, P
parameters.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from algos.random_player import pick
from algos.td import q_loss, q_target
from marl.algorithm import Algorithm, Batch
from marl.environment import Environment, TimeStep
from marl.population import Seats
from marl.returns import align
from marl.validation import require_choices

REWARDS, LEARNS = ("increment", "total"), ("round", "turn")
STAGES = ("selection", "move", "judgement")
JUDGE = 2  # the stage whose decisions lead back to where they were made
PER_STAGE = ("learning_rate", "epsilon_start", "epsilon_end", "epsilon_decay", "buffer_size")


class Net(struct.PyTreeNode):
    """One stage's networks and what they learn from; leaves [A, ...]."""

    params: Array  # [A, P], in the order of `q_values`
    target: Array  # [A, P] parameters that lag behind
    opt_state: Any
    epsilon: Array  # [A] probability of a random decision
    num_gradients: Array  # [A] int32
    replay: Array  # [A, C + some, W] float32: seen, action, reward, terminal, and seen next; spare rows
    size: Array  # [A] int32 transitions so far


class Learner(struct.PyTreeNode):
    """What all seats know; leaves have a leading axis A."""

    nets: tuple[Net | None, ...]  # one a stage, None where nothing is decided
    seen: Array  # [A, F] what a seat saw when it last chose
    chose: Array  # [A] float32 its choice
    earned: Array  # [A] float32 in this turn


class StageDQN(Algorithm):
    """Independent epsilon-greedy Q-learners, each with a network of one hidden layer a stage."""

    learning_rate: Any  # [M] Adam step size
    gamma: float  # discount
    epsilon_start: Any  # [M] probability of a random decision at first
    epsilon_end: Any  # [M] and at last
    epsilon_decay: Any  # [M] share of the range between them that a gradient step takes away
    target_every: int  # gradient steps between copies to the target network
    buffer_size: tuple[int, ...] = struct.field(pytree_node=False)  # [M] transitions C
    batch_size: int = struct.field(pytree_node=False)  # B
    hidden: int = struct.field(pytree_node=False)  # H
    ends: bool = struct.field(pytree_node=False)  # the last move of a turn is terminal
    reward: str = struct.field(pytree_node=False)  # of a move, one of REWARDS
    choice_learns: str = struct.field(pytree_node=False)  # after each of LEARNS
    num_steps: int = struct.field(pytree_node=False)  # of a round
    seats: Seats = struct.field(pytree_node=False)  # [A] independent

    max_envs = 1  # a society learns between its rounds

    def check(self, env: Environment) -> None:
        """Raise ValueError for a game without rounds of stages, or fields that do not fit it."""
        if not hasattr(env, "round_stages"):
            raise ValueError(f"algo stage_dqn needs a game of rounds and stages, not {type(env).__name__}")
        if self.num_steps != len(env.round_stages):
            raise ValueError(
                f"algo.num_steps={self.num_steps}: must be {len(env.round_stages)}, a round's steps"
            )
        if self.seats != tuple(range(env.num_agents)):
            raise ValueError("seats: stage_dqn learns for each seat alone; use independent")
        require_choices(self, "algo", {"reward": REWARDS, "choice_learns": LEARNS})
        for key in PER_STAGE:
            if np.size(getattr(self, key)) < env.num_stages:
                raise ValueError(f"algo.{key}: must hold {env.num_stages} numbers, one a stage")

    def init(self, key: Array, env: Environment, ts: TimeStep) -> Learner:
        """Fresh networks for all seats and stages."""
        keys = jax.random.split(key, env.num_stages)
        nets = tuple(self._fresh(keys[i], env, i) if n else None for i, n in enumerate(env.stage_actions))
        num, first = env.num_agents, env.stage_columns[0]
        return Learner(nets, jnp.zeros((num, first[1] - first[0])), jnp.zeros(num), jnp.zeros(num))

    def _sizes(self, env: Environment, stage: int) -> tuple[int, int, int]:
        """Inputs, hidden units and outputs of a stage's network."""
        start, stop = env.stage_columns[stage]
        return stop - start, self.hidden, env.stage_actions[stage]

    def _fresh(self, key: Array, env: Environment, stage: int) -> Net:
        num, (inputs, hidden, outputs) = env.num_agents, self._sizes(env, stage)
        first, second = (inputs + 1) * hidden, (hidden + 1) * outputs
        bound = np.repeat([inputs**-0.5, hidden**-0.5], [first, second])
        params = bound * jax.random.uniform(key, (num, first + second), minval=-1.0)
        width, spare = (inputs + 3, self.num_steps - 2) if stage == JUDGE else (2 * inputs + 3, 1)
        return Net(
            params=params,
            target=params,
            opt_state=jax.vmap(optax.adam(1.0).init)(params),
            epsilon=jnp.full(num, self.epsilon_start[stage], jnp.float32),
            num_gradients=jnp.zeros(num, jnp.int32),
            replay=jnp.zeros((num, self.buffer_size[stage] + spare, width)),
            size=jnp.zeros(num, jnp.int32),
        )

    def for_acting(self, learner: Learner) -> Learner:
        """The online networks and their exploration."""
        keep = lambda net: net.replace(target=(), opt_state=(), num_gradients=(), replay=(), size=())
        nets = tuple(net and keep(net) for net in learner.nets)
        return learner.replace(nets=nets, seen=(), chose=(), earned=())

    def act(self, env, learner, carry, ts, key, greedy=False):
        """The best legal decision of the stage that is on, or with probability epsilon any."""
        num = int(env.action_space.n)
        q, epsilon = jnp.zeros((*ts.reward.shape, num)), jnp.zeros(ts.reward.shape)
        for i, net in enumerate(learner.nets):
            if net is None:
                continue
            x = ts.obs["vector"][..., slice(*env.stage_columns[i])]  # [E, A, F]
            values = lambda params, x, i=i: q_values(params, self._sizes(env, i), x)
            mine = jax.vmap(values, in_axes=(0, 1), out_axes=1)(net.params, x)
            is_on = ts.obs["stage"] == i
            q = jnp.where(is_on[..., None], jnp.pad(mine, ((0, 0), (0, 0), (0, num - mine.shape[-1]))), q)
            epsilon = jnp.where(is_on, net.epsilon, epsilon)
        q = jnp.where(ts.action_mask, q, jnp.finfo(q.dtype).min)
        action = q.argmax(-1).astype(jnp.int32)
        if not greedy:
            u = jax.random.uniform(key, (2, *action.shape))
            action = jnp.where(u[0] < epsilon, pick(ts.action_mask, u[1]), action)
        return action, carry, {}

    def update(self, env: Environment, learner: Learner, batch: Batch, key: Array) -> tuple[Learner, dict]:
        """Learn from one round, leaves [T, 1, A, ...] of `batch`."""
        seen, action, reward, mask = (
            x[:, 0] for x in (batch.obs["vector"], batch.action, batch.reward, batch.action_mask)
        )
        last = jax.tree.map(lambda x: x[0], batch.last.obs)
        decided, action = mask.sum(-1) > 1, action.astype(jnp.float32)
        bits = jax.random.bits(key, (self.num_steps + 1, 2, self.batch_size))
        columns = [slice(*c) for c in env.stage_columns]
        learner = learner.replace(
            seen=jnp.where(decided[0][:, None], seen[0][:, columns[0]], learner.seen),
            chose=jnp.where(decided[0], action[0], learner.chose),
        )
        gain = reward[1] + jnp.where(decided[2:], 0, reward[2:]).sum(0)  # of moves
        earned = learner.earned + gain
        gain = earned if self.reward == "total" else gain
        role, over = last["role"], last["over"] > 0
        pair = jnp.stack([(role == 1).argmax(), (role == 2).argmax()])
        moved = decided[1][pair]
        ended = over[pair].all() & moved.any()  # now, not in a round before
        nets, losses = list(learner.nets), {}

        join = lambda seats, *row: jnp.concatenate(
            [x[seats] if x.ndim == 2 else x[seats, None] for x in row], 1
        )
        never, groups = jnp.zeros_like(gain), {}
        if nets[0] is not None:
            due = ended if self.choice_learns == "turn" else moved.any()
            row = learner.seen, learner.chose, gain, never, last["vector"][:, columns[0]]
            groups[0] = [(pair[:1], due[None], join(pair[:1], *row), bits[0])]
        end = over.astype(jnp.float32) if self.ends else never
        row = seen[1][:, columns[1]], action[1], gain, end, last["vector"][:, columns[1]]
        groups[1] = [(pair, moved, join(pair, *row), bits[1])]
        for t in range(2, self.num_steps):
            seats = first_true(decided[t], env.stage_deciders[JUDGE])
            row = join(seats, seen[t][:, columns[JUDGE]], action[t], reward[t], never)
            groups.setdefault(JUDGE, []).append((seats, decided[t][seats], row, bits[t]))
        for stage, told in groups.items():
            nets[stage], losses[STAGES[stage]] = self._learn(env, stage, nets[stage], told)
        learner = learner.replace(nets=tuple(nets), earned=jnp.where(ended, 0.0, earned))
        return learner, losses | {"round_reward": reward.sum()}

    def _learn(self, env: Environment, stage: int, net: Net, told: list[tuple]) -> tuple[Net, Array]:
        """Keep the transitions `told`, then take the gradient steps that each of them calls for, in turn.

        A group of `told` is: distinct seats [D]; whether each has something to keep [D] bool; rows [D, W];
        random words [D, B]. Its batches hold nothing of later groups. Returns the net and the mean loss [].
        """
        capacity, size, sizes, places = net.replay.shape[1] - len(told), net.size, [], []
        for i, (seats, counts, _, _) in enumerate(told):
            places.append(jnp.where(counts, size[seats] % capacity, capacity + i))
            size = size.at[seats].add(counts, unique_indices=True)
            sizes.append(size[seats])
        seats, rows = (jnp.concatenate([group[i] for group in told]) for i in (0, 2))
        # all at once, before any is read: else every write would copy the whole replay
        replay = net.replay.at[seats, jnp.concatenate(places)].set(rows, unique_indices=True)
        kept, losses = (net.params, net.target, net.opt_state, net.epsilon, net.num_gradients), []
        step = jax.vmap(lambda own, items: self._gradient_step(env, stage, own, items))
        for size_then, (seats, counts, _, words) in zip(sizes, told, strict=True):
            ready = counts & (size_then >= self.batch_size)
            held = jnp.clip(size_then, 1, capacity).astype(jnp.uint32)
            index = (words[: len(seats)] % held[:, None]).astype(jnp.int32)
            own = jax.tree.map(lambda x, seats=seats: x[seats], kept)
            fresh, loss = step(own, replay[seats[:, None], index])
            choose = lambda new, old, ready=ready: jnp.where(align(ready, new), new, old)
            fresh = jax.tree.map(choose, fresh, own)
            put = lambda old, new, seats=seats: old.at[seats].set(new, unique_indices=True)
            kept = jax.tree.map(put, kept, fresh)
            losses.append((loss * ready).sum() / jnp.maximum(ready.sum(), 1))
        return Net(*kept, replay, size), jnp.stack(losses).mean()

    def _gradient_step(self, env: Environment, stage: int, own: tuple, items: Array) -> tuple[tuple, Array]:
        """One network's step on items [B, W]; `own` as `kept` in `_learn`."""
        params, target, opt_state, epsilon, number = own
        sizes = self._sizes(env, stage)
        width = sizes[0]
        x, action, reward, terminal = (
            items[:, :width],
            items[:, width],
            items[:, width + 1],
            items[:, width + 2],
        )
        reached = items[:, width + 3 :] if stage != JUDGE else x
        inputs, code = all_inputs(env.stage_values[stage], width)
        look = lambda params, x: q_values(params, sizes, x)
        if inputs is not None:  # a table of all inputs, and a one-hot of each item's place in it
            one_hot = lambda x: (x @ code)[:, None] == np.arange(len(inputs))
            look = lambda params, x: one_hot(x) @ q_values(params, sizes, jnp.asarray(inputs))
        next_q = look(target, reached)
        goal = q_target(next_q, next_q, None, reward, terminal, gamma=self.gamma)
        loss = lambda params: q_loss(look(params, x), action.astype(jnp.int32), goal, kind="huber")[0]
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optax.adam(self.learning_rate[stage]).update(grads, opt_state)
        params = optax.apply_updates(params, updates)
        target = jnp.where((number + 1) % self.target_every == 0, params, target)
        start, end = self.epsilon_start[stage], self.epsilon_end[stage]
        epsilon = jnp.maximum(end, epsilon - (start - end) * self.epsilon_decay[stage])
        return (params, target, opt_state, epsilon, number + 1), value


def q_values(params: Array, sizes: tuple[int, int, int], x: Array) -> Array:
    """Values of all actions, [B, N], from inputs x [B, F]: one hidden layer of rectifiers.

    `params` [P] holds weights and biases [F + 1, H], weights [N, H], biases [N]; `sizes` is (F, H, N).
    On a CPU this order takes half the time of the usual one, and `where` less than `relu`.
    """
    inputs, hidden, outputs = sizes
    first, second, bias = jnp.split(params, np.cumsum([(inputs + 1) * hidden, hidden * outputs]))
    x = jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1))], axis=-1)
    z = x @ first.reshape(-1, hidden)
    return jnp.where(z > 0, z, 0.0) @ second.reshape(outputs, hidden).T + bias


def all_inputs(num_values: int | None, width: int) -> tuple[np.ndarray | None, np.ndarray]:
    """[V, F] all inputs of `width` columns of 0 .. num_values - 1, and [F] weights that give an input's row.

    None in place of the inputs where columns can take any value.
    """
    if num_values is None:
        return None, np.zeros(width)
    code = (num_values ** np.arange(width)[::-1]).astype(np.float32)
    grid = np.meshgrid(*[np.arange(num_values)] * width, indexing="ij")
    return np.stack([x.ravel() for x in grid], axis=1).astype(np.float32), code


def first_true(flags: Array, num: int) -> Array:
    """[num] int32 different places of `flags` [A] bool, the True ones first."""
    return jax.lax.top_k(flags.astype(jnp.float32), num)[1]
