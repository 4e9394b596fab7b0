"""The interface between games and learners: TimeStep, Environment, Mechanism.

Axes: A seats (agents), N actions, F features, H x W grid cells, L grid layers. Batching over
games, restarts and logging live outside, in `marl.learner`.
"""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnasium import spaces
from jax import Array

from marl.node import Node

EXTRINSIC = "extrinsic_reward"  # event: the reward as it was before mechanisms shaped it


class TimeStep(struct.PyTreeNode):
    """What every seat sees and what happened in one step.

    `events` are facts about what each seat did, float32 counts ("cooperated", "punished"
    ...). They serve logs, outcome metrics and mechanisms that react to behaviour without
    knowing the game.
    """

    obs: dict[str, Array]  # "grid" uint8 [A, H, W, L] and/or "vector" float32 [A, F]; see `num_stages`
    reward: Array  # [A] float32, reward units
    terminated: Array  # [] bool, the game ended by its own rules: the future is worth 0
    truncated: Array  # [] bool, the game was cut by its horizon: the future has a value
    action_mask: Array  # [A, N] bool, True where allowed; see `mask_size`
    events: dict[str, Array]  # each [A] float32
    # [A] bool, this seat's future is worth 0 although the game goes on (it died, and may come back);
    # None: seats end with the game. It is read after steps, not after resets.
    seat_terminated: Array | None = None

    @property
    def done(self) -> Array:
        """[] bool, the episode is over."""
        return self.terminated | self.truncated

    def take(self, seats: Any, axis: int) -> TimeStep:
        """The same step as seen by some seats; `axis` is where the seat axis stands."""
        pick = lambda tree: jax.tree.map(lambda x: jnp.take(x, np.asarray(seats), axis), tree)
        return self.replace(
            obs=pick(self.obs),
            reward=pick(self.reward),
            action_mask=pick(self.action_mask),
            events=pick(self.events),
            seat_terminated=pick(self.seat_terminated),
        )


class Environment(Node):
    """A game: an immutable pytree whose number-only fields are leaves.

    Subclasses give `num_agents`, `action_space` (one seat's: Discrete, MultiDiscrete or
    Box), `reset` and `step`. State never holds a random key, there is no auto-reset, no
    batching and no logging inside.
    """

    # Number of codes of each grid layer, 0 ("nothing") included; () without a grid.
    grid_codes = ()
    # Steps of every episode if all have the same length (games then restart together, at no
    # cost per step), None if an episode may end at any step.
    fixed_horizon = None
    # Whether an episode without fixed horizon can be cut before its own end.
    can_truncate = True
    # Whether every action is legal at every step; masks are then neither copied nor read.
    all_legal = False
    # Kinds of decision that steps can be (a round, a stage of punishment ...). With several,
    # obs["stage"] [A] int32 says which comes next, 0 .. num_stages - 1; networks do not read it.
    num_stages = 1
    # The type of each seat, 0, 1 ..., equally many of each: one learner holds those of a type where
    # `seats=typed`. (): the game knows no types.
    seat_types = ()

    @property
    def ends_every(self) -> int | None:
        """Steps; episodes end at multiples of them alone, where games restart together. None: at any step."""
        return self.fixed_horizon

    @property
    def num_agents(self) -> int:
        """Number of seats A."""
        raise NotImplementedError("a game states its number of seats")

    @property
    def action_space(self) -> spaces.Space:
        """One seat's actions: gymnasium Discrete, MultiDiscrete or Box."""
        raise NotImplementedError("a game states its action space")

    def reset(self, key: Array) -> tuple[Any, TimeStep]:
        """Start an episode. Returns (state, TimeStep) with zero reward."""
        raise NotImplementedError("a game can be started")

    def step(self, key: Array, state: Any, action: Array) -> tuple[Any, TimeStep]:
        """Play one step; `action` is [A] (Discrete) or [A, *shape]. Returns (state, TimeStep)."""
        raise NotImplementedError("a game can be stepped")

    def picture(self, state: Any) -> np.ndarray:
        """A picture of one game's state, uint8 [height, width, 3]; made on the host, outside jit.

        Seat i has the colour number i of `marl.render.PALETTE`.

        Raises:
            ValueError: if the game draws none.
        """
        raise ValueError(f"{type(self).__name__} draws no picture of itself")

    def check(self) -> None:
        """Raise ValueError if the fields contradict each other; called when built from a config."""


