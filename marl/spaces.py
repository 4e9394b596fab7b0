"""What the adapters to other libraries share: observation spaces, checked actions, names, render modes.

Axes: A seats, N actions.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from marl.environment import Environment, Mechanism, bare_game


def observation_space(env: Environment) -> spaces.Dict:
    """What one seat sees: "grid" codes, "vector" numbers, the "stage", further keys by their dtype."""
    shapes = jax.eval_shape(env.reset, jax.random.key(0))[1].obs
    return spaces.Dict({key: _box(env, key, x.shape[1:], x.dtype) for key, x in shapes.items()})


def _box(env: Environment, key: str, shape: tuple[int, ...], dtype: Any) -> spaces.Box:
    if key == "grid":
        high = np.broadcast_to(np.asarray(env.grid_codes) - 1, shape).astype(np.uint8)
        return spaces.Box(np.zeros(shape, np.uint8), high, dtype=np.uint8)
    if key == "stage":
        return spaces.Box(0, env.num_stages - 1, shape, dtype)
    if np.issubdtype(dtype, np.integer):
        bounds = np.iinfo(dtype)
        return spaces.Box(bounds.min, bounds.max, shape, dtype)
    return spaces.Box(-np.inf, np.inf, shape, dtype)


def checked_action(space: spaces.Space, action: Any, *lead: int) -> np.ndarray:
    """[*lead, *shape] actions with the dtype that a game takes; a Box is clipped by the step.

    Raises:
        ValueError: for a wrong shape, or what is no action of the space.
    """
    found, shape = np.asarray(action), (*lead, *(space.shape or ()))
    if found.shape != shape:
        raise ValueError(f"actions have shape {list(found.shape)}, not {list(shape)}")
    if found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        raise ValueError(f"actions {found.tolist()} are not all in {space}")
    if isinstance(space, spaces.Box):
        return found.astype(np.float32)
    num = space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n
    if (found % 1 != 0).any() or (found < 0).any() or (found >= num).any():
        raise ValueError(f"actions {found.tolist()} are not all in {space}")
    return found.astype(np.int32)


def mask_name(space: spaces.Space) -> str:
    """Key of the info under which the mask stands."""
    return "component_mask" if isinstance(space, spaces.Box) else "action_mask"


def name_of(env: Environment) -> str:
    """The classes of a game and its mechanisms, inner first: "MatrixGame+Gifting"."""
    own = type(env).__name__
    return f"{name_of(env.env)}+{own}" if isinstance(env, Mechanism) else own


def render_modes(env: Environment, wanted: str | None) -> list[str]:
    """The render modes of a game: rgb_array if it draws pictures of itself.

    Raises:
        ValueError: if `wanted` is neither None nor among them.
    """
    modes = ["rgb_array"] if type(bare_game(env)).picture is not Environment.picture else []
    if wanted is not None and wanted not in modes:
        raise ValueError(f"render_mode={wanted}: {name_of(env)} has {', '.join(modes) or 'none'}")
    return modes
