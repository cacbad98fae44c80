"""Pillow's operations on one uint8 image, in integers, so that every backend gives the same bits.

All take and return uint8 `[H, W, C]`. They agree with Pillow bit for bit, except `autocontrast`,
whose docstring says where it may differ by one grey level.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def rotation_matrix(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """Return the affine matrix that turns an image counter-clockwise about its centre.

    The output point p reads the input at `R (p - c) + c`, with R the rotation matrix and c the
    centre.

    Args:
      degrees: the angle in degrees.
      height: image height in pixels.
      width: image width in pixels.

    Returns:
      `(a, b, c, d, e, f)`, for `affine_coefficients`.

    >>> rotation_matrix(0.0, 4, 4)
    (1.0, -0.0, 0.0, 0.0, 1.0, 0.0)
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def affine_coefficients(matrix: tuple[float, ...]) -> np.ndarray:
    """Return an affine map in 16.16 fixed point, with the half pixel of the centres folded in.

    The output pixel at column x, row y reads the input at
    `(a (x + 1/2) + b (y + 1/2) + c, d (x + 1/2) + e (y + 1/2) + f)`, rounded down.

    Args:
      matrix: `(a, b, c, d, e, f)`, from output to input, as in Pillow's `Image.AFFINE`.

    Returns:
      int32 `[6]`, for `affine`.

    >>> affine_coefficients((1, 0, 3, 0, 1, 0)) / 65536
    array([1. , 0. , 3.5, 0. , 1. , 0.5])
    """
    a, b, c, d, e, f = matrix
    shifted = np.array([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2], np.float64)
    return np.floor(shifted * 65536 + 0.5).astype(np.int32)


def affine(image: jax.Array, coefficients: jax.Array, fill: jax.Array) -> jax.Array:
    """Return the image under an affine map, with the nearest pixel.

    Args:
      image: uint8 `[H, W, C]`.
      coefficients: int32 `[6]` from `affine_coefficients`.
      fill: uint8 `[C]`, the colour of pixels that come from outside the image.
    """
    height, width, channels = image.shape
    a, b, c, d, e, f = coefficients
    y, x = jnp.mgrid[:height, :width]
    column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixels = image.reshape(height * width, channels)
    # The bounds are met by construction, so that the gather need not test them again.
    moved = pixels.at[jnp.where(inside, row * width + column, 0)].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], moved, fill)


