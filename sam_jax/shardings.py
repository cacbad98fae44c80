"""Where arrays lie, as far as their types say: fresh arrays take the sharding of their neighbours.

On a mesh with explicit axes the type of an array names its sharding, and two arrays meet only where
these agree. With automatic axes the compiler finds the shardings, and nothing is to do.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def varying_axes(aval: Any) -> frozenset[str]:
    """Return the mesh axes over which shard_map (with check_vma=True) knows an array to differ."""
    if hasattr(aval, "vma"):  # before jax 0.10
        return aval.vma or frozenset()
    axis_type = aval.manual_axis_type
    return axis_type.varying if axis_type is not None else frozenset()


def marked_varying(x: jax.Array, axes: Iterable[str]) -> jax.Array:
    """Mark an array as different on every device of some axes."""
    axes = tuple(axes)
    if not axes:
        return x
    if not hasattr(jax.lax, "pcast"):  # before jax 0.9
        return jax.lax.pvary(x, axes)  # pyright: ignore[reportAttributeAccessIssue]
    return jax.lax.pcast(x, axes, to="varying")


def explicit_sharding(x: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding | None:
    """Return the sharding that a type names, which it does on meshes with explicit axes."""
    sharding = (x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)).sharding
    return sharding if sharding is not None and any(sharding.spec) else None


def zeros_of(shape: jax.ShapeDtypeStruct, dtype: Any = None) -> jax.Array:
    """Return zeros that lie, and differ over devices, as an abstract array says."""
    zeros = jnp.zeros(shape.shape, dtype or shape.dtype, out_sharding=explicit_sharding(shape))
    return marked_varying(zeros, varying_axes(shape))


def on_explicit_mesh(x: jax.Array) -> bool:
    """Say whether an array lies on a mesh with explicit axes, split or not."""
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def placed_as(x: jax.Array, like: jax.Array) -> jax.Array:
    """Return `x` with the sharding that the type of another array of its shape names."""
    sharding = explicit_sharding(like)
    return x if sharding is None else jax.sharding.reshard(x, sharding)


def gathered(x: jax.Array) -> jax.Array:
    """Return `x` whole on every device, where its type says that it is split."""
    sharding = explicit_sharding(x)
    if sharding is None:
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec()))


def taken(x: jax.Array, places: jax.Array) -> jax.Array:
    """Return `x[places]`, split over the devices as `x` is where the devices divide it."""
    sharding = explicit_sharding(x)
    if sharding is None:
        return x[places]
    leading, *others = sharding.spec
    shape = (places.size, *x.shape[1:])
    if not _divides(sharding, shape):
        leading = None
    wanted = NamedSharding(sharding.mesh, PartitionSpec(leading, *others))
    return x.at[places].get(out_sharding=wanted)


def dealt_out(x: jax.Array, count: int) -> jax.Array:
    """Return the leading axis as [count, n / count]: entry i goes to row i modulo count.

    The second axis is split over the devices as the leading one was, where they divide it.
    """
    shape = (x.shape[0] // count, count, *x.shape[1:])
    sharding = explicit_sharding(x)
    if sharding is None:
        return jnp.swapaxes(x.reshape(shape), 0, 1)
    leading, *others = sharding.spec
    wanted = NamedSharding(sharding.mesh, PartitionSpec(leading, None, *others))
    if not _divides(wanted, shape):
        return dealt_out(gathered(x), count)
    return jnp.swapaxes(jnp.reshape(x, shape, out_sharding=wanted), 0, 1)


def _divides(sharding: NamedSharding, shape: tuple[int, ...]) -> bool:
    try:
        sharding.shard_shape(shape)
    except ValueError:
        return False
    return True
