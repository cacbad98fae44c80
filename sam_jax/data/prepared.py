"""Find and read sets that TensorFlow Datasets has prepared as array_record; needs no TensorFlow."""

import os
import pathlib

import numpy as np

CHUNK = 1000  # records decoded at a time


def data_root(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """Return `data_dir`, or the default of TensorFlow Datasets where it is None."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return pathlib.Path(data_dir or default).expanduser().absolute()


def versions(tfds_name: str, root: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders of the prepared versions of a set in any file format, oldest first."""
    found = (root / tfds_name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json")
    folders = (path.parent for path in found)
    return sorted(folders, key=lambda folder: [int(x) for x in folder.name.split(".")])


def locate(tfds_name: str, root: pathlib.Path) -> pathlib.Path | None:
    """Return the folder of the newest version that is prepared as array_record, if there is one."""
    found = [path for path in versions(tfds_name, root) if any(path.glob("*.array_record*"))]
    return found[-1] if found else None


def read_split(
    directory: pathlib.Path, split: str, image_shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Read a whole split of a prepared set into memory.

    Args:
      directory: the folder of one version, as `locate` returns it.
      split: "train" or "test".
      image_shape: height, width and channels.

    Returns:
      The images, uint8 [n, height, width, channels], and the labels, int32 [n], in stored order.
    """
    import tensorflow_datasets as tfds  # takes a second, and the digits do not need it

    # From the directory rather than by name: this neither looks at other places nor at the network.
    source = tfds.builder_from_directory(os.fspath(directory)).as_data_source(split)
    images = np.empty((len(source), *image_shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), CHUNK):
        stop = min(start + CHUNK, len(source))
        records = source.__getitems__(range(start, stop))  # a chunk is read in parallel
        images[start:stop] = [record["image"] for record in records]
        labels[start:stop] = [record["label"] for record in records]
    return images, labels


def split_sizes(directory: pathlib.Path) -> dict[str, int]:
    """Return the number of examples of each split of a prepared set."""
    import tensorflow_datasets as tfds

    splits = tfds.builder_from_directory(os.fspath(directory)).info.splits
    return {name: split.num_examples for name, split in splits.items()}
