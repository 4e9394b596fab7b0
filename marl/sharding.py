"""Several devices for one program: each computes some of the seeds, or they share a single large world.

A GPU is a device; without one, so many threads of the CPU are (`marl.device.start_device`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from marl.validation import ConfigError

AXIS = "seeds"
LEAST = 4096  # numbers in an array worth sharing


def num_devices(cfg: Any, *, share_world: bool = False) -> int:
    """How many devices share the seeds of a configuration, or its world; 1 in run folders that do not say.

    Raises:
        ConfigError: if there are fewer, or the seeds cannot be shared out evenly.
    """
    num = cfg.get("num_devices", 1)
    if num > jax.device_count():
        found = f"{jax.device_count()} {jax.default_backend()} device(s)"
        raise ConfigError([f"num_devices={num}: there are {found}; set it before jax starts, or lower it"])
    seeds = cfg["num_seeds"]
    if not share_world and seeds % num:
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


def spread(tree: Any, num: int) -> Any:
    """`tree` with each array of at least LEAST numbers cut into `num` parts, one a device.

    Arrays are cut along their longest axis; those whose longest axis `num` does not divide, and small ones,
    are whole on every device. A program jitted for such arguments is partitioned by XLA, which exchanges
    what parts need of each other; it computes what one device does, up to the order of sums.
    """
    if num == 1:
        return tree
    mesh = Mesh(jax.devices()[:num], ("world",))

    def place(x: Any) -> Any:
        axis = max(range(x.ndim), key=lambda i: x.shape[i], default=0)
        cut = x.size >= LEAST and x.shape[axis] % num == 0
        where = PartitionSpec(*(None,) * axis, "world") if cut else PartitionSpec()
        return jax.device_put(x, NamedSharding(mesh, where))

    return jax.tree.map(place, tree)
