"""What the primitives of convolutions share: leading axes, vmap, and axes of a mesh.

Their arguments are images [..., n, H, W, C] and kernels, or further images, of four axes after the
same leading axes, which vmap adds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from sam_jax.shardings import marked_varying, varying_axes


def alike(*arrays: jax.Array) -> list[jax.Array]:
    """Return arrays marked as different over all axes of a mesh over which one of them is."""
    axes = [varying_axes(jax.typeof(x)) for x in arrays]
    every = frozenset().union(*axes)
    return [marked_varying(x, every - own) for x, own in zip(arrays, axes, strict=True)]


def with_leading_axes(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return a function of two arrays of four axes, mapped over those in front of them."""

    def mapped(a: jax.Array, b: jax.Array) -> jax.Array:
        each = function
        for _ in range(a.ndim - 4):
            each = jax.vmap(each)
        return each(a, b)

    return mapped


def batch_both(primitive: Primitive) -> Callable[..., tuple[jax.Array, int]]:
    """Return the rule of vmap that gives both arguments one more leading axis."""

    def rule(
        arguments: Sequence[jax.Array], axes: Sequence[Any], **parameters: Any
    ) -> tuple[jax.Array, int]:
        sizes = [x.shape[axis] for x, axis in zip(arguments, axes, strict=True) if axis is not None]
        together = [
            jnp.broadcast_to(x, (sizes[0], *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
            for x, axis in zip(arguments, axes, strict=True)
        ]
        return primitive.bind(*together, **parameters), 0

    return rule


def batch_images(primitive: Primitive) -> Callable[..., tuple[jax.Array, int]]:
    """Return the rule of vmap for images and kernels: one kernel for all takes more images."""
    both = batch_both(primitive)

    def rule(
        arguments: Sequence[jax.Array], axes: Sequence[Any], **parameters: Any
    ) -> tuple[jax.Array, int]:
        if axes[1] is not None:
            return both(arguments, axes, **parameters)
        x = jnp.moveaxis(arguments[0], axes[0], -5)
        images = x.reshape(*x.shape[:-5], -1, *x.shape[-3:])
        y = primitive.bind(images, arguments[1], **parameters)
        return y.reshape(*x.shape[:-3], *y.shape[-3:]), x.ndim - 5

    return rule
