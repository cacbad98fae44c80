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
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.data.autoaugment_levels import Levels
from sam_jax.data.drawn_operations import Draw, apply_to_batch, compile_operations
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
    entries = [operation for sub_policy in policy for operation in sub_policy]
    operations = [(name, level) for name, _, level in entries]
    branch, strength, coefficients = compile_operations(operations, height, width, levels)
    return CompiledPolicy(
        branch.reshape(-1, 2),
        np.array([probability for _, probability, _ in entries], np.float32).reshape(-1, 2),
        strength.reshape(-1, 2, 2),
        coefficients.reshape(-1, 2, 2, 6),
    )


def draw_operations(key: Key, policy: CompiledPolicy) -> Draw:
    """Draw a sub-policy uniformly, whether each operation applies, and the signs."""
    choice_key, apply_key, sign_key = jax.random.split(key, 3)
    branch, probability, strength, coefficients = map(jnp.asarray, policy)
    i = jax.random.randint(choice_key, (), 0, branch.shape[0])
    applies = jax.random.uniform(apply_key, (2,)) < probability[i]
    negative = jax.random.bernoulli(sign_key, shape=(2,)).astype(jnp.int32)
    signed = (jnp.arange(2), negative)
    return Draw(jnp.where(applies, branch[i], 0), strength[i][signed], coefficients[i][signed])


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
    return apply_to_batch(images, draws, fill)
