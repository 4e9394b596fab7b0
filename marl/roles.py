"""Who does what in a trained group, and what each seat is given for it.

The node `roles` of a figure's `after`, see `marl.experiment`. Which seat comes to do a work differs between
seeds: means over seeds are those of roles, the seats in the order of how much of it they do. Axes: E
episodes, A seats, S seeds.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.after import among_themselves, of_seeds
from marl.evaluate import Episodes
from marl.figures import for_figures

WEIGHT = "loss/weight/seat_{}_to_{}"  # as learners that give log them
TOTAL = "loss/total_reward/seat_{}"


@for_figures
def roles(
    *,
    folders: dict[str, Path],
    runs: list[str],
    event: str,
    seed: int,
    num_episodes: int,
    max_steps: int,
    greedy: bool,
) -> dict[str, dict]:
    """Let runs' seeds play among themselves, and rank their seats by what they do.

    Args:
        folders: {run: its folder}.
        runs: those that are looked at; such as there are not are left out.
        event: what seats do, an event of the game; role 0 does most of it.
        seed: of the episodes.
        num_episodes: of a seed.
        max_steps: cut of games that have no end of their own.
        greedy: likeliest actions instead of samples.

    Returns:
        {"RUN roles": summary}, one value a seed: `share/seat_I` and `share/role_K`, of all that is done;
        `reward/role_K` a step; and where learners give, means over the last part of training: the weights
        `weight/role_I_to_J` and `weight/seat_I_to_J`, `incoming/role_K`, the sum of the shares that others
        give it, `total/role_K`, its reward a step after gifts, `given`, the share of its reward that a seat
        gives away, and `incoming_lead`, by how much role 0 is given more than any other role.
    """
    found = {}
    for run in (name for name in runs if name in folders):
        began, folder = time.perf_counter(), folders[run]
        sizes = {"num_episodes": num_episodes, "max_steps": max_steps, "greedy": greedy}
        read = lambda episodes: _by_seat(episodes, event)
        played = among_themselves(folder, seed=seed, read=read, **sizes)
        trained = json.loads((folder / "summary.json").read_text())["metrics"]
        found[f"{run} roles"] = of_seeds(ranked(played["done"], played["reward"], trained), began)
    return found


def ranked(done: np.ndarray, reward: np.ndarray, trained: dict[str, dict]) -> dict[str, np.ndarray]:
    """The values that `roles` gives, [S] each.

    Args:
        done: [S, A] what each seat does a step.
        reward: [S, A] what it earns a step.
        trained: {metric: {"per_seed": [S]}} of training, with or without those of gifts.
    """
    seats = range(done.shape[1])
    order = np.argsort(-done, axis=1, kind="stable")  # [S, A] seat of each role
    by_role = lambda x: np.take_along_axis(x, order, axis=1)
    share = done / np.maximum(done.sum(1, keepdims=True), 1e-9)
    values = {f"share/seat_{i}": share[:, i] for i in seats}
    values |= {f"share/role_{k}": by_role(share)[:, k] for k in seats}
    values |= {f"reward/role_{k}": by_role(reward)[:, k] for k in seats}
    weights = gifts(trained, *done.shape)
    if not weights.any():
        return values
    own = np.take_along_axis(weights, order[:, :, None], axis=1)
    own = np.take_along_axis(own, order[:, None], axis=2)  # [S, A (giver), A (taker)], of roles
    values |= {f"weight/seat_{i}_to_{j}": weights[:, i, j] for i in seats for j in seats if i != j}
    values |= {f"weight/role_{i}_to_{j}": own[:, i, j] for i in seats for j in seats if i != j}
    values["given"] = weights.sum((1, 2)) / len(seats)
    incoming = own.sum(1)
    values |= {f"incoming/role_{k}": incoming[:, k] for k in seats}
    values["incoming_lead"] = incoming[:, 0] - incoming[:, 1:].max(1)
    if all(TOTAL.format(i) in trained for i in seats):
        total = by_role(np.stack([trained[TOTAL.format(i)]["per_seed"] for i in seats], axis=1))
        values |= {f"total/role_{k}": total[:, k] for k in seats}
    return values


def gifts(trained: dict[str, dict], num_seeds: int, num_seats: int) -> np.ndarray:
    """[S, A (giver), A (taker)] mean weights of training, 0 to oneself and from who does not give."""
    weights = np.zeros((num_seeds, num_seats, num_seats))
    for i, j in np.ndindex(num_seats, num_seats):
        if WEIGHT.format(i, j) in trained:
            weights[:, i, j] = trained[WEIGHT.format(i, j)]["per_seed"]
    return weights


def _by_seat(episodes: Episodes, event: str) -> dict[str, Array]:
    """[A] each: how often seats did it, and what they earned, a step."""
    a_step = lambda x: jnp.mean(x / episodes.length[:, None], axis=0)
    return {"done": a_step(episodes.events[event]), "reward": a_step(episodes.return_)}
