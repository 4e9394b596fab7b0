"""Rows: pairs of a game and a seat, taken out of whole games as if each were a game of one seat.

`rows` are (game [P, n], seat [P, n]) for each learner. Axes: T steps, E games, A seats, P learners, n
rows a learner.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from marl.algorithm import Batch
from marl.environment import TimeStep


def pick(x: Array, rows: tuple[np.ndarray, np.ndarray], axis: int) -> Array:
    """[*pre, E, A, *X] -> [P, *pre, n, 1, *X]; `axis` is where E stands."""
    game, seat = rows
    picked = x[(slice(None),) * axis + (game, seat)]  # [*pre, P, n, *X]
    return jnp.expand_dims(jnp.moveaxis(picked, axis, 0), axis + 2)


def put(x: Array, values: Array, rows: tuple[np.ndarray, np.ndarray]) -> Array:
    """Put `values` [P, n, 1, *X] in place of the rows of x [E, A, *X]."""
    index, there = np.zeros(x.shape[:2], np.int32), np.zeros(x.shape[:2], bool)
    index[rows] = np.arange(rows[0].size).reshape(rows[0].shape)
    there[rows] = True
    flat = values.reshape(-1, *x.shape[2:])
    return jnp.where(there.reshape(*there.shape, *(1,) * (x.ndim - 2)), flat[index], x)


def pick_game(x: Array, rows: tuple[np.ndarray, np.ndarray], axis: int) -> Array:
    """[*pre, E, *X] -> [P, *pre, n, *X]."""
    return jnp.moveaxis(x[(slice(None),) * axis + (rows[0],)], axis, 0)


def seen(ts: TimeStep, rows: tuple[np.ndarray, np.ndarray]) -> TimeStep:
    """A TimeStep [E, ...] as each learner's rows see it, [P, n, ...] with one seat."""
    every = lambda tree: jax.tree.map(lambda x: pick(x, rows, 0), tree)
    return TimeStep(
        obs=every(ts.obs),
        reward=every(ts.reward),
        terminated=pick_game(ts.terminated, rows, 0),
        truncated=pick_game(ts.truncated, rows, 0),
        action_mask=every(ts.action_mask),
        events=every(ts.events),
    )


def learnt_from(batch: Batch, rows: tuple[np.ndarray, np.ndarray]) -> Batch:
    """Each learner's rows as a batch of games of one seat, leaves [P, T, n, 1, ...]."""
    per_game, at_once = ["done"], ("carry", "last_carry")
    if batch.terminated.ndim == batch.done.ndim:
        per_game.append("terminated")
    found = {"last": seen(batch.last, rows)}
    for field in dataclasses.fields(batch):
        if field.name == "last":
            continue
        choose = pick_game if field.name in per_game else pick
        axis = 0 if field.name in at_once else 1
        values = getattr(batch, field.name)
        found[field.name] = jax.tree.map(lambda x, choose=choose, axis=axis: choose(x, rows, axis), values)
    return Batch(**found)
