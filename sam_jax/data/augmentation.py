"""Data augmentation of uint8 image batches, jitted and on the device."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sam_jax.data.autoaugment import CIFAR10_POLICY, SVHN_POLICY, Policy, autoaugment
from sam_jax.data.autoaugment_levels import Levels
from sam_jax.data.checks import check_source, check_whole, described
from sam_jax.data.image_operations import paint_square
from sam_jax.data.randaugment import check_magnitude, randaugment
from sam_jax.data.sources import Source
from sam_jax.draws import check_key
from sam_jax.known import known
from sam_jax.suggestions import did_you_mean
from sam_jax.typing import Key


class _NamedPolicy(NamedTuple):
    """An AutoAugment policy as one code has it."""

    policy: Policy
    levels: Levels
    black: bool  # whether what comes from outside the image is black, whatever `fill` is


_POLICIES = {
    "autoaugment_cifar10": _NamedPolicy(CIFAR10_POLICY, "authors", black=False),
    "autoaugment_svhn": _NamedPolicy(SVHN_POLICY, "authors", black=False),
    "autoaugment_cifar10_torchvision": _NamedPolicy(CIFAR10_POLICY, "torchvision", black=True),
    "autoaugment_svhn_torchvision": _NamedPolicy(SVHN_POLICY, "torchvision", black=True),
}
AUGMENTATIONS = ("flip", "crop_zero", "crop_reflect", "cutout", "randaugment", *_POLICIES)


class Augmentation(NamedTuple):
    """What `augment` is given for one set; `_asdict()` gives its keywords.

    Attributes:
      names: operations of `AUGMENTATIONS`, in their order.
      pad: pixels on each side before a crop.
      cutout_size: side of the square of a cutout.
      fill: a grey level for each channel.
      randaugment_layers: operations of an image by RandAugment.
      randaugment_magnitude: of each of them.
    """

    names: tuple[str, ...]
    pad: int
    cutout_size: int
    fill: tuple[int, ...]
    randaugment_layers: int = 2
    randaugment_magnitude: int = 9


def augmentation_of(
    source: Source,
    names: Sequence[str] | None = None,
    pad: int | None = None,
    cutout_size: int | None = None,
    *,
    randaugment_layers: int = 2,
    randaugment_magnitude: int = 9,
) -> Augmentation:
    """Return the augmentation of a set, the source's own wherever None is given.

    Args:
      source: the set.
      names: operations of `AUGMENTATIONS`, in their order; empty for none.
      pad: pixels on each side before a crop.
      cutout_size: side of the square of a cutout.
      randaugment_layers: as in `augment`.
      randaugment_magnitude: likewise.

    Returns:
      An Augmentation that fills with the set's mean.

    Raises:
      ValueError: `source` is none, a name is unknown, or a number is out of its range.

    >>> from sam_jax.data import SOURCES
    >>> augmentation_of(SOURCES["digits"], cutout_size=3)[:4]
    (('crop_zero',), 1, 3, (78,))
    """
    check_source(source)
    found = Augmentation(
        names=source.augmentations if names is None else _checked_names(names),
        pad=source.pad if pad is None else pad,
        cutout_size=source.cutout_size if cutout_size is None else cutout_size,
        fill=tuple(round(255 * mean) for mean in source.mean),
        randaugment_layers=randaugment_layers,
        randaugment_magnitude=randaugment_magnitude,
    )
    _check_numbers(found.pad, found.cutout_size, randaugment_layers, randaugment_magnitude)
    return found


def random_flip(key: Key, image: jax.Array) -> jax.Array:
    """Return the image `[H, W, C]`, mirrored left to right with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def random_crop(key: Key, image: jax.Array, pad: int, mode: str) -> jax.Array:
    """Return the image padded on all sides and cropped to its size at a uniform place.

    Args:
      key: a typed key.
      image: `[H, W, C]`.
      pad: pixels on each side; both offsets are uniform on 0 .. 2 * pad.
      mode: "constant" for zeros, or "reflect" (the edge pixel is not repeated).
    """
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
    top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return lax.dynamic_slice(padded, (top, left, 0), image.shape)


def random_cutout(key: Key, image: jax.Array, size: int, fill: jax.Array) -> jax.Array:
    """Return the image with one square painted over.

    The centre is uniform over the pixels. The part of a square outside the image is clipped, so
    squares near the border cover less (DeVries & Taylor, 2017, arXiv:1708.04552).

    Args:
      key: a typed key.
      image: uint8 `[H, W, C]`.
      size: side of the square in pixels.
      fill: uint8 `[C]`.
    """
    height, width, _ = image.shape
    corner = jax.random.randint(key, (2,), 0, jnp.array([height, width])) - size // 2
    return paint_square(image, corner, size, fill)