def blend(degenerate: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return `degenerate + factor * (image - degenerate)`, rounded down and clipped to 0 .. 255.

    Pillow rounds the product and then the sum to float32. A compiler may fuse the two into one
    rounding, which can move the result by a grey level. The factor is therefore split into two
    halves of 12 bits: both products are exact, and only the two wanted roundings remain.

    Args:
      degenerate: the image at factor 0; it broadcasts against `image`.
      image: the image at factor 1, uint8.
      factor: float32 scalar; above 1 it extrapolates.
    """
    high = lax.bitcast_convert_type(
        lax.bitcast_convert_type(factor, jnp.int32) & -4096, jnp.float32
    )
    low = factor - high
    start = degenerate.astype(jnp.float32)
    difference = image.astype(jnp.float32) - start
    mixed = start + (high * difference + low * difference)
    return jnp.clip(mixed, 0, 255).astype(jnp.uint8)


def luma(image: jax.Array) -> jax.Array:
    """Return the grey image `[H, W, 1]`, int32, of an RGB image `[H, W, 3]` (ITU-R 601)."""
    red, green, blue = jnp.split(image.astype(jnp.int32), 3, axis=-1)
    # The weights add to 2^16: fixed point with 16 bits, rounded half up.
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the image blended with black: factor 0 is black, 1 the image."""
    return blend(jnp.zeros((), jnp.uint8), image, factor)


def colour(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the RGB image blended with its grey image: factor 0 is grey, 1 the image."""
    return blend(luma(image), image, factor)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the RGB image blended with its mean grey level, itself rounded to an integer."""
    grey = luma(image)
    mean = (2 * jnp.sum(grey) + grey.size) // (2 * grey.size)
    return blend(mean, image, factor)


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the image blended with its smoothed self: factor 0 is smooth, above 1 sharper.

    The smoothing kernel is `[[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13`; border pixels keep their
    value.

    Args:
      image: uint8 `[H, W, C]` with H and W at least 3.
      factor: float32 scalar.
    """
    height, width, _ = image.shape
    wide = image.astype(jnp.int32)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * wide[1:-1, 1:-1]
    # Rounding half up; 2 * total + 13 is odd, hence never a multiple of 26: no tie exists.
    smooth = (2 * total + 13) // 26
    y, x = jnp.mgrid[:height, :width]
    inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    padded = jnp.pad(smooth, ((1, 1), (1, 1), (0, 0)))
    return blend(jnp.where(inner[..., None], padded, wide), image, factor)


def invert(image: jax.Array) -> jax.Array:
    """Return `255 - image`."""
    return 255 - image


def solarise(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """Return the image with all values at or above `threshold` (0 .. 256) inverted."""
    return jnp.where(image.astype(jnp.int32) < threshold, image, 255 - image)


def solarise_add(image: jax.Array, addition: jax.Array) -> jax.Array:
    """Return the image with `addition` on all values below 128, clipped to 255."""
    wide = image.astype(jnp.int32)
    added = jnp.clip(wide + addition.astype(jnp.int32), 0, 255)
    return jnp.where(wide < 128, added, wide).astype(jnp.uint8)


def paint_square(
    image: jax.Array, corner: jax.Array, size: int | jax.Array, fill: jax.Array
) -> jax.Array:
    """Return the image with a square painted over; what lies outside the image is left away.

    Args:
      image: uint8 `[H, W, C]`.
      corner: int32 `[2]`, the row and the column of the upper left pixel.
      size: side of the square in pixels.
      fill: uint8 `[C]`.
    """
    height, width, _ = image.shape
    top, left = corner
    y, x = jnp.mgrid[:height, :width]
    inside = (y >= top) & (y < top + size) & (x >= left) & (x < left + size)
    return jnp.where(inside[..., None], fill, image)


def posterise(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Return the image with only its `bits` (0 .. 8) leading bits kept."""
    shift = 8 - jnp.asarray(bits, jnp.int32)
    return ((image.astype(jnp.int32) >> shift) << shift).astype(jnp.uint8)


def autocontrast(image: jax.Array) -> jax.Array:
    """Return the image with each channel stretched linearly to 0 .. 255; constant ones stay.

    A value v of a channel with extremes lo < hi becomes `255 (v - lo) / (hi - lo)`, rounded down
    exactly. Pillow computes the same quotient as `v * scale - lo * scale` in float64. Where the
    quotient is an integer, Pillow may land one grey level lower (the brightest pixel at 254, for
    instance).
    """
    wide = image.astype(jnp.int32)
    low, high = (f(wide, axis=(0, 1), keepdims=True) for f in (jnp.min, jnp.max))
    stretched = 255 * (wide - low) // jnp.maximum(high - low, 1)
    return jnp.where(high > low, stretched, wide).astype(jnp.uint8)


def equalise(image: jax.Array) -> jax.Array:
    """Return the image with the histogram of each channel flattened, as Pillow does it.

    Let `h` be the histogram of N pixels and `last` its count at the largest value present. With
    `step = (N - last) // 255`, a value v becomes
    `min(255, (step // 2 + sum_(u < v) h(u)) // step)`; channels with step 0 stay.
    """
    height, width, channels = image.shape
    pixels = image.reshape(height * width, channels).astype(jnp.int32)
    channel = jnp.arange(channels)
    histogram = jnp.zeros((channels, 256), jnp.int32)
    histogram = histogram.at[channel, pixels].add(1, mode="promise_in_bounds")
    below = jnp.cumsum(histogram, axis=1) - histogram
    brightest = jnp.max(pixels, axis=0)
    step = below[channel, brightest][:, None] // 255
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    table = jnp.where(step > 0, table, jnp.arange(256))
    mapped = table.at[channel, pixels].get(mode="promise_in_bounds")
    return mapped.astype(jnp.uint8).reshape(image.shape)
