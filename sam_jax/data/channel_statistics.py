"""Mean and deviation of a set's channels, computed once and kept beside the set."""

import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

FILE_NAME = "channel_statistics.json"
CROPPED_FILE_NAME = "channel_statistics_{}.json"  # of crops of a size


class ChannelStatistics(NamedTuple):
    """The results of one pass over the training images.

    Attributes:
      examples: number of images.
      image_shape: height, width and channels, the same of every image.
      mean: of each channel over all pixels of all images, of values in [0, 1].
      std: standard deviation of each channel over the same, likewise.
    """

    examples: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class SizesDiffer(ValueError):
    """The images of a set differ in size, and nothing says to crop them."""


def channel_statistics(
    name: str, chunks: Iterable[Sequence[np.ndarray] | np.ndarray]
) -> ChannelStatistics:
    """Return the statistics of images that come in chunks.

    Sums are taken in integers, so the result depends neither on the order nor on the chunks.

    Args:
      name: of the set, for errors.
      chunks: sequences of images, uint8 [height, width, channels].

    Returns:
      The statistics of all of them.

    Raises:
      ValueError: there are no images, their sizes differ, or a channel is constant, which cannot be
        normalised.

    >>> images = np.array([[[[0], [255]]]], np.uint8)
    >>> channel_statistics("two pixels", [images])
    ChannelStatistics(examples=1, image_shape=(1, 2, 1), mean=(0.5,), std=(0.5,))
    """
    examples = 0
    shape: tuple[int, ...] = ()
    total = squares = np.zeros((), object)
    for chunk in chunks:
        for image in chunk:
            shape = shape or image.shape
            check_image_shape(name, image, shape)
        pixels = np.asarray(chunk, np.uint8).reshape(-1, *shape[2:])
        # 2^63 / 255^2 pixels of one chunk are more than any memory holds.
        total = total + pixels.sum(0, dtype=np.int64).astype(object)
        squares = squares + np.square(pixels, dtype=np.int64).sum(0).astype(object)
        examples += len(chunk)
    if not examples:
        raise ValueError(f"{name} has no training images.")
    height, width, channels = map(int, shape)
    count = examples * height * width
    # The variance is (count * squares - total^2) / count^2, exact until its one division.
    variances = [
        (count * int(q) - int(t) ** 2) / count**2 for t, q in zip(total, squares, strict=True)
    ]
    if not all(variances):
        raise ValueError(
            f"Channel {variances.index(0)} of the images of {name} has one value throughout, so "
            "they cannot be normalised; remove the channel, such as an opaque alpha, from the set."
        )
    return ChannelStatistics(
        examples=examples,
        image_shape=(height, width, channels),
        mean=tuple(int(t) / count / 255 for t in total),
        std=tuple(variance**0.5 / 255 for variance in variances),
    )


def check_image_shape(name: str, image: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise an error that says what to do where an image has not the size of the others."""
    if image.shape != shape:
        raise SizesDiffer(
            f"The images of {name} differ in size, for example {shape} and {image.shape}. Set "
            "data.image_size, such as 224, to crop and resize them, or choose a set of one size "
            "(TensorFlow Datasets has some twice, such as imagenet_resized/64x64)."
        )


def read_statistics(
    directory: pathlib.Path, examples: int, image_size: int = 0
) -> ChannelStatistics | None:
    """Return the statistics that are kept in a folder.

    Args:
      directory: the folder of a prepared version.
      examples: size of its training set.
      image_size: side of the crops that they are of; 0 where images are not cropped.

    Returns:
      None where the folder has no statistics of so many examples.
    """
    try:
        fields = json.loads((directory / file_name(image_size)).read_text())
        found = ChannelStatistics(
            fields["examples"], *(tuple(fields[key]) for key in ("image_shape", "mean", "std"))
        )
    except (OSError, ValueError, KeyError, TypeError):  # missing, or written by something else
        return None
    return found if found.examples == examples else None


def keep_statistics(
    directory: pathlib.Path, statistics: ChannelStatistics, image_size: int = 0
) -> None:
    """Write the statistics into a folder at one stroke, so that no other process reads half.

    If the folder cannot be written, because it is shared for example, a warning says so. The
    statistics are then computed again each time.

    Args:
      directory: the folder of a prepared version.
      statistics: what to keep.
      image_size: as in `read_statistics`.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=directory, suffix=".tmp")
        with os.fdopen(handle, "w") as file:
            json.dump(statistics._asdict(), file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, directory / file_name(image_size))
    except OSError as error:
        logging.warning("The statistics of %s could not be kept: %s", directory, error)


def file_name(image_size: int) -> str:
    """Return the name of the file with the statistics of crops of a size, or of whole images."""
    return CROPPED_FILE_NAME.format(image_size) if image_size else FILE_NAME
