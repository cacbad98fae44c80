"""RandAugment: a few operations drawn uniformly, at one magnitude, on uint8 images on the device.

Cubuk et al., 2020, arXiv:1909.13719, with the sixteen operations and the magnitudes of the code
that trained EfficientNet and that google-research/sam uses. The paper lists fourteen, with the
identity in place of Invert, Cutout and SolarizeAdd. `autoaugment_levels` says what a magnitude
means: Posterize and Solarize become weaker as it grows. Departures from that code:

- Operations are Pillow's (`image_operations`). The code blends the contrast with a grey level of
  H * W / 256, at most 255, in place of the mean, and cuts off where Pillow rounds.
- Pixels from outside the image and Cutout's square take the colour `fill`; the code has 128.
- Beyond magnitude 20, where the code would shift by negative bits, Posterize keeps all bits.
  Solarize leaves the image as it is from magnitude 10 on.
"""

import functools

import jax
import jax.numpy as jnp

from sam_jax.data.checks import check_whole
from sam_jax.data.drawn_operations import (
    BRANCHES,
    CompiledOperations,
    Draw,
    apply_to_batch,
    compile_operations,
)
from sam_jax.typing import Key

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
    "SolarizeAdd",
)
CUTOUT = list(BRANCHES).index("Cutout")


def check_magnitude(layers: int, magnitude: int, height: int, width: int) -> None:
    """Raise a ValueError where the numbers cannot be used on images of a size."""
    check_whole("randaugment_layers", layers, 1)
    highest = min(30, (min(height, width) - 1) // 10)
    if not 0 <= magnitude <= highest:
        raise ValueError(
            f"randaugment_magnitude = {magnitude} (in a config data.randaugment_magnitude) is no "
            f"integer in 0 .. {highest}. An image of {height} x {width} pixels is moved by 10 "
            "pixels a unit, and has to be seen."
        )


def draw_layers(
    key: Key, operations: CompiledOperations, layers: int, height: int, width: int
) -> Draw:
    """Draw so many operations uniformly, with repetition, their signs and the places of cutouts."""
    choice_key, sign_key, place_key = jax.random.split(key, 3)
    branch, strength, coefficients = map(jnp.asarray, operations)
    chosen = jax.random.randint(choice_key, (layers,), 0, len(OPERATIONS))
    signed = chosen, jax.random.bernoulli(sign_key, shape=(layers,)).astype(jnp.int32)
    centres = jax.random.randint(place_key, (layers, 2), 0, jnp.array([[height, width]]))
    is_cutout = (branch[chosen] == CUTOUT)[:, None]
    places = jnp.where(is_cutout, jnp.pad(centres, ((0, 0), (0, 4))), coefficients[signed])
    return Draw(branch[chosen], strength[signed], places)


@functools.partial(jax.jit, static_argnames=("layers", "magnitude"))
def randaugment(
    keys: Key, images: jax.Array, fill: jax.Array, layers: int = 2, magnitude: int = 9
) -> jax.Array:
    """Return a batch of images, each after its own randomly drawn operations.

    Args:
      keys: typed keys `[n]`, one an image.
      images: uint8 `[n, H, W, 3]`.
      fill: uint8 `[3]`, the colour of pixels that come from outside the image, and of cutouts.
      layers: N, the operations of an image.
      magnitude: M, an integer in 0 .. 30. It moves images by 10 M pixels, which are fewer than
        their shorter side has.

    Returns:
      uint8 `[n, H, W, 3]`.

    Raises:
      ValueError: `layers` or `magnitude` does not fit.

    >>> images = jnp.zeros((2, 96, 96, 3), jnp.uint8)
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> randaugment(keys, images, jnp.zeros(3, jnp.uint8)).shape
    (2, 96, 96, 3)
    """
    height, width = images.shape[1:3]
    check_magnitude(layers, magnitude, height, width)
    entries = tuple((name, magnitude) for name in OPERATIONS)
    operations = compile_operations(entries, height, width, "randaugment")
    draws = jax.vmap(lambda key: draw_layers(key, operations, layers, height, width))(keys)
    return apply_to_batch(images, draws, fill)
