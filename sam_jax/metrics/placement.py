"""Where arrays lie on a mesh whose axes are explicit, and how to bring them elsewhere."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sam_jax.shardings import explicit_sharding
from sam_jax.typing import Batch, PyTree


def with_whole_first_axis(tree: Batch) -> Batch:
    """Return arrays whose rows are not split over devices, so that a loop can go over them.

    Explicit axes of a mesh that split the rows are taken away from the arrays; all else stays.
    """

    def whole(x: jax.Array) -> jax.Array:
        sharding = explicit_sharding(x)
        if sharding is None or sharding.spec[0] is None:
            return x
        return jax.sharding.reshard(x, sharding.update(spec=(None, *sharding.spec[1:])))

    return jax.tree.map(whole, tree)


def explicit_axes(mesh: Mesh) -> tuple[str, ...]:
    """Return the names of the axes of a mesh that types speak of, as `jax.make_mesh` has them."""
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in types if kind == AxisType.Explicit)


def placed(tree: PyTree, mesh: Mesh, *, split: bool = False) -> PyTree:
    """Return arrays with the type that `shard_map` wants of them on a mesh.

    Args:
      tree: arrays, on this mesh or on none.
      mesh: with axes of any kind; where none is explicit, nothing is to be done.
      split: whether the first axis is split over the explicit axes; else every device has all.
    """
    axes = explicit_axes(mesh)
    if not axes:
        return tree
    return jax.sharding.reshard(tree, NamedSharding(mesh, PartitionSpec(*[axes] if split else [])))
