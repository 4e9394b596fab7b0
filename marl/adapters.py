"""Games for libraries that expect PettingZoo or Gymnasium: `to_pettingzoo`, `to_gymnasium`.

Both take any game inside any stack of mechanisms; every step is one compiled call. Observations
are dicts of numpy arrays with the game's own keys. The action mask stands in the info. A Box, which
cannot be sampled with a mask, has a `component_mask` instead: False = no effect now. Libraries are
imported when they are asked for. Axes: E parallel games, A seats, N actions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marl.algorithm import Algorithm
from marl.environment import Environment

if TYPE_CHECKING:
    from marl.gymnasium_env import GymnasiumGames
    from marl.pettingzoo_env import PettingZooGame


def to_pettingzoo(
    env: Environment, seed: int = 0, max_steps: int | None = None, render_mode: str | None = None
) -> PettingZooGame:
    """A game as a PettingZoo ParallelEnv with agents agent_0, agent_1, ...

    Args:
        env: the game.
        seed: of the first episode, if `reset` is called without one.
        max_steps: cut an episode after so many steps; None: only the game ends it.
        render_mode: rgb_array, for games that can draw themselves, or None.

    Raises:
        ValueError: for a render mode that the game does not have.
    """
    from marl.pettingzoo_env import PettingZooGame

    return PettingZooGame(env, seed, max_steps, render_mode)


def to_gymnasium(
    env: Environment,
    num_envs: int,
    seed: int = 0,
    players: Algorithm | None = None,
    render_mode: str | None = None,
) -> GymnasiumGames:
    """`num_envs` parallel games as a Gymnasium VectorEnv of single agents.

    Without `players` every seat of every game is an environment of its own, so that one policy
    plays all seats: seat a of game e is environment e * A + a, and the VectorEnv's own `num_envs`
    is num_envs * A. With `players` only seat 0 is: they hold the seats 1 .. A-1.

    Args:
        env: the game.
        num_envs: parallel games E.
        seed: of the first games, if `reset` is called without one.
        players: who plays the other seats without learning, e.g. from `marl.build.player`.
        render_mode: rgb_array, for games that can draw themselves, or None.

    Raises:
        ValueError: for fewer than one game, players that do not fit it, or a render mode that it
            does not have.
    """
    from marl.gymnasium_env import GymnasiumGames

    return GymnasiumGames(env, num_envs, seed, players, render_mode)
