"""Games of trials with a hidden instance, whose player is shown what demonstrators would do now.

**Source**: the setting of cultural accumulation, Cook, Lu, Hughes, Leibo and Foerster 2024 (arXiv
2406.00392) and its authors' code. An episode is K trials of the same instance. Demonstrators are slots of
the observation: each tells the action that it would take at this very step. All are seen, or none: one draw
a step, with a probability that falls from 1 in the first trial to 0 in the last. Inside the game
demonstrators are oracles that know the instance, with noise in what they know; `marl.accumulation` and
`marl.predecessors` put policies in their place.
Axes: A = 1 seat, M demonstrators, N actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnasium import spaces
from jax import Array

from envs.grid import draw, happens, words_of
from marl.environment import Environment, TimeStep


class State(struct.PyTreeNode):
    """An episode under way."""

    instance: Array  # what is hidden, see the game
    skill: Any  # [M] float32 of the oracles, sorted, see the game; () without any
    progress: Any  # what the game keeps of the trial under way
    trial: Array  # [] int32 trials ended
    time: Array  # [] int32 steps of the trial under way


def keys_of(key: Array, num: int) -> Array:
    """[num] keys from the words of `key`: cheaper to run and to compile than a split, for `draw` alone."""
    return jax.random.wrap_key_data(words_of(key, 2 * num).reshape(num, 2))


class DemonstratedGame(Environment):
    """One seat; a subclass gives the instance, the oracles and what an action does.

    obs["vector"]: if `shows_own`, the own last action (one-hot, N), whether it ended a trial, and the last
    reward, all 0 at the start; for each demonstrator a one-hot of its action at this step (M N, all 0 if they
    are not seen); whether they are seen. Events: `score`, rewards without the negative ones; `trials`, those
    that ended. A sum of the one over that of the other is the mean score of a trial.

    Deviation: the paper tells reward and number of the trial as one-hots, its code the reward as a number and
    whether a trial ended, as here.
    """

    instance: Any  # the hidden instance, as `draw_instance` gives one; null: drawn for each episode
    visible_prob: (
        Any  # [] probability that demonstrators are seen at a step; null: 1 - k / (K - 1) in trial k
    )
    demonstrators: int = struct.field(pytree_node=False)  # M, 0: none
    num_trials: int = struct.field(pytree_node=False)  # K
    shows_own: bool = struct.field(pytree_node=False)  # whether the own last action and reward are seen

    num_agents = 1
    all_legal = True
    can_truncate = False
    best_first = False  # order of the slots: whether the best demonstrator stands first, or last

    @property
    def num_actions(self) -> int:
        """N."""
        raise NotImplementedError("a game states its number of actions")

    @property
    def max_trial_steps(self) -> int:
        """Steps after which a trial ends at the latest."""
        raise NotImplementedError("a game states how long a trial lasts")

    def draw_instance(self, key: Array) -> Array:
        """A random instance."""
        raise NotImplementedError("a game draws its instances")

    def draw_skill(self, key: Array) -> Array:
        """[M] float32 sorted skills of the oracles of an episode."""
        raise NotImplementedError("a game draws its oracles")

    def novices(self) -> DemonstratedGame:
        """The same game with demonstrators that act at random."""
        raise NotImplementedError("a game knows who acts at random")

    def seen_with(self, prob: Array) -> DemonstratedGame:
        """The same game whose demonstrators are seen with this probability [] at each step."""
        return self.replace(visible_prob=prob)

    def lasting(self, num_trials: int) -> DemonstratedGame:
        """The same game with more or fewer trials in an episode, and observations of the same size."""
        return self.replace(num_trials=num_trials)

    def begin(self) -> Any:
        """`progress` at the start of a trial."""
        return ()

    def oracles(self, key: Array, state: State) -> Array:
        """[M] int32 what the oracles would do now."""
        raise NotImplementedError("a game tells what its oracles do")

    def judge(self, state: State, action: Array) -> tuple[Any, Array, Array]:
        """What `action` [] does: progress, reward [] float32, whether the trial ends [] bool."""
        raise NotImplementedError("a game judges actions")

    @property
    def action_space(self) -> spaces.Discrete:
        """N actions."""
        return spaces.Discrete(self.num_actions)

    def check(self) -> None:
        """Raise ValueError for sizes or probabilities that there are not."""
        for name, low in (("demonstrators", 0), ("num_trials", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least {low}")
        if self.visible_prob is not None and not 0 <= self.visible_prob <= 1:
            raise ValueError(f"env.visible_prob={self.visible_prob}: must lie in [0, 1]")
        if self.instance is not None:
            self._check_instance()

    def _check_instance(self) -> None:
        wanted = jax.eval_shape(self.draw_instance, jax.random.key(0)).shape
        try:
            found = jnp.shape(jnp.asarray(self.instance))
        except (TypeError, ValueError):
            found = "rows of different lengths"
        if found != wanted:
            raise ValueError(f"env.instance: must be numbers of shape {list(wanted)}, not {found}")

    def reset(self, key: Array) -> tuple[State, TimeStep]:
        """Draw instance and oracles."""
        instance_key, skill_key, look_key = keys_of(key, 3)
        drawn = self.draw_instance(instance_key)
        state = State(
            instance=drawn if self.instance is None else jnp.asarray(self.instance, drawn.dtype),
            skill=self.draw_skill(skill_key) if self.demonstrators else (),
            progress=self.begin(),
            trial=jnp.int32(0),
            time=jnp.int32(0),
        )
        own = jnp.zeros(self.num_actions + 2)
        return state, self._look(look_key, state, own, jnp.float32(0), jnp.bool_(False))

    def step(self, key: Array, state: State, action: Array) -> tuple[State, TimeStep]:
        """`action` [1] int32 is judged; where it ends the trial, the next one begins."""
        progress, reward, ends = self.judge(state, action[0])
        choose = lambda new, old: jnp.where(ends, new, old)
        state = state.replace(
            progress=jax.tree.map(choose, self.begin(), progress),
            trial=state.trial + ends.astype(jnp.int32),
            time=jnp.where(ends, 0, state.time + 1),
        )
        facts = jnp.stack([ends.astype(jnp.float32), reward])
        own = jnp.concatenate([jax.nn.one_hot(action[0], self.num_actions), facts])
        return state, self._look(key, state, own, reward, ends)

    def trial(self, state: State) -> Array:
        """[...] int32 number of the trial under way, from 0."""
        return state.trial

    def show(self, obs: dict[str, Array], action: Array) -> dict[str, Array]:
        """`obs` with `action` [..., M] in the slots, where demonstrators are seen."""
        vector, place = obs["vector"], self._slots
        shown = jax.nn.one_hot(action, self.num_actions).reshape(*action.shape[:-1], -1)
        return obs | {"vector": vector.at[..., place].set(shown * vector[..., -1:])}

    def alone(self, obs: dict[str, Array], flag: Array | float = 0.0) -> dict[str, Array]:
        """`obs` of who sees no demonstrators; `flag` stands where it is told whether they are seen."""
        vector = obs["vector"].at[..., self._slots].set(0.0)
        return obs | {"vector": vector.at[..., -1].set(flag)}

    @property
    def _slots(self) -> slice:
        own = (self.num_actions + 2) * self.shows_own
        return slice(own, own + self.demonstrators * self.num_actions)

    def _look(self, key: Array, state: State, own: Array, reward: Array, ended: Array) -> TimeStep:
        """The TimeStep of a state; `own` [N + 2] as in obs["vector"]."""
        visible_key, oracle_key = keys_of(key, 2)
        prob = self.visible_prob
        if prob is None:
            prob = 1 - state.trial / max(self.num_trials - 1, 1)
        (word,) = draw(visible_key, ())
        visible = happens(word, prob).astype(jnp.float32)
        parts = [own] if self.shows_own else []
        if self.demonstrators:
            action = self.oracles(oracle_key, state)
            parts.append(visible * jax.nn.one_hot(action, self.num_actions).reshape(-1))
        else:
            visible = jnp.zeros_like(visible)
        return TimeStep(
            obs={"vector": jnp.concatenate([*parts, visible[None]])[None]},
            reward=reward[None],
            terminated=state.trial >= self.num_trials,
            truncated=jnp.bool_(False),
            action_mask=jnp.ones((1, self.num_actions), bool),
            events={
                "score": jnp.maximum(reward, 0.0)[None],
                "trials": ended.astype(jnp.float32)[None],
            },
        )
