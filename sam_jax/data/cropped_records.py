"""The examples of a prepared set whose images are cropped to one size when they are read."""

import os
from collections.abc import Iterator
from concurrent import futures

import numpy as np

from sam_jax.data import prepared
from sam_jax.data.crops import MODES, cropped
from sam_jax.data.splits import Split


class CroppedRecords:
    """`Examples` of any size; threads decode and crop the images of a batch side by side."""

    def __init__(self, records: prepared.Records) -> None:
        """Wrap the examples of a split.

        Args:
          records: a split, opened with `encoded=True`.
        """
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def read(
        self,
        rows: np.ndarray,
        image_shape: tuple[int, int, int],
        seeds: np.ndarray | None = None,
    ) -> Split:
        """Read, decode and crop examples.

        Args:
          rows: their places in the split.
          image_shape: (size, size, channels) of the results.
          seeds: [n, k] uint32, one for the random crop of each; None for the crop of the centre.

        Returns:
          The images and labels, in the order of `rows`.

        Raises:
          ValueError: an image cannot be decoded.
        """
        images = np.empty((len(rows), *image_shape), np.uint8)
        labels = np.empty(len(rows), np.int32)

        def crop(i: int, encoded: bytes) -> None:
            try:
                images[i] = cropped(encoded, image_shape, None if seeds is None else seeds[i])
            except (OSError, SyntaxError) as error:
                raise ValueError(
                    f"Image {rows[i]} of {self._records.title} cannot be decoded: {error}"
                ) from error

        start = 0
        with futures.ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow lets others run
            for encoded, some_labels in self._records.chunks(rows):
                places = range(start, start + len(encoded))
                list(threads.map(crop, places, encoded))  # a list, so that errors are raised
                start = places.stop
                labels[places] = some_labels
        return Split(images, labels)

    def chunks(self, image_shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
        """Yield the centres of all images in stored order, many at a time."""
        for start in range(0, len(self), prepared.CHUNK):
            rows = np.arange(start, min(start + prepared.CHUNK, len(self)))
            yield self.read(rows, image_shape).images


def crop_shape(name: str, image_size: int, channels: int | None) -> tuple[int, int, int]:
    """Return the shape of the crops of a set.

    Args:
      name: of the set, for errors.
      image_size: their side, in pixels.
      channels: of the images; None where the set does not say.

    Raises:
      ValueError: the images can be no pictures.
    """
    channels = channels or 3
    if channels not in MODES:
        raise ValueError(
            f"data.image_size = {image_size} crops grey and RGB images, and those of {name} have "
            f"{channels} channels; set it to 0."
        )
    return image_size, image_size, channels
