"""The parts of a set, loaded or yet to be read."""

from typing import NamedTuple, Protocol

import numpy as np

from sam_jax.data.sources import Source


class Split(NamedTuple):
    """Images, uint8 [n, height, width, channels], and their labels, int32 [n]."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A training and a test split with their source.

    Attributes:
      source: the facts known about the set.
      train: a `Split`, or a `StreamedSplit` where it stays on disk.
      test: likewise, always as `train`.
    """

    source: Source
    train: Split
    test: Split


class Examples(Protocol):
    """Images and labels that are read when they are asked for."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def read(
        self,
        rows: np.ndarray,
        image_shape: tuple[int, int, int],
        seeds: np.ndarray | None = None,
    ) -> Split:
        """Return the examples at some places, in their order.

        Args:
          rows: the places.
          image_shape: height, width and channels of every image.
          seeds: [n, k] uint32, one for what is drawn at random about each example when it is read;
            None for none.
        """
        ...


class InMemory:
    """`Examples` that are in memory already."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._split = Split(images, labels)

    def __len__(self) -> int:
        return len(self._split.labels)

    def read(
        self,
        rows: np.ndarray,
        image_shape: tuple[int, int, int],
        seeds: np.ndarray | None = None,
    ) -> Split:
        """Return the examples at some places; they are what they are."""
        del image_shape, seeds
        return Split(self._split.images[rows], self._split.labels[rows])
