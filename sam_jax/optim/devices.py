"""The operations of a step across the devices of pmap and shard_map."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sam_jax import pytree
from sam_jax.shardings import marked_varying, varying_axes
from sam_jax.typing import Batch, Params, PyTree

AxisName = str | tuple[str, ...]


def axis_size(axis_name: AxisName | None) -> int:
    """Return the number of devices of an axis; one without an axis."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def averaged_over_groups(
    grad_fn: Callable[..., tuple[PyTree, Any]],
    group: int,
    axis_name: AxisName | None,
    weight: jax.Array | None = None,
) -> Callable[..., tuple[PyTree, Any]]:
    """Average the gradient that grad_fn returns over groups of neighbouring devices.

    Its auxiliary output stays the device's own. Where the group is all devices, shard_map knows
    the average to be the same on each.
    """
    devices = axis_size(axis_name)
    if axis_name is None or group == 1 < devices:
        return grad_fn
    groups = None
    if group < devices:
        groups = [list(range(i, i + group)) for i in range(0, devices, group)]

    def averaged(params: Params, batch: Batch, **keywords: Any) -> tuple[PyTree, Any]:
        gradient, aux = grad_fn(vary_over(params, axis_name), batch, **keywords)
        if groups and any(varying_axes(jax.typeof(x)) for x in jax.tree.leaves(gradient)):
            raise ValueError(
                f"m averages over groups of {group} of the {devices} devices, which JAX offers "
                "under pmap, or under shard_map with check_vma=False; here check_vma is True."
            )

        def mean(x: jax.Array) -> jax.Array:
            wide = weighted_mean(pytree.widen(x), axis_name, weight, groups)
            return wide.astype(x.dtype)

        return jax.tree.map(mean, gradient), aux

    return averaged


def weighted_mean(
    x: jax.Array,
    axis_name: AxisName,
    weight: jax.Array | None,
    groups: list[list[int]] | None = None,
) -> jax.Array:
    """Average over the devices of the axis, or of each group; a weight a device, or none."""
    if weight is None:
        return jax.lax.pmean(x, axis_name, axis_index_groups=groups)
    total = jax.lax.psum(weight, axis_name, axis_index_groups=groups)
    part = jnp.where(weight == 0, 0, weight * x)
    return pytree.safe_divide(jax.lax.psum(part, axis_name, axis_index_groups=groups), total)


def of_last_device(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """Give every device the array of the last one."""
    is_last = jax.lax.axis_index(axis_name) == axis_size(axis_name) - 1
    if pytree.is_key(x):
        numbers = of_last_device(jax.random.key_data(x), axis_name)
        return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(x))
    as_number = x.astype(jnp.int32) if x.dtype == bool else x
    return jax.lax.psum(jnp.where(is_last, as_number, 0), axis_name).astype(x.dtype)


def of_all_devices(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """Return the rows of all devices, known to shard_map to be the same on each."""
    x = vary_over(x, axis_name)
    if hasattr(jax.lax, "all_gather_invariant"):  # before jax 0.9
        gather = jax.lax.all_gather_invariant  # pyright: ignore[reportAttributeAccessIssue]
        return gather(x, axis_name, tiled=True)
    return jax.lax.all_gather(x, axis_name, tiled=True, to="invarying")


def vary_over(tree: PyTree, axis_name: AxisName | None) -> PyTree:
    """Mark replicated arrays as different on every device.

    shard_map sums the gradient of a replicated array over the devices by itself; a perturbation
    of the device's own needs the gradient before that sum.
    """
    if axis_name is None:
        return tree
    names = (axis_name,) if isinstance(axis_name, str) else axis_name

    def vary(x: jax.Array) -> jax.Array:
        missing = [name for name in names if name not in varying_axes(jax.typeof(x))]
        return marked_varying(x, missing)

    return jax.tree.map(vary, tree)


def agreed(tree: PyTree, axis_name: AxisName | None) -> PyTree:
    """Mark values as the same on every device, for shard_map(check_vma=True).

    Values computed from gradients that were averaged over all devices are the same on each device.
    shard_map cannot always know that; their mean is each of them.
    """
    if axis_name is None:
        return tree

    def agree(x: jax.Array) -> jax.Array:
        if not varying_axes(jax.typeof(x)):
            return x
        if jnp.issubdtype(x.dtype, jnp.inexact):
            return jax.lax.pmean(x, axis_name)
        return of_last_device(x, axis_name)

    return jax.tree.map(agree, tree)
