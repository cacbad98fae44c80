"""Mixup: batches of pairs of images, with the labels of both."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sam_jax.data.augmentation import random_cutout
from sam_jax.typing import Batch, Key


def mixup(key: Key, images: jax.Array, labels: jax.Array, alpha: float, classes: int) -> Batch:
    r"""Mix every example with the one at its place from the other end of the batch.

    .. math::
      \tilde x_i = \lambda x_i + (1 - \lambda) x_{n + 1 - i}, \qquad
      \tilde y_i = \lambda y_i + (1 - \lambda) y_{n + 1 - i}, \qquad
      \lambda = \max(\lambda', 1 - \lambda'), \quad \lambda' \sim \mathrm{Beta}(\alpha, \alpha)

    with y one-hot. One lambda serves the whole batch.

    Args:
      key: a typed key.
      images: x, [n, H, W, C] floats, normalised.
      labels: [n] integers.
      alpha: of the beta distribution; 1 is uniform, and towards 0 nothing is mixed.
      classes: number of classes.

    Returns:
      The mixed images and the labels' shares, [n, classes].

    Example:
      >>> images = jnp.arange(2.0).reshape(2, 1, 1, 1)
      >>> mixed, shares = mixup(jax.random.key(0), images, jnp.array([0, 2]), 1.0, 3)
      >>> bool(mixed[0, 0, 0, 0] == shares[0, 2]), shares.shape
      (True, (2, 3))

    Source: google-research/sam, `batch_level_augmentations=mixup` with alpha = 1, which pairs and
    draws in this way; Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", draws the
    pairs at random and takes lambda' itself. Here the batch is one device's share, there that of
    one host; lambda is the same on all devices.
    """
    weight = jax.random.beta(key, alpha, alpha).astype(images.dtype)
    weight = jnp.maximum(weight, 1 - weight)
    shares = jax.nn.one_hot(labels, classes, dtype=images.dtype)
    mixed_images, mixed_shares = (weight * x + (1 - weight) * x[::-1] for x in (images, shares))
    return mixed_images, mixed_shares


def make_mix(
    alpha: float, classes: int, cutout_size: int, axis_name: str
) -> Callable[[Key, Batch], Batch]:
    """Return the mixup of a device's share of a batch, followed by cutout where it has a size.

    The square that cutout paints over is the mean of the data set, zero after normalisation. Every
    image has a square of its own; google-research/sam cuts one place out of the whole batch.

    Args:
      alpha: as in `mixup`.
      classes: likewise.
      cutout_size: side of the square in pixels; 0 for no cutout.
      axis_name: of the devices, which share the key.

    Returns:
      (key of the step, (images, labels)) -> (images, shares of the labels).
    """

    def mix(key: Key, batch: Batch) -> Batch:
        weight_key, cutout_key = jax.random.split(key)
        images, shares = mixup(weight_key, batch[0], batch[1], alpha, classes)
        if cutout_size:
            device_key = jax.random.fold_in(cutout_key, jax.lax.axis_index(axis_name))
            fill = jnp.zeros(images.shape[-1], images.dtype)
            images = jax.vmap(random_cutout, (0, 0, None, None))(
                jax.random.split(device_key, len(images)), images, cutout_size, fill
            )
        return images, shares

    return mix
