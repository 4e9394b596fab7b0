"""Seeds shared out over several devices, each of which computes those it has.

A GPU is a device; without one, so many threads of the CPU are (`marl.device.start_device`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from marl.validation import ConfigError

AXIS = "seeds"


def num_devices(cfg: Any) -> int:
    """How many devices share the seeds of a configuration; 1 in run folders that do not say.

    Raises:
        ConfigError: if there are fewer, or the seeds cannot be shared out evenly.
    """
    num = cfg.get("num_devices", 1)
    if num > jax.device_count():
        found = f"{jax.device_count()} {jax.default_backend()} device(s)"
        raise ConfigError([f"num_devices={num}: there are {found}; set it before jax starts, or lower it"])
    seeds = cfg["num_seeds"]
    if seeds % num:
        raise ConfigError([f"num_devices={num}: must divide num_seeds={seeds}"])
    return num


def over_devices(
    many: Callable[..., Any], num: int, in_axes: Sequence[int | None], out_axis: int = 0
) -> Callable[..., Any]:
    """`many`, of which each of `num` devices computes its share; numbers are those of one device.

    Args:
        many: of arrays with an axis of seeds, which do not depend on each other.
        num: of devices; must divide the seeds.
        in_axes: of each argument the axis of seeds; None: all devices get all of it.
        out_axis: that of the results.
    """
    if num == 1:
        return many
    place = lambda axis: PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, AXIS)
    places = {"in_specs": tuple(place(axis) for axis in in_axes), "out_specs": place(out_axis)}
    return jax.shard_map(many, mesh=Mesh(jax.devices()[:num], (AXIS,)), check_vma=False, **places)
