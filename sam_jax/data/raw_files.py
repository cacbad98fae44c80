"""Read the files that the authors of Fashion-MNIST and SVHN publish, from a folder on disk."""

import gzip
import math
import pathlib
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class RawSplit(NamedTuple):
    """Images, uint8 [n, height, width, channels], and labels [n] by name of the label."""

    images: np.ndarray
    labels: dict[str, np.ndarray]


class RawSet(NamedTuple):
    """Splits by name, and the classes' names by name of the label where the files have them."""

    splits: dict[str, RawSplit]
    class_names: dict[str, list[str]]


def missing_files(names: Iterable[str], place: pathlib.Path) -> FileNotFoundError:
    """Return the error for files that are not in the folder or archive `place`."""
    return FileNotFoundError(f"Missing in {place}: {', '.join(names)}.")


def broken_file(name: str) -> ValueError:
    """Return the error for a file that cannot be read."""
    return ValueError(f"{name} is truncated or not in the published format.")


def read_fashion_mnist(directory: pathlib.Path) -> RawSet:
    """Read Fashion-MNIST from its four IDX files, gzipped or not.

    Raises:
      FileNotFoundError: if files are missing; it names them.
      ValueError: if a file is truncated or is something else; it names the file.
    """
    prefixes = {"train": "train", "test": "t10k"}
    parts = ("images-idx3-ubyte", "labels-idx1-ubyte")
    names = [f"{prefix}-{part}" for prefix in prefixes.values() for part in parts]
    missing = [
        f"{name}.gz"
        for name in names
        if not any((directory / f"{name}{end}").is_file() for end in (".gz", ""))
    ]
    if missing:
        raise missing_files(missing, directory)
    splits = {}
    for split, prefix in prefixes.items():
        images, labels = (_read_idx(directory / f"{prefix}-{part}") for part in parts)
        if images.shape != (len(labels), 28, 28):
            raise broken_file(f"{prefix}-{parts[0]}")
        splits[split] = RawSplit(images[..., None], {"label": labels})
    return RawSet(splits, {})


def _read_idx(path: pathlib.Path) -> np.ndarray:
    """Return the array of an IDX file of bytes, `path` or `path`.gz.

    The format is MNIST's (http://yann.lecun.com/exdb/mnist): two zero bytes, the type (8 is
    unsigned byte), the number of axes, their lengths as big-endian 32-bit integers, and the data.
    """
    zipped = path.with_name(path.name + ".gz")
    try:
        data = gzip.decompress(zipped.read_bytes()) if zipped.is_file() else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise broken_file(zipped.name) from error
    axes = data[3] if len(data) > 3 and data[:3] == b"\0\0\x08" else 0
    start = 4 + 4 * axes
    shape = np.frombuffer(data[4:start], ">u4").tolist() if len(data) >= start else []
    if not shape or len(data) - start != math.prod(shape):
        raise broken_file(path.name)
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_svhn(directory: pathlib.Path) -> RawSet:
    """Read the cropped SVHN from its Matlab files, in which images come last and the digit 0 is 10.

    The extra training images are a split of their own, which is read where `extra_32x32.mat` is
    there, too (http://ufldl.stanford.edu/housenumbers).

    Raises:
      FileNotFoundError: if files are missing; it names them.
      ValueError: if a file is truncated or is something else; it names the file.
    """
    paths = {split: directory / f"{split}_32x32.mat" for split in ("train", "test", "extra")}
    missing = [paths[split].name for split in ("train", "test") if not paths[split].is_file()]
    if missing:
        raise missing_files(missing, directory)
    return RawSet({split: _read_mat(x) for split, x in paths.items() if x.is_file()}, {})


def _read_mat(path: pathlib.Path) -> RawSplit:
    import scipy.io

    try:
        content = scipy.io.loadmat(path)
        images, labels = np.moveaxis(content["X"], -1, 0), content["y"].ravel() % 10
    except Exception as error:  # a truncated file can fail anywhere in scipy's parser
        raise broken_file(path.name) from error
    if images.shape != (len(labels), 32, 32, 3):
        raise broken_file(path.name)
    return RawSplit(images, {"label": labels})
