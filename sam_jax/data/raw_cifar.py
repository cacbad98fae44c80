"""Read CIFAR-10 and CIFAR-100 from either archive that their author publishes, or its folder.

Binary: records of the labels, one byte each, and 3 x 32 x 32 bytes. Python: pickled dicts of
Python 2 (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

import gzip
import io
import pathlib
import pickle
import tarfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sam_jax.data.raw_files import RawSet, RawSplit, broken_file, missing_files


class _Layout(NamedTuple):
    """File names of one kind of archive; `class_names` has one file a label."""

    archive: str
    folder: str
    pickled: bool
    train: tuple[str, ...]
    test: tuple[str, ...]
    class_names: tuple[str, ...]


_FIVE_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_LAYOUTS = {
    "cifar10": (
        _Layout(
            archive="cifar-10-binary.tar.gz",
            folder="cifar-10-batches-bin",
            pickled=False,
            train=tuple(f"{name}.bin" for name in _FIVE_BATCHES),
            test=("test_batch.bin",),
            class_names=("batches.meta.txt",),
        ),
        _Layout(
            archive="cifar-10-python.tar.gz",
            folder="cifar-10-batches-py",
            pickled=True,
            train=_FIVE_BATCHES,
            test=("test_batch",),
            class_names=("batches.meta",),
        ),
    ),
    "cifar100": (
        _Layout(
            archive="cifar-100-binary.tar.gz",
            folder="cifar-100-binary",
            pickled=False,
            train=("train.bin",),
            test=("test.bin",),
            class_names=("coarse_label_names.txt", "fine_label_names.txt"),
        ),
        _Layout(
            archive="cifar-100-python.tar.gz",
            folder="cifar-100-python",
            pickled=True,
            train=("train",),
            test=("test",),
            class_names=("meta", "meta"),
        ),
    ),
}


class _Label(NamedTuple):
    """A label's name in TensorFlow Datasets, and its and its classes' entries in the pickles."""

    name: str
    entry: str
    class_names: str


# In the order of a binary record.
_LABELS = {
    "cifar10": (_Label("label", "labels", "label_names"),),
    "cifar100": (
        _Label("coarse_label", "coarse_labels", "coarse_label_names"),
        _Label("label", "fine_labels", "fine_label_names"),
    ),
}


def read_cifar(name: str, directory: pathlib.Path) -> RawSet:
    """Read a CIFAR set from the binary or the python archive, or from the folder inside one.

    Args:
      name: "cifar10" or "cifar100".
      directory: holds the archive or the extracted folder, or is that folder.

    Returns:
      The splits "train" and "test"; the label of CIFAR-100 is the fine one, beside "coarse_label".

    Raises:
      FileNotFoundError: if nothing is found, or a part of it is missing; it names the files.
      ValueError: if a file is truncated or is something else; it names the file.
    """
    for layout in _LAYOUTS[name]:
        files = _find(layout, directory)
        if files:
            parse = _parse_pickled if layout.pickled else _parse_binary
            return parse(layout, _LABELS[name], files)
    wanted = (f"{layout.archive} or a folder {layout.folder}" for layout in _LAYOUTS[name])
    raise FileNotFoundError(f"Found in {directory} none of: {', '.join(wanted)}.")


def _find(layout: _Layout, directory: pathlib.Path) -> dict[str, bytes]:
    """Return the contents of a layout's files by name; none if nothing of it is there."""
    names = dict.fromkeys((*layout.train, *layout.test, *layout.class_names))
    for place in (directory / layout.folder, directory, directory / layout.archive):
        files = _extract(place, names) if place.is_file() else _collect(place, names)
        missing = [name for name in names if name not in files]
        if files and missing:
            raise missing_files(missing, place)
        if files:
            return files
    return {}


