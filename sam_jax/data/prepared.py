"""Find and read sets that TensorFlow Datasets has prepared as array_record; needs no TensorFlow."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sam_jax.data.channel_statistics import check_image_shape
from sam_jax.data.splits import Split
from sam_jax.folder_names import check_folder_name

CHUNK = 1000  # records decoded at a time


def data_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """Return `data_dir`, or the default of TensorFlow Datasets where it is None."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return pathlib.Path(data_dir or default).expanduser().absolute()


def versions(tfds_name: str, root: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders of the prepared versions of a set in any file format, oldest first.

    Raises:
      ValueError: the name leads out of `root`.
    """
    check_folder_name("The name of a data set", tfds_name, most=3)
    found = (root / tfds_name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json")
    folders = (path.parent for path in found)
    return sorted(folders, key=lambda folder: [int(x) for x in folder.name.split(".")])


def locate(tfds_name: str, root: pathlib.Path) -> pathlib.Path | None:
    """Return the folder of the newest version that is prepared as array_record, if there is one."""
    found = [path for path in versions(tfds_name, root) if any(path.glob("*.array_record*"))]
    return found[-1] if found else None


def names(root: pathlib.Path) -> list[str]:
    """Return the names of the sets that are prepared in a folder, variants included."""
    found = (*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json"))
    return sorted({path.parent.parent.relative_to(root).as_posix() for path in found})


class Records:
    """The examples of one split of a prepared set, each read when it is asked for."""

    def __init__(
        self,
        name: str,
        directory: pathlib.Path,
        split: str,
        image: str = "image",
        label: str = "label",
        encoded: bool = False,
    ) -> None:
        """Open a split; nothing is read yet.

        Args:
          name: of the set, for errors.
          directory: the folder of one version, as `locate` returns it.
          split: for example "train", or several one after the other, such as "train+extra".
          image: name of the image among the features.
          label: name of the class label.
          encoded: whether images stay the files that they are stored as, in bytes.
        """
        import tensorflow_datasets as tfds

        decoders = {image: tfds.decode.SkipDecoding()} if encoded else None
        # By the directory and not by the name: this looks neither elsewhere nor at the network.
        self._source = open_builder(directory).as_data_source(split, decoders=decoders)
        self._name, self._image, self._label = name, image, label
        self.title = f"the split {split} of {name}"

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return one image, uint8 [height, width, channels] or bytes, and its label."""
        record = self._source[index]
        return record[self._image], int(record[self._label])

    def chunks(
        self, rows: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[tuple[list[Any], list[int]]]:
        """Yield images and labels, many at a time, which are read in parallel.

        Args:
          rows: places in the split; None for all in stored order.
        """
        rows = range(len(self)) if rows is None else [int(row) for row in rows]
        for start in range(0, len(rows), CHUNK):
            records = self._source.__getitems__(rows[start : start + CHUNK])
            images = [record[self._image] for record in records]
            yield images, [int(record[self._label]) for record in records]

    def read(
        self,
        rows: np.ndarray,
        image_shape: tuple[int, int, int],
        seeds: np.ndarray | None = None,
    ) -> Split:
        """Read examples into memory.

        Args:
          rows: their places in the split.
          image_shape: height, width and channels.
          seeds: not used, as these images are what they are.

        Returns:
          The images and labels, in the order of `rows`.

        Raises:
          ValueError: an image has another size.
        """
        del seeds
        images = np.empty((len(rows), *image_shape), np.uint8)
        labels = np.empty(len(rows), np.int32)
        start = 0
        for some_images, some_labels in self.chunks(rows):
            for image in some_images:
                check_image_shape(self._name, image, image_shape)
            stop = start + len(some_labels)
            images[start:stop], labels[start:stop] = some_images, some_labels
            start = stop
        return Split(images, labels)


def open_builder(directory: pathlib.Path) -> Any:
    """Return the read-only builder of TensorFlow Datasets of a prepared version."""
    import tensorflow_datasets as tfds  # takes a second, and the digits do not need it

    return tfds.builder_from_directory(os.fspath(directory))


def split_sizes(directory: pathlib.Path) -> dict[str, int]:
    """Return the number of examples of each split of a prepared set."""
    splits = open_builder(directory).info.splits
    return {name: split.num_examples for name, split in splits.items()}