class Mechanism(Environment):
    """An environment around another environment; forwards what it does not change."""

    env: Environment

    @property
    def num_agents(self) -> int:
        """Seats of the inner environment."""
        return self.env.num_agents

    @property
    def action_space(self) -> spaces.Space:
        """Actions of the inner environment."""
        return self.env.action_space

    @property
    def grid_codes(self) -> tuple[int, ...]:
        """Grid codes of the inner environment."""
        return self.env.grid_codes

    @property
    def fixed_horizon(self) -> int | None:
        """Horizon of the inner environment."""
        return self.env.fixed_horizon

    @property
    def ends_every(self) -> int | None:
        """As the inner environment; a mechanism that adds steps counts them."""
        return self.env.ends_every

    @property
    def can_truncate(self) -> bool:
        """As the inner environment."""
        return self.env.can_truncate

    @property
    def all_legal(self) -> bool:
        """As the inner environment; a mechanism that forbids actions at times says False."""
        return self.env.all_legal

    @property
    def num_stages(self) -> int:
        """As the inner environment; a mechanism that inserts a stage adds one."""
        return self.env.num_stages

    @property
    def seat_types(self) -> tuple[int, ...]:
        """As the inner environment; a mechanism that changes the seats says ()."""
        return self.env.seat_types

    def reset(self, key: Array) -> tuple[Any, TimeStep]:
        """Start an episode of the inner environment."""
        return self.env.reset(key)

    def step(self, key: Array, state: Any, action: Array) -> tuple[Any, TimeStep]:
        """Play one step of the inner environment."""
        return self.env.step(key, state, action)

    def picture(self, state: Any) -> np.ndarray:
        """The inner environment's picture; a mechanism's own state keeps the inner one in `inner`."""
        return self.env.picture(getattr(state, "inner", state))

    def check(self) -> None:
        """Check the inner environment."""
        self.env.check()

    def own_key(self, key: Array) -> Array:
        """The key of this mechanism's own draws.

        The inner environment gets `key` itself, so that a mechanism in its neutral setting
        changes nothing, bit for bit. The number folded in follows from the class name, so
        stacked mechanisms draw apart; it is large because small ones repeat `split`'s keys.
        """
        return jax.random.fold_in(key, np.uint32(zlib.crc32(type(self).__name__.encode()) | 1 << 31))


def bare_game(env: Environment) -> Environment:
    """The game inside all mechanisms."""
    while isinstance(env, Mechanism):
        env = env.env
    return env


def mask_size(space: spaces.Space) -> int:
    """Length N of the action mask of a space.

    Discrete: one entry an action. MultiDiscrete: one an action of each component, side by
    side. Box: one a component (False = the component has no effect now).

    Raises:
        ValueError: for any other space.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape))
    raise ValueError(f"action space {space} is none of Discrete, MultiDiscrete, Box")


def num_discrete(env: Environment, mechanism: str) -> int:
    """Number of actions of a Discrete environment.

    Raises:
        ValueError: naming the mechanism that needs Discrete actions, for other spaces.
    """
    if not isinstance(env.action_space, spaces.Discrete):
        raise ValueError(f"mechanism {mechanism} needs Discrete actions, not {env.action_space}")
    return int(env.action_space.n)


def event_names(env: Environment) -> list[str]:
    """Names of the events that an environment emits, sorted; runs nothing."""
    return sorted(jax.eval_shape(env.reset, jax.random.key(0))[1].events)


def legal_or_first(mask: Array, action: Array | int) -> Array:
    """[..., N] bool mask and [...] (or one) action -> [...] int32, the first legal one if it is illegal.

    For mechanisms that must put an action of their own choice into an inner environment whose
    mask may forbid it.
    """
    action = jnp.broadcast_to(jnp.asarray(action, jnp.int32), mask.shape[:-1])
    legal = jnp.take_along_axis(mask, action[..., None], axis=-1, mode="clip")[..., 0]
    return jnp.where(legal, action, mask.argmax(-1).astype(jnp.int32))


def clip_to_space(space: spaces.Space, action: Array) -> Array:
    """[..., *shape] action moved inside the bounds of a Box; other spaces pass unchanged."""
    return jnp.clip(action, space.low, space.high) if isinstance(space, spaces.Box) else action


def extend_vector(ts: TimeStep, features: Array) -> TimeStep:
    """Append `features` [A, F] to obs["vector"], which is made where there is none."""
    vector = ts.obs.get("vector")
    features = features.astype(jnp.float32)
    joined = features if vector is None else jnp.concatenate([vector, features], axis=-1)
    return ts.replace(obs=ts.obs | {"vector": joined})


def own_first(x: Array) -> Array:
    """[A] facts of all seats -> [A, A], row i rotated so that seat i comes first."""
    num = x.shape[0]
    return x[(np.arange(num)[:, None] + np.arange(num)) % num]
