"""Operations that are chosen at random for each image of a batch: what the policies share."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sam_jax.data import image_operations as ops
from sam_jax.data.autoaugment_levels import Levels, strengths_of

# Every branch of the switch sees (image, strength, coefficients, fill).
BRANCHES: dict[str, Callable[..., jax.Array]] = {
    "identity": lambda image, strength, coefficients, fill: image,
    "affine": lambda image, strength, coefficients, fill: ops.affine(image, coefficients, fill),
    "AutoContrast": lambda image, *_: ops.autocontrast(image),
    "Equalize": lambda image, *_: ops.equalise(image),
    "Invert": lambda image, *_: ops.invert(image),
    "Posterize": lambda image, strength, *_: ops.posterise(image, strength),
    "Solarize": lambda image, strength, *_: ops.solarise(image, strength),
    "Brightness": lambda image, strength, *_: ops.brightness(image, strength),
    "Color": lambda image, strength, *_: ops.colour(image, strength),
    "Contrast": lambda image, strength, *_: ops.contrast(image, strength),
    "Sharpness": lambda image, strength, *_: ops.sharpness(image, strength),
    "SolarizeAdd": lambda image, strength, *_: ops.solarise_add(image, strength),
    # The centre stands where affine operations have their matrix.
    "Cutout": lambda image, strength, coefficients, fill: ops.paint_square(
        image,
        coefficients[:2] - strength.astype(jnp.int32),
        2 * strength.astype(jnp.int32),
        fill,
    ),
}


def matrix_of(name: str, strength: float, height: int, width: int) -> tuple[float, ...] | None:
    """Return the affine matrix of a geometric operation, None for any other."""
    match name:
        case "ShearX":
            return (1, strength, 0, 0, 1, 0)
        case "ShearY":
            return (1, 0, 0, strength, 1, 0)
        case "TranslateX":
            return (1, 0, strength, 0, 1, 0)
        case "TranslateY":
            return (1, 0, 0, 0, 1, strength)
        case "Rotate":
            return ops.rotation_matrix(strength, height, width)
    return None


class CompiledOperations(NamedTuple):
    """Operations as NumPy arrays over the operations n and the two signs."""

    branch: np.ndarray  # int32 [n]
    strength: np.ndarray  # float32 [n, 2]
    coefficients: np.ndarray  # int32 [n, 2, 6]


def compile_operations(
    operations: Sequence[tuple[str, int]], height: int, width: int, levels: Levels
) -> CompiledOperations:
    """Return operations as arrays for images of one size.

    Args:
      operations: names and levels.
      height: image height in pixels.
      width: image width in pixels.
      levels: whose meaning the levels have.

    Raises:
      ValueError: an operation, a level or `levels` is unknown.
    """
    names = list(BRANCHES)
    branch, strength, coefficients = [], [], []
    for name, level in operations:
        signed = strengths_of(levels, name, level, height, width)
        matrices = [matrix_of(name, value, height, width) for value in signed]
        geometric = matrices[0] is not None
        if not geometric and name not in BRANCHES:
            raise ValueError(f"Unknown AutoAugment operation {name!r} in the policy.")
        branch.append(names.index("affine" if geometric else name))
        strength.append(signed)
        coefficients.append([ops.affine_coefficients(m or (1, 0, 0, 0, 1, 0)) for m in matrices])
    return CompiledOperations(
        np.array(branch, np.int32), np.array(strength, np.float32), np.array(coefficients, np.int32)
    )


class Draw(NamedTuple):
    """The operations chosen for one image, one after the other."""

    branch: jax.Array  # int32 [k]; 0 where the operation is left out
    strength: jax.Array  # float32 [k]
    coefficients: jax.Array  # int32 [k, 6]


def apply_operations(image: jax.Array, draw: Draw, fill: jax.Array) -> jax.Array:
    """Return one uint8 image `[H, W, 3]` after the operations that were drawn for it."""

    def step(image: jax.Array, one: Draw) -> tuple[jax.Array, None]:
        branches = tuple(BRANCHES.values())
        return lax.switch(one.branch, branches, image, one.strength, one.coefficients, fill), None

    image, _ = lax.scan(step, image, draw)  # a scan compiles the branches once, not k times
    return image


def apply_to_batch(images: jax.Array, draws: Draw, fill: jax.Array) -> jax.Array:
    """Return the images `[n, H, W, 3]`, each after its own operations; `draws` have the axis n."""

    def one(image: jax.Array, draw: Draw) -> jax.Array:
        return apply_operations(image, draw, fill)

    # On CPU a loop takes one branch of the switch per image. That is many times faster than vmap,
    # which turns the switch into all branches and a select. On an accelerator the iterations of a
    # loop would wait for each other, and every branch on the whole batch is little work.
    return lax.platform_dependent(
        images,
        draws,
        cpu=lambda images, draws: lax.map(lambda pair: one(*pair), (images, draws)),
        default=jax.vmap(one),
    )