def augment(
    key: Key,
    images: jax.Array,
    names: Sequence[str],
    *,
    pad: int = 4,
    cutout_size: int = 16,
    fill: int | Sequence[int] | jax.Array = 128,
    randaugment_layers: int = 2,
    randaugment_magnitude: int = 9,
) -> jax.Array:
    """Return a batch of images, augmented by the named operations in the order given.

    Pure and jittable (all but `key`, `images` and `fill` static). What happens to example i
    depends only on `key`, i and `names`, not on the other examples or their number.

    Args:
      key: a typed key.
      images: uint8 `[n, H, W, C]`.
      names: any of `AUGMENTATIONS`: "flip" (horizontal, probability 1/2); "crop_zero" and
        "crop_reflect" (pad by `pad`, crop to size); "cutout" (a square of `cutout_size`);
        "randaugment" (RGB only);
        "autoaugment_cifar10" and "autoaugment_svhn" (RGB only), with the levels of the authors'
        CIFAR code; "autoaugment_cifar10_torchvision" and "autoaugment_svhn_torchvision", with
        the levels of torchvision and, as by its default, black where pixels come from outside
        the image. AutoAugment's authors apply their policy first, then flip, crop and cutout;
        RandAugment comes before the flip likewise.
      pad: pixels of padding on each side for the crops; the padding of "crop_zero" is black.
      cutout_size: side of the cutout square in pixels, at most the image's longer one; half the
        image's is usual. A square of the image's size leaves nothing of one image in H * W.
      fill: grey level, or one value a channel (0 .. 255), for cutout and for what AutoAugment's
        geometric operations move in, torchvision's policies excepted. The usual choice is the
        data set's channel mean, which normalisation turns into zero.
      randaugment_layers: operations of an image by RandAugment, N.
      randaugment_magnitude: M of each of them, an integer in 0 .. 30.

    Returns:
      uint8 `[n, H, W, C]`.

    Raises:
      ValueError: a name is unknown; the images are not a uint8 batch; `key` is no typed key;
        AutoAugment gets images without three channels or under 3 pixels; or `pad`, `cutout_size`,
        `fill` or the numbers of RandAugment do not fit the images.

    >>> images = jnp.full((2, 8, 8, 3), 7, jnp.uint8)
    >>> out = augment(jax.random.key(0), images, ("flip", "crop_zero"), pad=2)
    >>> out.shape, out.dtype
    ((2, 8, 8, 3), dtype('uint8'))
    """
    check_key(key)
    names = _checked_names(names)
    layers, magnitude = randaugment_layers, randaugment_magnitude
    _check_numbers(pad, cutout_size, layers, magnitude)
    _check_images(images, names, pad, cutout_size)
    if "randaugment" in names:
        check_magnitude(layers, magnitude, *images.shape[1:3])
    fill = _fill_colour(fill, images.shape[-1])
    one = {
        "flip": random_flip,
        "crop_zero": lambda key, image: random_crop(key, image, pad, "constant"),
        "crop_reflect": lambda key, image: random_crop(key, image, pad, "reflect"),
        "cutout": lambda key, image: random_cutout(key, image, cutout_size, fill),
    }
    example_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(images.shape[0]))
    for position, name in enumerate(names):
        keys = jax.vmap(jax.random.fold_in, (0, None))(example_keys, position)
        if name in _POLICIES:
            policy, levels, black = _POLICIES[name]
            images = autoaugment(
                keys, images, policy, jnp.zeros_like(fill) if black else fill, levels
            )
        elif name == "randaugment":
            images = randaugment(keys, images, fill, layers, magnitude)
        else:
            images = jax.vmap(one[name])(keys, images)
    return images


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of operations as a tuple; a ValueError where one is none of them."""
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    unknown = [n for n in names if n not in AUGMENTATIONS] if is_list else []
    if unknown or not is_list:
        near = did_you_mean(str(unknown[0]), AUGMENTATIONS) if unknown else ""
        raise ValueError(
            f"Unknown augmentation {unknown or names!r}: give a tuple of names (in a config "
            f"data.augmentation) from {AUGMENTATIONS}.{near}"
        )
    return tuple(names)


def _check_numbers(pad: int, cutout_size: int, layers: int, magnitude: int) -> None:
    """Raise a ValueError where a number suits no image."""
    check_whole("pad", pad)
    check_whole("cutout_size", cutout_size, 1)
    check_whole("randaugment_layers", layers, 1)
    check_whole("randaugment_magnitude", magnitude, 0, 30)


def _check_images(images: jax.Array, names: tuple[str, ...], pad: int, cutout_size: int) -> None:
    """Raise a ValueError where the images are none, or the operations do not fit them."""
    if getattr(images, "dtype", None) != jnp.uint8 or images.ndim != 4:
        raise ValueError(
            "augment takes uint8 images [n, H, W, C], before normalisation; "
            f"got {described(images)}."
        )
    height, width, channels = images.shape[1:]
    if {"randaugment", *_POLICIES} & set(names) and (channels != 3 or min(height, width) < 3):
        raise ValueError(
            "AutoAugment and RandAugment need RGB images of at least 3 x 3 pixels, got "
            f"{height} x {width} x {channels}; leave it out of names={names} "
            "(in a config data.augmentation)."
        )
    if "crop_reflect" in names and pad >= min(height, width):
        raise ValueError(
            "pad (in a config data.pad) must with crop_reflect be below the image size "
            f"{height} x {width}; got {pad}."
        )
    if "cutout" in names and cutout_size > max(height, width):
        raise ValueError(
            f"cutout_size = {cutout_size} is larger than the images, {height} x {width} pixels, "
            "and would hide them wholly; set cutout_size (in a config data.cutout_size) to "
            f"{max(1, min(height, width) // 2)}, half of that, or drop the name."
        )


def _fill_colour(fill: int | Sequence[int] | jax.Array, channels: int) -> jax.Array:
    """Return the fill as uint8 `[C]`."""
    given = fill
    try:
        fill = jnp.asarray(fill)
    except (TypeError, ValueError) as error:
        raise ValueError(f"fill must be grey levels in 0 .. 255, got {given!r}.") from error
    if fill.shape not in ((), (channels,)):
        raise ValueError(
            f"fill must be one value or one for each of {channels} channels, got shape "
            f"{fill.shape}."
        )
    numbers = known(fill)
    if numbers is not None and not ((numbers >= 0) & (numbers <= 255)).all():
        raise ValueError(f"fill must lie in 0 .. 255, got {numbers}.")
    return jnp.broadcast_to(fill, (channels,)).astype(jnp.uint8)
