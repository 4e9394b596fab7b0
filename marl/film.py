"""Films of episodes, for every game.

A game that has a `picture` shows it. Another game that is seen as a grid is shown as its first seat
sees it, and any other as a chart of the actions of all seats over time. Axes: T steps, A seats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from marl.build import config_errors, player
from marl.environment import Environment
from marl.evaluate import Film, against, record
from marl.policy_file import Trained
from marl.render import BLUE, PALETTE, RED, Thing, board, grid_view, with_text, write_gif
from marl.spaces import render_modes
from marl.validation import ConfigError

MAX_SEATS_SHOWN, MAX_STEPS_SHOWN = 8, 30
FRAMES_PER_S = 4


def film_episode(
    trained: Trained,
    folder: Path,
    *,
    opponent: str,
    plugins: Iterable[str],
    seed: int,
    max_steps: int,
) -> dict[str, Any]:
    """Play one episode with sampled actions and write it as episode.gif, or episode-OPPONENT.gif.

    Args:
        trained: plays all seats, or seat 0 against an opponent.
        folder: is made if it is not there.
        opponent: a scripted player or a run; "" for none.
        plugins: packages that the opponent's configuration may use.
        seed: of the episode.
        max_steps: cut for games that have no end of their own.

    Returns:
        {gif: path, steps: T, return: [A]}.

    Raises:
        ConfigError: if there is no such opponent, or the folder cannot be written.
    """
    env, algo, learner = trained.env, trained.algo, trained.learner
    if opponent:
        with config_errors():
            other = player(opponent, list(range(1, env.num_agents)), plugins)
        algo, learner = against(env, algo, learner, other)
    elif len(trained.seats) < env.num_agents:
        who = f"only the seats {list(trained.seats)} learned"
        raise ConfigError([f"opponent=: {who}; name who plays in the others"])
    steps = env.fixed_horizon or max_steps
    film = record(env, algo, learner, jax.random.key(seed), max_steps=steps, greedy=False)
    name = "-".join(["episode", *([re.sub(r"\W+", "_", Path(opponent).name)] if opponent else [])])
    path = folder / f"{name}.gif"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_gif(film_frames(env, film), path, FRAMES_PER_S)
    except OSError as error:
        raise ConfigError([f"{path} cannot be written: {error.strerror}"]) from error
    return {"gif": str(path), "steps": len(film.action), "return": film.ts.reward.sum(0).tolist()}


def film_frames(env: Environment, film: Film) -> list[np.ndarray]:
    """A picture of every moment of a film, T + 1 of uint8 [height, width, 3].

    Under the picture stand the step, and for each seat its return so far, its last action and
    what it did (the events of the step). A chart's seats have the colour of their last action,
    those of a game that draws itself the colour that they have there.
    """
    own, is_grid = bool(render_modes(env, None)), "grid" in film.ts.obs
    returns = film.ts.reward.cumsum(0)  # [T + 1, A]
    frames = []
    for time in range(len(film.action) + 1):
        if own:
            picture = np.asarray(env.picture(jax.tree.map(lambda x, time=time: x[time], film.state)))
        elif is_grid:
            picture = grid_view(film.ts.obs["grid"][time, 0])
        else:
            picture = history(film.action[:time], env.action_space, film.action.shape[1])
        lines = [(None, f"step {time} of {len(film.action)}")]
        for seat in range(min(env.num_agents, MAX_SEATS_SHOWN)):
            colour = PALETTE[seat % len(PALETTE)] if own else None
            if time and not own and not is_grid:
                colour = _colour(film.action[time - 1, seat], env.action_space)
            lines.append((colour, _line(film, returns, time, seat)))
        if env.num_agents > MAX_SEATS_SHOWN:
            lines.append((None, f"and {env.num_agents - MAX_SEATS_SHOWN} more seats"))
        frames.append(with_text(picture, lines))
    return frames


def _line(film: Film, returns: np.ndarray, time: int, seat: int) -> str:
    """What one seat did last, and its return."""
    line = f"seat {seat}   return {returns[time, seat]:g}"
    if not time:
        return line
    action = np.round(film.action[time - 1, seat], 2).tolist()
    events = ", ".join(name for name, count in film.ts.events.items() if count[time, seat] > 0)
    return f"{line}   action {action}" + (f" ({events})" if events else "")


def history(action: np.ndarray, space: spaces.Space, num_seats: int) -> np.ndarray:
    """The last actions [t, A, ...] as a chart: a row a seat, a column a step, a colour an action."""
    recent = action[-MAX_STEPS_SHOWN:]
    rows = min(num_seats, MAX_SEATS_SHOWN)
    things = [
        Thing(seat, step, _colour(recent[step, seat], space), "square")
        for step in range(len(recent))
        for seat in range(rows)
    ]
    return board(rows, MAX_STEPS_SHOWN, things)


def _colour(action: np.ndarray, space: spaces.Space) -> tuple[int, int, int]:
    """One of the palette for each choice; between blue (low) and red (high) for a Box."""
    if isinstance(space, spaces.Box):
        low, high = np.maximum(space.low, -1.0), np.minimum(space.high, 1.0)
        share = float(np.clip((action - low) / np.maximum(high - low, 1e-6), 0, 1).mean())
        mixed = (1 - share) * np.array(BLUE) + share * np.array(RED)
        return tuple(int(c) for c in mixed)
    index = np.ravel_multi_index(action, space.nvec) if isinstance(space, spaces.MultiDiscrete) else action
    return PALETTE[(int(index) + 2) % len(PALETTE)]  # green first, the seats' colours last
