"""Tiny games with known values, and `learn`, which trains on one and then plays on.

The seats of a probe play side by side and never meet: each has its own cue and its own reward,
and its game is worth what it would be worth alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces

from algos.dqn import DQN
from algos.ppo import PPO
from marl.environment import Environment, TimeStep, mask_size
from marl.learner import rollout, start, train
from marl.networks import MLP

GAMMA = 0.9  # of every test of PPO


class ProbeState(struct.PyTreeNode):
    cue: jax.Array  # [A] float32, -1 or 1 by chance, fixed during an episode
    time: jax.Array  # [] int32


class Lane(Environment):
    """Seats that play alone for one step; subclasses say what is earned, and may forbid actions."""

    num_seats: int = struct.field(pytree_node=False)  # A

    fixed_horizon = 1

    @property
    def num_agents(self):
        return self.num_seats

    def reset(self, key):
        cue = jax.random.rademacher(key, (self.num_agents,), jnp.float32)
        state = ProbeState(cue, jnp.int32(0))
        return state, self._observe(state, jnp.zeros(self.num_agents))

    def step(self, key, state, action):
        reward = self.earn(state, action).astype(jnp.float32)
        state = state.replace(time=state.time + 1)
        return state, self._observe(state, reward)

    def _observe(self, state, reward):
        over = state.time >= self.fixed_horizon
        return TimeStep(
            obs={"vector": state.cue[:, None]},
            reward=reward,
            terminated=over,
            truncated=jnp.bool_(False),
            action_mask=self.allow(state),
            events={},
        )

    def earn(self, state, action):
        """[A] the reward."""
        raise NotImplementedError

    def allow(self, state):
        """[A, N] the action mask."""
        return jnp.ones((self.num_agents, mask_size(self.action_space)), bool)


class Probe(Lane):
    """All standard probes in one family, so that they share one compiled program; see `PROBES`.

    With sign = 2 action - 1, each step from `pays_from` on pays
    base + by_cue cue + by_action sign + by_match cue sign.
    Seen are the cue, during the first `cue_steps` steps, and whether the first step is over.
    """

    length: Any  # [] steps of an episode
    cut: Any  # [] bool, the episode is truncated at its length instead of terminated
    cue_steps: Any  # [] steps
    pays_from: Any  # [] first step that pays
    base: Any  # [A] reward units, and likewise:
    by_cue: Any
    by_action: Any
    by_match: Any
    num_actions: int = struct.field(pytree_node=False)

    fixed_horizon = None

    @property
    def action_space(self):
        return spaces.Discrete(self.num_actions)

    def earn(self, state, action):
        sign = 2 * action - 1
        pay = self.base + self.by_cue * state.cue + (self.by_action + self.by_match * state.cue) * sign
        return jnp.where(state.time >= self.pays_from, pay, 0.0)

    def _observe(self, state, reward):
        cue = jnp.where(state.time < self.cue_steps, state.cue, 0.0)
        over = state.time >= self.length
        return TimeStep(
            obs={"vector": jnp.stack([cue, jnp.full_like(cue, state.time > 0)], axis=-1)},
            reward=reward,
            terminated=over & ~self.cut,
            truncated=over & self.cut,
            action_mask=self.allow(state),
            events={},
        )


PAYS = ("base", "by_cue", "by_action", "by_match")
PROBES = {
    # reward 1: the value is 1
    "constant": {"num_actions": 1, "base": 1.0},
    # reward = cue: the value is the cue
    "sign": {"num_actions": 1, "cue_steps": 1, "by_cue": 1.0},
    # two steps, reward 1 at the end: the values are gamma and 1
    "delayed": {"num_actions": 1, "length": 2, "pays_from": 1, "base": 1.0},
    # action 1 pays 1, action 0 costs 1
    "choice": {"num_actions": 2, "by_action": 1.0},
    # action 1 answers the cue 1, action 0 the cue -1; right pays 1, wrong costs 1
    "match": {"num_actions": 2, "cue_steps": 1, "by_match": 1.0},
    # the cue of the first step is to be answered in the third; without memory the value is 0
    "recall": {"num_actions": 2, "length": 3, "cue_steps": 1, "pays_from": 2, "by_match": 1.0},
    # 0 in the first step, then 1 a step for ever, cut after four: the values are gamma / (1 - gamma)
    # and 1 / (1 - gamma), the latter also where the game is cut
    "cut": {"num_actions": 1, "length": 4, "cut": True, "pays_from": 1, "base": 1.0},
    # odd seats must play 1, even seats of four 0; one learner for all earns 0 on average
    "roles": {"num_actions": 2, "by_action": [-1.0, 1.0, -1.0, 1.0]},
}


def probe(name, num_seats=1):
    """A standard probe by its name in PROBES; all of as many actions and seats share a program."""
    fields = {"length": 1, "cut": False, "cue_steps": 0, "pays_from": 0} | PROBES[name]
    numbers = {
        k: np.asarray(v, np.bool_ if k == "cut" else np.int32) for k, v in fields.items() if k not in PAYS
    }
    pays = {k: np.broadcast_to(np.float32(fields.get(k, 0.0)), num_seats) for k in PAYS}
    static = {"num_actions": int(numbers.pop("num_actions")), "num_seats": num_seats}
    return Probe(**numbers, **pays, **static)


class Locks(Lane):
    """Two choices side by side; each component that hits its target pays 1/2."""

    action_space = spaces.MultiDiscrete([3, 2])
    target = (2, 0)

    def earn(self, state, action):
        return (action == np.array(self.target)).mean(-1)


class Aim(Lane):
    """A number in [-2, 4]; the reward is minus its squared distance from the target."""

    action_space = spaces.Box(-2.0, 4.0, (1,))
    target = 1.5

    def earn(self, state, action):
        return -jnp.square(action[..., 0] - self.target)


class Tempting(Lane):
    """Four actions; cue 1 forbids 0 and 3, cue -1 forbids 1 and 2. Forbidden ones pay 10.

    Of the allowed ones, the higher number pays 1: action 2 after cue 1, action 3 after cue -1.
    """

    action_space = spaces.Discrete(4)

    def earn(self, state, action):
        allowed = jnp.take_along_axis(self.allow(state), action[:, None], axis=1)[:, 0]
        return jnp.where(allowed, action >= 2, 10.0)

    def allow(self, state):
        inner = np.array([False, True, True, False])
        return jnp.where(state.cue[:, None] > 0, inner, ~inner)


jit_reset = jax.jit(lambda env, key: env.reset(key))
jit_step = jax.jit(lambda env, key, state, action: env.step(key, state, action))
jit_train = jax.jit(train)
jit_rollout = jax.jit(rollout, static_argnums=5)


def learn(algo, env, seed, *, num_envs, num_updates, num_steps):
    """Train, then play fresh games with what was learnt.

    Returns:
        the runner after training, (Tally, metrics) of each update, and the Batch [T, E, A] of
        `num_steps` steps of play.
    """
    key = jax.random.key(seed)
    runner, what = jit_train(algo, env, start(algo, env, key, num_envs), key, jnp.arange(num_updates))
    fresh = start(algo, env, jax.random.fold_in(key, num_updates), num_envs)
    fresh = fresh.replace(learner=runner.learner)
    return runner, what, jit_rollout(algo, env, fresh, key, 0, num_steps)[1]


def ppo(seats=(0,), core=0, width=16, **changes):
    """A small PPO; `core` is the width of a GRU, `changes` are further fields."""
    fields = {
        "learning_rate": 1e-2,
        "gamma": GAMMA,
        "gae_lambda": 0.9,
        "clip_eps": 0.2,
        "vf_coef": 0.5,
        "ent_coef": 0.01,
        "max_grad_norm": 0.5,
        "credit": None,
        "num_steps": 8,
        "num_epochs": 4,
        "num_minibatches": 2,
        "num_accumulations": 1,
        "group_size": 1,
        "separate_critic": False,
        "network": MLP(hidden=(width,), activation="tanh", core=core),
        "seats": seats,
    }
    return PPO(**(fields | changes))


def dqn(seats=(0,), core=0, width=16, **changes):
    """A small DQN that explores less and less, in the end not at all; as `ppo` otherwise.

    On 32 games it has taken 960 gradient steps after 60 updates.
    """
    fields = {
        "learning_rate": 3e-3,
        "gamma": GAMMA,
        "epsilon_start": 1.0,
        "epsilon_end": 0.0,
        "epsilon_steps": 8000.0,
        "epsilon_schedule": "linear",
        "tau": 1.0,
        "target_every": 8,
        "learning_starts": 256,
        "max_grad_norm": 10.0,
        "batch_size": 16 if core else 64,
        "buffer_size": 8192,
        "num_steps": 8,
        "num_updates": 16,
        "burn_in": 0,
        "loss": "huber",
        "double": True,
        "dueling": False,
        "by_stage": False,
        "network": MLP(hidden=(width,), activation="tanh", core=core),
        "seats": seats,
    }
    return DQN(**(fields | changes))
