"""One way to measure on many devices: each one of a mesh takes an equal part of the rows.

Rows are what an instrument goes through one after the other: points, directions, draws, batches.
The mesh may reach over several processes: every one of them has the results.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, PartitionSpec

from sam_jax.metrics.placement import explicit_axes, placed
from sam_jax.pytree import add
from sam_jax.typing import PyTree

# (the results of a part, the axes of the mesh) -> those of all parts
Combine = Callable[[jax.Array, tuple[str, ...]], jax.Array]


def map_rows(fn: Callable[[Any], PyTree], rows: PyTree, mesh: Mesh | None = None) -> PyTree:
    """Return `fn` of every row, one after the other on each device.

    Args:
      fn: a row -> a pytree of arrays.
      rows: arrays [k, ...].
      mesh: devices to share the rows out over, as in `over_devices`; None for no sharing.

    Returns:
      The results, arrays [k, ...].

    >>> map_rows(lambda x: x**2, jnp.arange(3.0)).tolist()
    [0.0, 1.0, 4.0]
    """
    if mesh is None or mesh.size == 1:
        return jax.lax.map(fn, rows)
    return over_devices(lambda part: jax.lax.map(fn, part), mesh)(rows)


def sum_rows(
    fn: Callable[[Any], PyTree],
    rows: PyTree,
    weights: jax.Array,
    zeros: PyTree,
    mesh: Mesh | None = None,
) -> PyTree:
    """Return the sum of weights[i] * fn(row i), in the memory of two results a device.

    Args:
      fn: a row -> a pytree of arrays.
      rows: arrays [k, ...].
      weights: [k].
      zeros: a pytree like a result, of zeros.
      mesh: devices to share the rows out over, as in `over_devices`; None for no sharing.

    >>> sum_rows(lambda x: x**2, jnp.arange(3.0), jnp.array([1.0, 1.0, 0.5]), jnp.zeros(())).item()
    3.0
    """

    def total(part: tuple[PyTree, jax.Array]) -> PyTree:
        def add_row(total: PyTree, item: tuple[PyTree, jax.Array]) -> tuple[PyTree, None]:
            row, weight = item
            return add(total, fn(row), weight), None

        return jax.lax.scan(add_row, zeros, part)[0]

    if mesh is None or mesh.size == 1:
        return total((rows, weights))
    fill = -weights.shape[0] % mesh.size
    weights = jnp.pad(weights, (0, fill))  # a row that fills a part counts for nothing
    return _on_parts(total, (_filled(rows, fill), weights), (), mesh, jax.lax.psum)


def over_devices(fn: Callable[..., PyTree], mesh: Mesh) -> Callable[..., PyTree]:
    """Return `fn(rows, *others)`, compiled, with the rows split over the devices of a mesh.

    Args:
      fn: arrays [k, ...] and other arguments -> a pytree of arrays [k, ...], one row for each. The
        rows must not depend on each other. Every device calls it with its part of the rows.
      mesh: devices to share the rows out over, along all axes, explicit ones or not. No array that
        `fn` closes over may lie on its explicit axes.

    Returns:
      The same function for any number of rows. Where the parts would differ in size, the last row
      is repeated, and the repeated results are dropped. Every device gets the other arguments, and
      all results, whole.

    >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("devices",))
    >>> over_devices(lambda points, scale: scale * points, mesh)(jnp.arange(3.0), 2.0).tolist()
    [0.0, 2.0, 4.0]
    """

    def all_parts(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
        return jax.lax.all_gather(x, axes, tiled=True)

    compiled = jax.jit(lambda rows, others: _on_parts(fn, rows, others, mesh, all_parts))

    def measure(rows: PyTree, *others: Any) -> PyTree:
        count = jnp.shape(jax.tree.leaves(rows)[0])[0]
        fill = -count % mesh.size
        values = compiled(_filled(rows, fill), others)
        return jax.tree.map(lambda value: value[:count], values) if fill else values

    return measure


def even_batch_size(examples: int, batch_size: int, devices: int) -> int:
    """Return the size of the batches that gives every device as many of them as the others.

    Args:
      examples: that are cut into batches.
      batch_size: the most that one may have.
      devices: that share them out.

    >>> even_batch_size(10_000, 1000, devices=8)
    625
    """
    if devices == 1:
        return min(batch_size, examples)
    rounds = -(-examples // (batch_size * devices))
    return -(-examples // (rounds * devices))


def _filled(rows: PyTree, fill: int) -> PyTree:
    """Return arrays with their last row repeated `fill` times."""
    if not fill:
        return rows
    return jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[-1:], fill, axis=0)]), rows)


def _on_parts(
    fn: Callable[..., PyTree], rows: PyTree, others: PyTree, mesh: Mesh, combine: Combine
) -> PyTree:
    """Return what the devices make of their parts, combined, whole on every device."""
    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    if not explicit_axes(mesh):
        fn, closed_over = _without_closure(fn, rows, others, mesh.size)
        others = (*others, closed_over)

    def of_part(rows: PyTree, others: PyTree) -> PyTree:
        return jax.tree.map(lambda x: combine(x, mesh.axis_names), fn(rows, *others))

    sharded = jax.shard_map(
        of_part, mesh=mesh, in_specs=(split, whole), out_specs=whole, check_vma=False
    )
    try:
        values = sharded(placed(rows, mesh, split=True), placed(others, mesh))
    except NotImplementedError as error:
        if not explicit_axes(mesh):
            raise
        raise ValueError(
            "loss_fn must not close over arrays that lie on the explicit axes of the mesh over "
            "which its evaluations are shared out. Leave out mesh, and every evaluation is split "
            "as its data are; or give arrays that lie on no mesh, such as NumPy arrays."
        ) from error
    return placed(values, mesh)


def _without_closure(
    fn: Callable[..., PyTree], rows: PyTree, others: PyTree, parts: int
) -> tuple[Callable[..., PyTree], list[Any]]:
    """Return `fn(rows, *others, closed_over)` for a part of the rows, and what `fn` closes over.

    An array whose type names a mesh with automatic axes, as the arguments of jit do, is refused by
    some operations inside of shard_map where it is closed over, and taken where it is an argument.
    """

    def part_of(x: jax.Array) -> jax.ShapeDtypeStruct:
        length, *shape = jnp.shape(x)
        return jax.ShapeDtypeStruct((length // parts, *shape), jnp.result_type(x))

    jaxpr, shapes = jax.make_jaxpr(fn, return_shape=True)(jax.tree.map(part_of, rows), *others)
    structure = jax.tree.structure(shapes)

    def call(*arguments: Any) -> PyTree:
        *visible, closed_over = arguments
        values = jaxpr_as_fun(jaxpr.replace(consts=closed_over))(*jax.tree.leaves(visible))
        return structure.unflatten(values)

    return call, jaxpr.consts
