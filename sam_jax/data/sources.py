"""The facts known about image classification sets; the published settings of some."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.data.channel_statistics import ChannelStatistics
from sam_jax.known import known


class Source(NamedTuple):
    """The facts known about a set before it is read.

    Attributes:
      name: the name in configs and in TensorFlow Datasets; scikit-learn ships the digits.
      image_shape: height, width and channels, as the models see them.
      num_classes: number of classes.
      mean: of each channel over the training set, of values in [0, 1].
      std: standard deviation of each channel over all pixels of the training set, likewise.
      augmentations: the default of a training whose config names none, in this order. They are the
        usual ones that keep an image's class.
      pad: pixels on each side before the random crop, an eighth of the image's, where the config
        gives none.
      cutout_size: side of the square that cutout paints over, half the image's, likewise.
      sizes_vary: whether the images of the set differ in size and are always cropped.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentations: tuple[str, ...]
    pad: int
    cutout_size: int
    sizes_vary: bool = False


# Means and standard deviations: of the digits and Fashion-MNIST they are computed from the training
# images here (a test repeats it); of the others they are the widely published ones.
_SOURCES = (
    Source(
        name="digits",
        image_shape=(8, 8, 1),
        num_classes=10,
        mean=(0.30489,),
        std=(0.37571,),
        # A mirrored digit is another sign. The digits fill their eight rows, so only small shifts:
        # copies shifted by one pixel help a support vector machine (98.6 to 99.4 % on three random
        # splits), mirrored copies harm it (97.8 %).
        augmentations=("crop_zero",),
        pad=1,
        cutout_size=4,
    ),
    Source(
        name="fashion_mnist",
        image_shape=(28, 28, 1),
        num_classes=10,
        mean=(0.28604,),
        std=(0.35302,),
        augmentations=("flip", "crop_zero", "cutout"),
        pad=4,
        cutout_size=14,
    ),
    Source(
        name="cifar10",
        image_shape=(32, 32, 3),
        num_classes=10,
        mean=(0.49140, 0.48216, 0.44653),
        std=(0.24703, 0.24349, 0.26159),
        augmentations=("flip", "crop_reflect"),
        pad=4,
        cutout_size=16,
    ),
    Source(
        name="cifar100",
        image_shape=(32, 32, 3),
        num_classes=100,
        mean=(0.50708, 0.48655, 0.44092),
        std=(0.26733, 0.25644, 0.27615),
        augmentations=("flip", "crop_reflect"),
        pad=4,
        cutout_size=16,
    ),
    Source(
        name="svhn_cropped",
        image_shape=(32, 32, 3),
        num_classes=10,
        mean=(0.43768, 0.44377, 0.47280),
        std=(0.19803, 0.20102, 0.19704),
        augmentations=("crop_reflect",),  # digits again
        pad=4,
        cutout_size=16,
    ),
    Source(
        name="imagenet2012",
        image_shape=(224, 224, 3),
        num_classes=1000,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        augmentations=("flip",),  # after the random crop
        pad=28,
        cutout_size=112,
        sizes_vary=True,
    ),
)
SOURCES: dict[str, Source] = {source.name: source for source in _SOURCES}


def source_of(name: str, num_classes: int, statistics: ChannelStatistics) -> Source:
    """Return the source of a set that has no entry in `SOURCES`, with cautious augmentation.

    Args:
      name: of the set.
      num_classes: number of classes.
      statistics: of its training images.

    >>> two = ChannelStatistics(examples=9, image_shape=(32, 40, 1), mean=(0.5,), std=(0.2,))
    >>> source = source_of("mine", 2, two)
    >>> source.augmentations, source.pad, source.cutout_size
    (('crop_zero',), 4, 16)
    """
    side = min(statistics.image_shape[:2])
    return Source(
        name=name,
        image_shape=statistics.image_shape,
        num_classes=num_classes,
        mean=statistics.mean,
        std=statistics.std,
        augmentations=("crop_zero",),  # mirrored, an image may belong to another class
        pad=_pad_of(side),
        cutout_size=_cutout_size_of(side),
    )


def cropped_source(source: Source, image_size: int) -> Source:
    """Return the source of a set whose images are cropped to squares.

    A random crop moves an image already, so that of the source's own augmentations the flip alone
    is left.

    Args:
      source: of the set.
      image_size: side of the squares, in pixels.

    >>> cropped = cropped_source(SOURCES["cifar10"], 64)
    >>> cropped.image_shape, cropped.augmentations, cropped.pad, cropped.cutout_size
    ((64, 64, 3), ('flip',), 8, 32)
    """
    return source._replace(
        image_shape=(image_size, image_size, source.image_shape[2]),
        augmentations=tuple(name for name in source.augmentations if name == "flip"),
        pad=_pad_of(image_size),
        cutout_size=_cutout_size_of(image_size),
    )


def _pad_of(side: int) -> int:
    return round(side / 8)


def _cutout_size_of(side: int) -> int:
    return max(1, side // 2)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Return `(images / 255 - mean) / std`, channel by channel.

    Args:
      images: [..., channels], values 0..255, uint8 or floating point.
      mean: of each channel, in units of the full range.
      std: of each channel, likewise.

    Returns:
      float32, the shape of `images`.

    Raises:
      ValueError: there is not one mean and one deviation for each channel, or they are none.

    >>> normalise(jnp.array([[0], [255]], jnp.uint8), mean=(0.5,), std=(0.25,)).tolist()
    [[-2.0], [2.0]]
    """
    if not getattr(images, "shape", ()):
        raise ValueError(f"images must be an array [..., channels], got {images!r}.")
    channels = images.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        numbers = known(values)
        if np.shape(values) != (channels,):
            raise ValueError(
                f"{name} must have a number for each of {channels} channels, got {values!r}."
            )
        least = 0 if name == "std" else -np.inf
        if numbers is not None and not (np.isfinite(numbers) & (numbers > least)).all():
            kind = "positive and finite" if name == "std" else "finite"
            raise ValueError(f"{name} must be {kind}, got {values!r}.")
    one_each = (1,) * (images.ndim - 1) + (-1,)
    shift, scale = (jnp.asarray(x, jnp.float32).reshape(one_each) for x in (mean, std))
    return (images.astype(jnp.float32) / 255 - shift) / scale
