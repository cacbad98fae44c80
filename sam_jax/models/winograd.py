"""The 3x3 convolution of many channels for CPUs, with fewer multiplications (Winograd, 1980).

A tile of m x m outputs needs a window of t x t inputs, t = m + 2. With d the window, g the kernel
and o the products of all entries at their places (Lavin and Gray, 2016, arXiv:1509.09308),

    outputs = A^T [(G g G^T) o (B^T d B)] A

takes t^2 multiplications for each pair of channels where the definition takes 9 m^2: 2.25 times
fewer for m = 2, four times fewer for m = 4. The sum over channels is one matrix product for each of
the t^2 places. A, G and B are made of t - 1 points at which polynomials are evaluated
(Toom-Cook); the last row stands for infinity. The points (0, +-1/sqrt(2), +-sqrt(2)) of m = 4 keep
the rounding error of float32 below seven times that of one matrix product over the windows, half
of what the usual 0, +-1, +-2 have; with m = 2 it is that of the definition.

The convolution is a primitive of JAX, as the depthwise sum is. So is its gradient of the kernel,
and the two are closed under transposition: derivatives of all orders in both modes, and vmap, run
by this algorithm and keep images and kernels alone.

GFLOP/s of the definition on one core (Xeon with AVX-512, jax 0.10; medians of 5), 64 images:

    images and channels      32x32x64  16x16x128  8x8x256  4x4x512
    XLA's convolution              76        108       71       87
    m = 2                          94        156      137      111
    m = 4                         130        178      157       95
    gradient of the kernel, XLA    25         26       83       79
    the same, m = 4                75        131      147      101
    PyTorch 2.14, forward         149        161      164      105
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from sam_jax.models import bilinear
from sam_jax.shardings import marked_varying, on_explicit_mesh, varying_axes

# What is worth it, by the table above.
LEAST_CHANNELS = 64
LEAST_SIDE = 4
SIDE_OF_FOUR = 8  # images from this side on take m = 4, smaller ones m = 2

# Images are taken in chunks, so that what stands between the steps stays in the caches: at most so
# many tiles and bytes of transformed windows. Twice as many cost 38 % at 32x32x64.
MOST_TILES = 256
MOST_BYTES = 4_800_000

# Arguments: images [..., n, H, W, C], and kernels [..., 3, 3, C, O] or images [..., n, H, W, O].
_convolution_p = Primitive("winograd_convolution")
_kernel_gradient_p = Primitive("winograd_kernel_gradient")


class Transforms(NamedTuple):
    """The matrices of the algorithm for tiles of m outputs along an axis."""

    outputs: np.ndarray  # A^T [m, t]
    kernel: np.ndarray  # G [t, 3]
    windows: np.ndarray  # B^T [t, t]


def transforms(points: Sequence[float]) -> Transforms:
    """Return the matrices of t - 1 points.

    >>> print(transforms((0.0, 1.0, -1.0)).outputs)
    [[ 1.  1.  1.  0.]
     [ 0.  1. -1.  1.]]
    """
    others = [[q for q in points if q != p] for p in points]
    scales = np.array(
        [np.prod([p - q for q in rest]) for p, rest in zip(points, others, strict=True)] + [1.0]
    )

    def powers(count: int) -> np.ndarray:
        return np.array(
            [[p**k for k in range(count)] for p in points] + [[0.0] * (count - 1) + [1]]
        )

    rows = [np.append(np.poly(rest)[::-1], 0.0) for rest in others] + [np.poly(points)[::-1]]
    windows = np.array(rows)
    windows[np.abs(windows) < 1e-12] = 0.0
    return Transforms(powers(len(points) - 1).T, powers(3) / scales[:, None], windows)


_ROOT = 2**0.5
TRANSFORMS = {
    2: transforms((0.0, 1.0, -1.0)),
    4: transforms((0.0, 1 / _ROOT, -1 / _ROOT, _ROOT, -_ROOT)),
}


def pays(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Say whether `convolution` is faster on a CPU, and rounds as finely as need be."""
    return (
        x.dtype == kernel.dtype == jnp.float32
        and kernel.shape[:2] == (3, 3)
        and stride == 1
        and min(kernel.shape[2:]) >= LEAST_CHANNELS
        and min(x.shape[1:3]) >= LEAST_SIDE
        and not on_explicit_mesh(x)  # a split batch has no chunks
    )


