"""The depthwise convolution as a sum of shifted images, and the gradients of it.

    y[n, i, j, c] = sum_{a, b} kernel[a, b, 0, c] x[n, s i + a, s j + b, c]

The sum is bilinear, and JAX's own derivatives of it are right. They are slow on CPUs: the gradient
of the images is a sum of padded arrays, whose borders keep the compiler from vector instructions;
that of the kernel is one reduction of whole arrays for each entry. Hence the sum is a primitive of
JAX with transposes of its own. Derivatives of all orders in both modes, and vmap, follow from that.

Processor milliseconds of one core (Xeon with AVX-512, jax 0.10), 32 images, kernel 3x3, stride 1:

    images and channels       32x32x144  16x16x192  8x8x384  4x4x960
    kernel, by JAX                   57          -       7.3       -
    kernel, "pixels"                 12        3.1      1.1      0.6
    kernel, "rows"                    6        5.0      2.2      1.4
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from sam_jax.models import bilinear
from sam_jax.shardings import explicit_sharding, marked_varying, varying_axes

CACHE_BYTES = 2**21  # of one core: what the sums over images may take and stay fast
MOST_ROWS = 64  # that are written out one by one, which takes compile time

# Its arguments are the images [..., n, H, W, C] and the kernels [..., height, width, 1, C] with the
# same leading axes, which vmap adds; static: stride.
_sum_p = Primitive("depthwise_sum")


def depthwise_sum(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Return y for every window that lies within the images.

    Args:
      x: images [n, H, W, C].
      kernel: [height, width, 1, C] of the same type.
      stride: s, the step between windows along both axes.

    Returns:
      Images [n, (H - height) // stride + 1, (W - width) // stride + 1, C].

    >>> x = jnp.arange(5.0).reshape(1, 1, 5, 1)
    >>> print(depthwise_sum(x, jnp.ones((1, 3, 1, 1)))[0, 0, :, 0])
    [3. 6. 9.]
    """
    return _sum_p.bind(*bilinear.alike(x, kernel), stride=stride)


def _shifted(x: jax.Array, shape: tuple[int, ...], a: int, b: int, stride: int) -> jax.Array:
    """Return what the entry (a, b) of a kernel sees for outputs [..., rows, columns, C]."""
    rows, columns = (stride * (length - 1) + 1 for length in shape[-3:-1])
    return x[..., a : a + rows : stride, b : b + columns : stride, :]


def _sum(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    shape = _shape(x.shape, kernel.shape, stride)
    entries = kernel[..., None, :, :, :, :]  # beside the images
    total: Any = sum(
        _shifted(x, shape, a, b, stride) * entries[..., a, b, None, :, :]
        for a in range(kernel.shape[-4])
        for b in range(kernel.shape[-3])
    )
    return total


def _shape(x: Sequence[int], kernel: Sequence[int], stride: int) -> tuple[int, ...]:
    rows, columns = ((x[i] - kernel[i - 1]) // stride + 1 for i in (-3, -2))
    return (*x[:-3], rows, columns, x[-1])


def _type_of_sum(x: Any, kernel: Any, *, stride: int) -> Any:
    return x.update(shape=_shape(x.shape, kernel.shape, stride))


def _image_gradient(ct: jax.Array, x: Any, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Return the sum over the outputs, spread by the stride and padded, of the turned kernel."""
    padding = [(0, 0, 0)] * x.aval.ndim
    for axis in (-3, -2):
        size, length = kernel.shape[axis - 1], x.aval.shape[axis]
        padding[axis] = (size - 1, size - 1 + (length - size) % stride, stride - 1)
    spread = lax.pad(ct, jnp.zeros((), ct.dtype), padding)
    return _sum_p.bind(spread, jnp.flip(kernel, (-4, -3)), stride=1)


def _kernel_gradient(ct: jax.Array, x: jax.Array, kernel: Any, *, stride: int) -> jax.Array:
    size = kernel.aval.shape[-4:-2]
    # Image after image is no order for a split batch, nor for the many threads of a GPU.
    one_by_one = jax.default_backend() == "cpu" and explicit_sharding(x) is None
    way = _by_image if one_by_one else _at_once
    function = functools.partial(way, size=size, stride=stride)
    return bilinear.with_leading_axes(function)(x, ct)


def _by_image(x: jax.Array, ct: jax.Array, *, size: tuple[int, int], stride: int) -> jax.Array:
    """Return sum_{n, i, j} ct[n, i, j, c] x[n, s i + a, s j + b, c] as [height, width, 1, C].

    One image after the other is added, so that everything stays in the cache: pixel by pixel, or
    with the rows of an image added up where the sums of all pixels would not fit.
    """
    dtype = jnp.promote_types(ct.dtype, jnp.float32)
    shape = ct.shape[1:]
    by_rows = (
        size[0] * size[1] * ct[0].size * dtype.itemsize > CACHE_BYTES and shape[0] <= MOST_ROWS
    )
    entries = [(a, b) for a in range(size[0]) for b in range(size[1])]

    def product(image: jax.Array, its_ct: jax.Array, a: int, b: int) -> jax.Array:
        if not by_rows:
            return _shifted(image, shape, a, b, stride) * its_ct
        row = (1, *shape[1:])
        total: Any = sum(
            _shifted(image, row, a + stride * i, b, stride)[0] * its_ct[i] for i in range(shape[0])
        )
        return total

    def add(n: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        image, its_ct = (
            lax.dynamic_index_in_dim(y, n, keepdims=False).astype(dtype) for y in (x, ct)
        )
        return [
            total + product(image, its_ct, *entry)
            for total, entry in zip(sums, entries, strict=True)
        ]

    zeros = jnp.zeros(shape[1:] if by_rows else shape, dtype)
    zeros = marked_varying(zeros, varying_axes(jax.typeof(ct)))
    sums = lax.fori_loop(0, x.shape[0], add, [zeros] * len(entries))
    total = jnp.sum(jnp.stack(sums).reshape(len(entries), -1, shape[-1]), axis=1)
    return total.reshape(*size, 1, -1).astype(ct.dtype)


def _at_once(x: jax.Array, ct: jax.Array, *, size: tuple[int, int], stride: int) -> jax.Array:
    """Return what `_by_image` returns, as one reduction for each entry of the kernel."""
    dtype = jnp.promote_types(ct.dtype, jnp.float32)
    ct_wide = ct.astype(dtype)
    entries = [
        jnp.sum(_shifted(x, ct.shape, a, b, stride).astype(dtype) * ct_wide, axis=(0, 1, 2))
        for a in range(size[0])
        for b in range(size[1])
    ]
    return jnp.stack(entries).reshape(*size, 1, -1).astype(ct.dtype)


_sum_p.def_impl(jax.jit(_sum, static_argnames="stride"))
_sum_p.def_abstract_eval(_type_of_sum)
ad.defbilinear(_sum_p, _image_gradient, _kernel_gradient)
batching.primitive_batchers[_sum_p] = bilinear.batch_images(_sum_p)
mlir.register_lowering(_sum_p, mlir.lower_fun(_sum, multiple_results=False))
