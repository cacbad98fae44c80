"""Where arrays lie, as far as their types say: fresh arrays take the sharding of their neighbours.

On a mesh with explicit axes the type of an array names its sharding, and two arrays meet only where
these agree. With automatic axes the compiler finds the shardings, and nothing is to do.
"""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def explicit_sharding(x: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding | None:
    """Return the sharding that a type names, which it does on meshes with explicit axes."""
    sharding = (x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)).sharding
    return sharding if sharding is not None and any(sharding.spec) else None


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