def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve images with a 3x3 kernel, padded with one zero on every side.

    Args:
      x: images [n, H, W, C].
      kernel: [3, 3, C, O] of the same type.

    Returns:
      Images [n, H, W, O].

    >>> print(convolution(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].round(4))
    [[4. 6. 4.]
     [6. 9. 6.]
     [4. 6. 4.]]
    """
    return _convolution_p.bind(*bilinear.alike(x, kernel))


def _along(matrix: np.ndarray, parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Return sum_k matrix[i, k] parts[k], stacked over i along a new axis.

    The barrier makes it one pass over its input: fused further, it would be computed anew for every
    entry of what follows.
    """

    def row(weights: np.ndarray) -> jax.Array:
        terms = [
            part if weight == 1 else part * float(weight)
            for weight, part in zip(weights, parts, strict=True)
            if weight
        ]
        return functools.reduce(jnp.add, terms)

    return lax.optimization_barrier(jnp.stack([row(weights) for weights in matrix], axis))


def _tile_side(shape: Sequence[int]) -> int:
    return 4 if min(shape[-3:-1]) >= SIDE_OF_FOUR else 2


def _tiles(shape: Sequence[int], m: int) -> tuple[int, int]:
    """Return the rows and columns of tiles of images [n, H, W, C]."""
    return -(-shape[-3] // m), -(-shape[-2] // m)


def _padded(x: jax.Array, m: int, border: int) -> jax.Array:
    rows, columns = _tiles(x.shape, m)
    after = (border + rows * m - x.shape[1], border + columns * m - x.shape[2])
    return jnp.pad(x, ((0, 0), (border, after[0]), (border, after[1]), (0, 0)))


def _of_windows(matrix: np.ndarray, x: jax.Array, m: int, tiles: tuple[int, int]) -> jax.Array:
    """Return the transform of all windows of padded images, [t, t, n, rows, columns, C].

    The first axis belongs to the columns. The windows have the size that the matrix takes, and
    start m pixels apart.
    """
    size = matrix.shape[1]
    for axis, count in ((1, tiles[0]), (3, tiles[1])):
        parts = [lax.slice_in_dim(x, a, a + m * (count - 1) + 1, m, axis) for a in range(size)]
        x = _along(matrix, parts, 0)
    return x


def _of_kernel(matrix: np.ndarray, kernel: jax.Array) -> jax.Array:
    """Return the transform of kernels, [t, t, C, O], the first axis of the columns."""
    return _along(matrix, list(_along(matrix, list(kernel), 1)), 0)


def _chunks(x: jax.Array, like: Sequence[int], m: int) -> jax.Array:
    """Return images [n, ...] as [chunks, images, ...], zeros after the last one where need be.

    Args:
      x: images.
      like: the shape of the images whose windows are transformed.
      m: the side of a tile.
    """
    tiles = math.prod(_tiles(like, m))
    values = tiles * (m + 2) ** 2 * like[-1]
    most = max(1, min(MOST_TILES // tiles, MOST_BYTES // (values * x.dtype.itemsize)))
    count = -(-x.shape[0] // most)
    size = -(-x.shape[0] // count)
    if count * size > x.shape[0]:
        x = jnp.pad(x, ((0, count * size - x.shape[0]), *[(0, 0)] * (x.ndim - 1)))
    return x.reshape(count, size, *x.shape[1:])


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    m = _tile_side(x.shape)
    matrices, tiles = TRANSFORMS[m], _tiles(x.shape, m)
    transformed = _of_kernel(matrices.kernel, kernel)

    def outputs(x: jax.Array) -> jax.Array:
        windows = _of_windows(matrices.windows, _padded(x, m, 1), m, tiles)
        # [t, t, n, rows, columns, C] by [t, t, C, O], place by place.
        places: Any = lax.dot_general(windows, transformed, (((5,), (2,)), ((0, 1), (0, 1))))
        places = lax.optimization_barrier(places)
        columns = _along(matrices.outputs, list(places), 4)
        y = _along(matrices.outputs, list(columns), 2)  # [n, rows, m, columns, m, O]
        y = y.reshape(x.shape[0], tiles[0] * m, tiles[1] * m, -1)
        return y[:, : x.shape[1], : x.shape[2]]

    y = lax.map(outputs, _chunks(x, x.shape, m))
    return y.reshape(-1, *y.shape[2:])[: x.shape[0]]


def _gradient_of_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return sum_{n, i, j} x[n, i + a - 1, j + b - 1, c] y[n, i, j, o] as [3, 3, C, O]."""
    m = _tile_side(x.shape)
    matrices, tiles = TRANSFORMS[m], _tiles(x.shape, m)

    def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, y = chunk
        windows = _of_windows(matrices.windows, _padded(x, m, 1), m, tiles)
        outputs = _of_windows(matrices.outputs.T, _padded(y, m, 0), m, tiles)
        # By three axes: of more the compiler transposes one side, which takes as long again.
        windows, outputs = (z.reshape(places, -1, z.shape[-1]) for z in (windows, outputs))
        return total + lax.dot_general(windows, outputs, (((1,), (1,)), ((0,), (0,)))), None

    places = (m + 2) ** 2
    shape = (places, x.shape[-1], y.shape[-1])
    zeros = marked_varying(jnp.zeros(shape, x.dtype), varying_axes(jax.typeof(x)))
    total, _ = lax.scan(add, zeros, (_chunks(x, x.shape, m), _chunks(y, x.shape, m)))
    total = total.reshape(m + 2, m + 2, *shape[1:])
    rows = _along(matrices.kernel.T, list(total), 1)  # [t, 3, C, O]
    return _along(matrices.kernel.T, list(rows), 0)


def _turned(kernel: jax.Array) -> jax.Array:
    """Return the kernel of the transposed convolution, [..., 3, 3, O, C]."""
    return jnp.swapaxes(jnp.flip(kernel, (-4, -3)), -1, -2)


def _define(
    primitive: Primitive,
    function: Callable[..., jax.Array],
    shape: Callable[[tuple[int, ...], tuple[int, ...]], tuple[int, ...]],
    batch: Callable[[Primitive], Callable[..., Any]],
) -> None:
    whole = bilinear.with_leading_axes(function)
    primitive.def_impl(jax.jit(whole))
    primitive.def_abstract_eval(lambda a, b: a.update(shape=shape(a.shape, b.shape)))
    batching.primitive_batchers[primitive] = batch(primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(whole, multiple_results=False))


_define(_convolution_p, _convolve, lambda x, k: (*x[:-1], k[-1]), bilinear.batch_images)
_define(
    _kernel_gradient_p,
    _gradient_of_kernel,
    lambda x, y: (*x[:-4], 3, 3, x[-1], y[-1]),
    bilinear.batch_both,
)
ad.defbilinear(
    _convolution_p,
    lambda ct, x, kernel: _convolution_p.bind(ct, _turned(kernel)),
    lambda ct, x, kernel: _kernel_gradient_p.bind(x, ct),
)
ad.defbilinear(
    _kernel_gradient_p,
    lambda ct, x, y: _convolution_p.bind(y, _turned(ct)),
    lambda ct, x, y: _convolution_p.bind(x, ct),
)