def _collect(folder: pathlib.Path, names: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def _extract(archive: pathlib.Path, names: Mapping[str, Any]) -> dict[str, bytes]:
    files = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = pathlib.PurePosixPath(member.name).name
                if member.isfile() and name in names:
                    content = tar.extractfile(member)
                    assert content is not None  # as that of a regular file
                    files[name] = content.read()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise broken_file(archive.name) from error
    if not files:
        raise missing_files(names, archive)
    return files


def _images(planes: np.ndarray) -> np.ndarray:
    """Return images [n, 32, 32, 3] of rows of a red, a green and a blue plane [n, 3072]."""
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _parse_binary(
    layout: _Layout, labels: tuple[_Label, ...], files: Mapping[str, bytes]
) -> RawSet:
    width = len(labels) + 3 * 32 * 32

    def split(names: tuple[str, ...]) -> RawSplit:
        for name in names:
            if not files[name] or len(files[name]) % width:
                raise broken_file(name)
        data = b"".join(files[name] for name in names)
        records = np.frombuffer(data, np.uint8).reshape(-1, width)
        columns = {label.name: records[:, i] for i, label in enumerate(labels)}
        return RawSplit(_images(records[:, len(labels) :]), columns)

    class_names = {
        label.name: files[name].decode().split()
        for label, name in zip(labels, layout.class_names, strict=True)
    }
    return RawSet({"train": split(layout.train), "test": split(layout.test)}, class_names)


def _parse_pickled(
    layout: _Layout, labels: tuple[_Label, ...], files: Mapping[str, bytes]
) -> RawSet:
    def part(name: str) -> tuple[np.ndarray, ...]:
        entries = ("data", *(label.entry for label in labels))
        try:
            data, *columns = (np.asarray(x, np.uint8) for x in _entries(name, files, entries))
        except (TypeError, ValueError, OverflowError) as error:
            raise broken_file(name) from error
        if data.shape[1:] != (3 * 32 * 32,) or any(x.shape != data.shape[:1] for x in columns):
            raise broken_file(name)
        return data, *columns

    def split(names: tuple[str, ...]) -> RawSplit:
        planes, *columns = map(np.concatenate, zip(*map(part, names), strict=True))
        named = {label.name: x for label, x in zip(labels, columns, strict=True)}
        return RawSplit(_images(planes), named)

    class_names = {
        label.name: _names(name, _entries(name, files, (label.class_names,))[0])
        for label, name in zip(labels, layout.class_names, strict=True)
    }
    return RawSet({"train": split(layout.train), "test": split(layout.test)}, class_names)


def _names(file: str, values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, bytes) for value in values):
        raise broken_file(file)
    return [value.decode(errors="replace") for value in values]


def _entries(name: str, files: Mapping[str, bytes], entries: tuple[str, ...]) -> list[Any]:
    """Return the values of a pickled dict, whose keys are byte strings as Python 2 wrote them."""
    try:
        content = _ArrayUnpickler(io.BytesIO(files[name]), encoding="bytes").load()
        return [content[entry.encode()] for entry in entries]
    except Exception as error:  # a damaged one can fail in any way, and has run no code
        raise broken_file(name) from error


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler of arrays of bytes and plain values only: a pickle could otherwise run any code.

    NumPy's own functions do not see the file: a forged type can break them in the process.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for one of the three functions that make an array."""
        allowed = {
            "numpy.core.multiarray._reconstruct": lambda *_: _Bytes(),
            "numpy.ndarray": _Bytes,
            "numpy.dtype": _Byte,
        }
        if f"{module}.{name}" not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} does not make an array")
        return allowed[f"{module}.{name}"]


class _Byte:
    """Stands for the type of unsigned bytes, the only one in the published files."""

    def __init__(self, name: bytes | str, *_: Any) -> None:
        if name not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"{name!r} is not the type of images")

    def __setstate__(self, state: Any) -> None:
        """Drop what else is said of the type."""


class _Bytes:
    """Stands for an array while its pickle is read."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        """Take the numbers in."""
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _Byte):
            raise pickle.UnpicklingError("an array of another type")
        order = "F" if is_fortran else "C"
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order=order)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the numbers."""
        if self.array is None:
            raise ValueError("an array without numbers")
        return self.array
