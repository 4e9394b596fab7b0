"""Who gives to whom in trained groups, by what seats do: mean matrices of weights, and their picture.

A node `after` of a figure calls `gift_roles`, see `marl.experiment`; the algorithm must say the `weights` of
a rollout, as LASE does (Kong et al. 2024, arXiv 2410.07863). Axes: S seeds, T steps, E games, A seats.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.after import statistics_of, summary_of
from marl.build import load_run, player
from marl.gifts import given
from marl.learner import rollout, start
from marl.metrics import equality
from marl.plots import pyplot
from marl.population import Mixture
from marl.secrets import read_run_config
from marl.validation import ConfigError


def gift_roles(
    *, folders: dict[str, Path], runs: list[str], event: str, seed: int, num_envs: int
) -> dict[str, dict]:
    """Let each seed's group play a rollout as in training, and order its seats by how often they did `event`.

    Args:
        folders: {run: its folder}.
        runs: those that give, and hold all seats.
        event: what makes the role, such as `cleaned`; seat 0 below is the one that did it most.
        seed: of the games; num_envs: games of a seed.

    Returns:
        {"RUN roles": summary}, one value a seed: `weight/I_to_J`, the mean share that I gives to J;
        `incoming/I`, the sum of those that I gets; `share/I`, its share of all that was done of the event;
        `incoming_lead`, incoming/0 less the greatest of the others; `total_equality`, of the games' sums of
        reward after gifts, and `equality`, before.

    Raises:
        ConfigError: if a run does not give, or its game does not tell the event.
    """
    found = {}
    for run in runs:
        began = time.perf_counter()
        setup, learners = load_run(folders[run], read_run_config(folders[run] / "config.yaml").plugins)
        if not hasattr(setup.algo, "weights"):
            raise ConfigError([f"figure.after: {run}: its algorithm has no weights"])

        def one(learner: Any, key: Array, algo: Any = setup.algo, env: Any = setup.env) -> dict[str, Array]:
            runner = start(algo, env, key, num_envs).replace(learner=learner)
            _, batch, tally = rollout(algo, env, runner, key, 0, algo.num_steps)
            if event not in tally.events:
                raise ConfigError([f"figure.after: event={event}: the game tells {', '.join(tally.events)}"])
            weights = algo.weights(env, learner, batch)
            total = given(batch.reward, weights, gift_negative=algo.gift_negative)
            fair = {"equality": equality(batch.reward.sum(0)), "total_equality": equality(total.sum(0))}
            mean = {name: x.mean() for name, x in fair.items()}
            return mean | {"done": tally.events[event], "weights": weights.mean((0, 1))}

        keys = jax.vmap(jax.random.key)(seed + jnp.arange(setup.cfg.num_seeds))
        values = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(learners, keys))
        metrics = {name: values[name] for name in ("equality", "total_equality")}
        metrics |= by_role(values["done"], values["weights"])
        found[f"{run} roles"] = summary_of({k: statistics_of(v) for k, v in metrics.items()}, began)
    return found


def gifts_to(
    *, folders: dict[str, Path], runs: list[str], players: list[str], seed: int, num_envs: int
) -> dict[str, dict]:
    """What the learner of seat 0 of each seed gives to fixed players, one kind at a time in all other seats.

    Args:
        folders: {run: its folder}; runs: those whose learners give, each with its own network.
        players: names of scripted players.
        seed: of the games; num_envs: games of a seed.

    Returns:
        {"RUN gifts": summary} with `weight/PLAYER`, the mean share that each such player is given.
    """
    found = {}
    for run in runs:
        began = time.perf_counter()
        plugins = read_run_config(folders[run] / "config.yaml").plugins
        setup, learners = load_run(folders[run], plugins)
        env, algo = setup.env, setup.algo.replace(seats=(0,))
        others = list(range(1, env.num_agents))

        def one(learner: Any, key: Array, other: Any, algo: Any = algo, env: Any = env) -> Array:
            group = Mixture(members=(algo, other), holder=(0,) + (1,) * (env.num_agents - 1))
            own = jax.tree.map(lambda x: x[:1], learner)
            runner = start(group, env, key, num_envs).replace(learner=(own, ()))
            _, batch, _ = rollout(group, env, runner, key, 0, algo.num_steps)
            return algo.weights(env, own, batch.of_member(0, np.array([0])))[:, :, 0, 1:].mean()

        keys = jax.vmap(jax.random.key)(seed + jnp.arange(setup.cfg.num_seeds))
        metrics = {}
        for name in players:
            given_to = jax.jit(jax.vmap(functools.partial(one, other=player(name, others, plugins))))
            metrics[f"weight/{name}"] = statistics_of(np.asarray(given_to(learners, keys)))
        found[f"{run} gifts"] = summary_of(metrics, began)
    return found


def by_role(done: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of `gift_roles` that tell seats apart, [S] each.

    Args:
        done: [S, A] how often each seat did the event.
        weights: [S, A (giver), A (taker)] mean shares.
    """
    order = np.argsort(-done, axis=1, kind="stable")
    seeds = np.arange(len(done))[:, None]
    done = done[seeds, order] / np.maximum(done.sum(1, keepdims=True), 1e-9)
    weights = weights[seeds[..., None], order[:, :, None], order[:, None]]
    off = weights * ~np.eye(weights.shape[-1], dtype=bool)
    incoming, seats = off.sum(1), range(done.shape[1])
    metrics = {f"weight/{i}_to_{j}": weights[:, i, j] for i in seats for j in seats}
    metrics |= {f"incoming/{i}": incoming[:, i] for i in seats}
    metrics |= {f"share/{i}": done[:, i] for i in seats}
    return metrics | {"incoming_lead": incoming[:, 0] - incoming[:, 1:].max(1)}


