"""One way to measure at many points: each device of a mesh takes an equal part of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from sam_jax.metrics.placement import placed
from sam_jax.typing import PyTree


def over_devices(fn: Callable[..., PyTree], mesh: Mesh) -> Callable[..., PyTree]:
    """Return `fn(points, *others)`, compiled, with the points split over the devices of a mesh.

    Args:
      fn: points [k, ...] and other arguments -> a pytree of arrays [k, ...], one row a point. Its
        rows must not depend on each other. Every device calls it with its part of the points.
      mesh: devices to share the points out over, along all axes, explicit ones or not.

    Returns:
      The same function for any number of points. Where the parts would differ in size, the last
      point is repeated, and the repeated results are dropped. Every device gets the other arguments
      whole.

    >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("devices",))
    >>> over_devices(lambda points, scale: scale * points, mesh)(jnp.arange(3.0), 2.0).tolist()
    [0.0, 2.0, 4.0]
    """
    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    sharded = jax.jit(
        jax.shard_map(
            lambda points, others: fn(points, *others),
            mesh=mesh,
            in_specs=(split, whole),
            out_specs=split,
            check_vma=False,
        )
    )

    def measure(points: jax.Array, *others: Any) -> PyTree:
        count = points.shape[0]
        fill = -count % mesh.size
        if fill:
            points = jnp.concatenate([points, jnp.repeat(points[-1:], fill, axis=0)])
        values = placed(sharded(placed(points, mesh, split=True), placed(others, mesh)), mesh)
        return jax.tree.map(lambda value: value[:count], values) if fill else values

    return measure
