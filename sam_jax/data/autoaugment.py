"""AutoAugment for CIFAR-10 and SVHN: the published policies on uint8 images, on the device.

Cubuk et al., 2019, arXiv:1805.09501: the 25 sub-policies of the appendix for each data set, with
Pillow's semantics. The meaning of a policy's levels is a choice, because codes differ in it:
`autoaugment_levels` has the levels of the authors' CIFAR code and of torchvision. Further
differences:

- The authors' code and google-research/sam draw from 95 sub-policies on CIFAR-10, of several
  searches, with 20 of these 25 among them; torchvision has the 25 of the paper.
- google-research/sam reads levels as the ImageNet code does: translation by 25 pixels a level (10
  levels leave a 32-pixel image empty); solarisation from 25.6 * level upwards, where the authors'
  CIFAR code starts at 256 - 25.6 * level; and rotation by fractions of a degree.
- The authors carry an alpha channel. At the very end they paint pixels from outside the image in
  the data set's mean, or black where a later operation dropped the channel. Here, as in the other
  two, such pixels take the colour `fill` at once; torchvision's default is black.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sam_jax.data import image_operations as ops
from sam_jax.data.autoaugment_levels import Levels, strengths_of
from sam_jax.typing import Key

Operation: TypeAlias = tuple[str, float, int]  # name, probability, level in 0 .. 10
Policy: TypeAlias = tuple[tuple[Operation, Operation], ...]

CIFAR10_POLICY: Policy = (
    (("Invert", 0.1, 7), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 8), ("Equalize", 0.9, 2)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 5), ("Equalize", 0.5, 1)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 7), ("AutoContrast", 0.4, 8)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 3)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 8), ("Equalize", 0.6, 4)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 6)),
    (("AutoContrast", 0.8, 4), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 3)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 2), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 8), ("Invert", 0.1, 3)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 1)),
)

SVHN_POLICY: Policy = (
    (("ShearX", 0.9, 4), ("Invert", 0.2, 3)),
    (("ShearY", 0.9, 8), ("Invert", 0.7, 5)),
    (("Equalize", 0.6, 5), ("Solarize", 0.6, 6)),
    (("Invert", 0.9, 3), ("Equalize", 0.6, 3)),
    (("Equalize", 0.6, 1), ("Rotate", 0.9, 3)),
    (("ShearX", 0.9, 4), ("AutoContrast", 0.8, 3)),
    (("ShearY", 0.9, 8), ("Invert", 0.4, 5)),
    (("ShearY", 0.9, 5), ("Solarize", 0.2, 6)),
    (("Invert", 0.9, 6), ("AutoContrast", 0.8, 1)),
    (("Equalize", 0.6, 3), ("Rotate", 0.9, 3)),
    (("ShearX", 0.9, 4), ("Solarize", 0.3, 3)),
    (("ShearY", 0.8, 8), ("Invert", 0.7, 4)),
    (("Equalize", 0.9, 5), ("TranslateY", 0.6, 6)),
    (("Invert", 0.9, 4), ("Equalize", 0.6, 7)),
    (("Contrast", 0.3, 3), ("Rotate", 0.8, 4)),
    (("Invert", 0.8, 5), ("TranslateY", 0.0, 2)),
    (("ShearY", 0.7, 6), ("Solarize", 0.4, 8)),
    (("Invert", 0.6, 4), ("Rotate", 0.8, 4)),
    (("ShearY", 0.3, 7), ("TranslateX", 0.9, 3)),
    (("ShearX", 0.1, 6), ("Invert", 0.6, 5)),
    (("Solarize", 0.7, 2), ("TranslateY", 0.6, 7)),
    (("ShearY", 0.8, 4), ("Invert", 0.8, 8)),
    (("ShearX", 0.7, 9), ("TranslateY", 0.8, 3)),
    (("ShearY", 0.8, 5), ("AutoContrast", 0.7, 3)),
    (("ShearX", 0.7, 2), ("Invert", 0.1, 5)),
)

# Every branch of the switch sees (image, strength, coefficients, fill).
_BRANCHES: dict[str, Callable[..., jax.Array]] = {
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


class CompiledPolicy(NamedTuple):
    """A policy as NumPy arrays over sub-policies n, the two positions, and the two signs."""

    branch: np.ndarray  # int32 [n, 2]
    probability: np.ndarray  # float32 [n, 2]
    strength: np.ndarray  # float32 [n, 2, 2], the sign last
    coefficients: np.ndarray  # int32 [n, 2, 2, 6], the sign before the last axis


def compile_policy(
    policy: Policy, height: int, width: int, levels: Levels = "authors"
) -> CompiledPolicy:
    """Return a policy as arrays for images of one size.

    Args:
      policy: sub-policies of two operations each.
      height: image height in pixels.
      width: image width in pixels.
      levels: whose meaning the levels have.

    Raises:
      ValueError: an operation, a level or `levels` is unknown.

    >>> compile_policy(CIFAR10_POLICY, 32, 32).coefficients.shape
    (25, 2, 2, 6)
    """
    names = list(_BRANCHES)
    entries = [operation for sub_policy in policy for operation in sub_policy]
    branch, strength, coefficients = [], [], []
    for name, _, level in entries:
        signed = strengths_of(levels, name, level, height, width)
        matrices = [matrix_of(name, value, height, width) for value in signed]
        geometric = matrices[0] is not None
        if not geometric and name not in _BRANCHES:
            raise ValueError(f"Unknown AutoAugment operation {name!r} in the policy.")
        branch.append(names.index("affine" if geometric else name))
        strength.append(signed)
        coefficients.append([ops.affine_coefficients(m or (1, 0, 0, 0, 1, 0)) for m in matrices])
    return CompiledPolicy(
        np.array(branch, np.int32).reshape(-1, 2),
        np.array([probability for _, probability, _ in entries], np.float32).reshape(-1, 2),
        np.array(strength, np.float32).reshape(-1, 2, 2),
        np.array(coefficients, np.int32).reshape(-1, 2, 2, 6),
    )


class Draw(NamedTuple):
    """The two operations chosen for one image."""

    branch: jax.Array  # int32 [2]; 0 where the operation is left out
    strength: jax.Array  # float32 [2]
    coefficients: jax.Array  # int32 [2, 6]


def draw_operations(key: Key, policy: CompiledPolicy) -> Draw:
    """Draw a sub-policy uniformly, whether each operation applies, and the signs."""
    choice_key, apply_key, sign_key = jax.random.split(key, 3)
    branch, probability, strength, coefficients = map(jnp.asarray, policy)
    i = jax.random.randint(choice_key, (), 0, branch.shape[0])
    applies = jax.random.uniform(apply_key, (2,)) < probability[i]
    negative = jax.random.bernoulli(sign_key, shape=(2,)).astype(jnp.int32)
    signed = (jnp.arange(2), negative)
    return Draw(jnp.where(applies, branch[i], 0), strength[i][signed], coefficients[i][signed])


def apply_operations(image: jax.Array, draw: Draw, fill: jax.Array) -> jax.Array:
    """Return one uint8 image `[H, W, 3]` after its two drawn operations."""

    def step(image: jax.Array, one: Draw) -> tuple[jax.Array, None]:
        branches = tuple(_BRANCHES.values())
        return lax.switch(one.branch, branches, image, one.strength, one.coefficients, fill), None

    image, _ = lax.scan(step, image, draw)  # a scan compiles the branches once, not twice
    return image


@functools.partial(jax.jit, static_argnames=("policy", "levels"))
def autoaugment(
    keys: Key, images: jax.Array, policy: Policy, fill: jax.Array, levels: Levels = "authors"
) -> jax.Array:
    """Return a batch of images, each after one randomly drawn sub-policy.

    Args:
      keys: typed keys `[n]`, one an image.
      images: uint8 `[n, H, W, 3]` with H and W at least 3.
      policy: `CIFAR10_POLICY`, `SVHN_POLICY` or another table of the same form.
      fill: uint8 `[3]`, the colour of pixels that come from outside the image.
      levels: whose meaning the levels of the policy have, "authors" or "torchvision".

    Returns:
      uint8 `[n, H, W, 3]`.

    >>> images = jnp.zeros((2, 32, 32, 3), jnp.uint8)
    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> autoaugment(keys, images, SVHN_POLICY, jnp.zeros(3, jnp.uint8)).shape
    (2, 32, 32, 3)
    """
    compiled = compile_policy(policy, images.shape[1], images.shape[2], levels)
    draws = jax.vmap(lambda key: draw_operations(key, compiled))(keys)

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