def role_matrices(
    *, summaries: dict[str, dict], path: Path, title: str, did: str, matrices: dict[str, str]
) -> None:
    """For each run its mean matrix of weights, beside what each role gets and does.

    Args:
        summaries: {run or "RUN roles": summary}, of `gift_roles`.
        path: PNG to write.
        title: above the picture.
        did: what the roles are ordered by, such as "cleaned".
        matrices: {run: title of its row}.
    """
    plt = pyplot()
    figure, axes = plt.subplots(
        len(matrices), 3, figsize=(10.5, 3.3 * len(matrices) + 0.5), squeeze=False, layout="constrained"
    )
    for row, (run, name) in zip(axes, matrices.items(), strict=True):
        metrics = summaries[f"{run} roles"]["metrics"]
        num = sum(key.startswith("share/") for key in metrics)
        mean = np.array([[metrics[f"weight/{i}_to_{j}"]["mean"] for j in range(num)] for i in range(num)])
        off = np.where(np.eye(num, dtype=bool), np.nan, mean)
        picture = row[0].imshow(off, cmap="Blues", vmin=0, vmax=max(np.nanmax(off), 1e-6))
        for i, j in np.ndindex(num, num):
            dark = i != j and off[i, j] > 0.6 * np.nanmax(off)
            text = f"{mean[i, j]:.3f}"
            row[0].text(j, i, text, ha="center", va="center", fontsize=8, color="w" if dark else "0.2")
        figure.colorbar(picture, ax=row[0], shrink=0.8)
        row[0].set(title=f"{name}: mean weights", xlabel="taker", ylabel="giver")
        row[0].set(xticks=range(num), yticks=range(num))
        for axis, kind, label in ((row[1], "incoming", "sum of incoming weights"), (row[2], "share", did)):
            found = [metrics[f"{kind}/{i}"] for i in range(num)]
            ends = [[one["mean"] - one["low"] for one in found], [one["high"] - one["mean"] for one in found]]
            ends = np.maximum(ends, 0)
            axis.bar(range(num), [one["mean"] for one in found], yerr=ends, color="#1b6ca8", alpha=0.75)
            for i, one in enumerate(found):
                axis.plot([i] * len(one["per_seed"]), one["per_seed"], ".", color="0.2", markersize=3)
            axis.set(title=label, xlabel=f"seat, by how much it {did.split()[-1]}", xticks=range(num))
            axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def gift_bars(
    *, summaries: dict[str, dict], path: Path, title: str, run: str, labels: dict[str, str]
) -> None:
    """A bar for each fixed player, the mean share that it is given, with seeds and 95 % intervals.

    Args:
        summaries: {run or "RUN gifts": summary}, of `gifts_to`.
        path: PNG to write.
        title: above the picture.
        run: whose learners give.
        labels: {player: its name below the bar}.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    for place, name in enumerate(labels):
        one = summaries[f"{run} gifts"]["metrics"][f"weight/{name}"]
        ends = np.maximum([[one["mean"] - one["low"]], [one["high"] - one["mean"]]], 0)
        axis.bar(place, one["mean"], yerr=ends, capsize=4, color="#1b6ca8", alpha=0.75)
        axis.plot([place] * len(one["per_seed"]), one["per_seed"], ".", color="0.2", markersize=4)
    axis.set_xticks(range(len(labels)), list(labels.values()))
    axis.set_ylabel("mean share given to it")
    axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)
