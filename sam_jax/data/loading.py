"""Any set by its name: opened, or read into memory."""

import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from sam_jax.data import prepared, synthetic
from sam_jax.data.channel_statistics import channel_statistics, keep_statistics, read_statistics
from sam_jax.data.description import Description, builder_names, describe, did_you_mean
from sam_jax.data.sources import SOURCES, Source, source_of
from sam_jax.data.splits import Dataset, Examples, InMemory, Split
from sam_jax.data.streaming import StreamedSplit, is_streamed

# The test split is the first of these that the set has with labels.
TEST_SPLITS = ("test", "validation")


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    synthetic_examples: int = 0,
    *,
    train_examples: int = 0,
    train_split: str = "train",
    streaming: str = "never",
) -> Dataset:
    """Load a set into memory, or open it to be streamed.

    The digits come with scikit-learn: 1,797 images of 8 x 8, split here into 1,440 and 357. Any
    other set is an image classification set of TensorFlow Datasets, by its name there, such as
    "mnist" or "imagenet_resized/32x32". `sam_jax.data.prepare` writes it once; it is read without
    TensorFlow. `SOURCES` has published means and deviations of some sets. For any other set they
    are computed once, over its training images, and kept in its folder.

    Args:
      name: a key of `SOURCES`, or the name of a prepared set.
      data_dir: where the sets are prepared; None is the default of TensorFlow Datasets
        (`$TFDS_DATA_DIR`, or `~/tensorflow_datasets`).
      synthetic_examples: where positive, the set is artificial: so many training images, and a
        quarter of that (at least one a class) for testing, in the format of the real ones. For the
        keys of `SOURCES` no file is read. It is for trying a program out, as the `:smoke` variants
        of the configs do; a result on it says nothing about the real set.
      train_examples: where positive, take so many of the training examples, evenly spaced.
      train_split: the split to train on, or several joined by "+", such as "train+extra" of
        "svhn_cropped". Artificial sets have one alone.
      streaming: "never" reads the set into memory; "always" leaves it on disk; "auto" does so where
        the examples taken are larger than `streaming.device_limit`.

    Returns:
      The source with its training and test splits. The test split is "validation" where the set
      has no labelled "test".

    Raises:
      ValueError: a number of examples is negative or more than the set has; `streaming` is unknown;
        or the set cannot be read as an image classification set, has no such split, or has another
        format than `SOURCES` says. The message says why.
      FileNotFoundError: if the set is not prepared; the message has the command that does it.

    >>> dataset = load("digits")
    >>> dataset.train.images.shape, dataset.test.images.shape, dataset.source.num_classes
    ((1440, 8, 8, 1), (357, 8, 8, 1), 10)
    >>> load("cifar100", synthetic_examples=200).test.images.shape
    (100, 32, 32, 3)
    """
    for field, number in (
        ("synthetic_examples", synthetic_examples),
        ("train_examples", train_examples),
    ):
        if number < 0:
            raise ValueError(f"{field} must be 0 or positive, got {number}.")
    source, *splits = _open(name, data_dir, synthetic_examples, train_split)
    rows = [np.arange(len(examples)) for examples in splits]
    if train_examples:
        rows[0] = _evenly_spaced(name, train_examples, len(splits[0]))
    size = sum(map(len, rows)) * math.prod(source.image_shape)
    streamed = is_streamed(streaming, size)
    # A StreamedSplit offers what a Split does.
    train, test = cast(
        Iterable[Split],
        (
            StreamedSplit(examples, source.image_shape, places)
            if streamed
            else examples.read(places, source.image_shape)
            for examples, places in zip(splits, rows, strict=True)
        ),
    )
    return Dataset(source, train, test)


def _evenly_spaced(name: str, examples: int, of: int) -> np.ndarray:
    """Return places in a training set; so a set that is stored class by class keeps its classes."""
    if examples > of:
        raise ValueError(
            f"data.train_examples = {examples}, but {name} has {of} training examples; 0 takes "
            "them all."
        )
    return np.linspace(0, of - 1, examples).round().astype(int)


def _open(
    name: str, data_dir: str | os.PathLike | None, synthetic_examples: int, train_split: str
) -> tuple[Source, Examples, Examples]:
    """Return the source of a set and its training and test examples."""
    if synthetic_examples:
        source = SOURCES[name] if name in SOURCES else open_prepared(name, data_dir)[0]
        return source, *_synthetic(source, synthetic_examples)
    if name == "digits":
        _check_splits(name, train_split, ("train", "test"), "test")
        return SOURCES[name], *_digits()
    return open_prepared(name, data_dir, train_split)


def _synthetic(source: Source, examples: int) -> tuple[InMemory, InMemory]:
    def split(examples: int, seed: int) -> InMemory:
        return InMemory(
            *synthetic.synthetic_images(source.image_shape, source.num_classes, examples, seed)
        )

    return split(examples, seed=1), split(max(examples // 4, source.num_classes), seed=2)


def _digits() -> tuple[InMemory, InMemory]:
    """Split the digits: shuffle, sort stably by class, and 357 evenly spaced ones are for testing.

    From each class that is its share to within one. The 1,440 training images are whole batches of
    32 and of 144, a tenth. Both splits keep the shuffled order, so that the first n images are a
    random sample. numpy keeps `RandomState` as it is.
    """
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    digits: Any = load_digits()
    images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)  # stored as 0..16
    labels = digits.target.astype(np.int32)
    order = np.random.RandomState(0).permutation(len(labels))
    is_test = np.zeros(len(labels), bool)
    by_class = order[np.argsort(labels[order], kind="stable")]
    is_test[by_class[np.linspace(0, len(labels) - 1, 357).round().astype(int)]] = True
    train, test = order[~is_test[order]], order[is_test[order]]
    return InMemory(images[train], labels[train]), InMemory(images[test], labels[test])


def open_prepared(
    name: str, data_dir: str | os.PathLike | None, train_split: str = "train"
) -> tuple[Source, prepared.Records, prepared.Records]:
    """Return the source of a prepared set, and its training and test examples, not read yet.

    Args:
      name: as in `load`.
      data_dir: likewise.
      train_split: likewise. Mean and deviation are those of "train" all the same.

    Raises:
      ValueError, FileNotFoundError: as in `load`.
    """
    root = prepared.data_root(data_dir)
    # Looked up here first: TensorFlow Datasets would search the network for a set that it misses.
    directory = prepared.locate(name, root)
    if directory is None:
        raise _not_prepared(name, root)
    info = prepared.open_builder(directory).info
    description = describe(name, info)
    if name in SOURCES:
        _check_format(SOURCES[name], description, directory)
    if "train" not in info.splits:
        raise ValueError(f"{name} has no training split, only {', '.join(info.splits)}.")

    def records(split: str) -> prepared.Records:
        return prepared.Records(name, directory, split, description.image, description.label)

    tests = {x: records(x) for x in TEST_SPLITS if x in info.splits}
    labelled = [x for x in tests if tests[x][0][1] >= 0]  # -1 stands for no label
    if not labelled:
        raise ValueError(
            f"{name} has no labelled {' or '.join(TEST_SPLITS)} split, only "
            f"{', '.join(info.splits)}: nothing can be tested on. Prepare it by a builder of your "
            "own that splits it."
        )
    _check_splits(name, train_split, tuple(info.splits), labelled[0])
    train, test = records(train_split), tests[labelled[0]]
    for part in train_split.split("+"):
        if records(part)[0][1] < 0:
            raise ValueError(
                f"data.train_split = {train_split!r}: the split {part!r} of {name} has no labels."
            )
    if name in SOURCES:
        return SOURCES[name], train, test
    base = records("train")
    statistics = read_statistics(directory, len(base))
    if statistics is None:
        statistics = channel_statistics(name, (images for images, _ in base.chunks()))
        keep_statistics(directory, statistics)
    return source_of(name, description.num_classes, statistics), train, test


def _not_prepared(name: str, root: pathlib.Path) -> FileNotFoundError:
    command = f"`python -m sam_jax.data.prepare {name} --data_dir={root}`"
    if name in SOURCES:
        advice = (
            f"run {command} first (with --from_dir=FOLDER where the published files are on disk)."
        )
    else:
        meant = did_you_mean(name, [*SOURCES, *prepared.names(root), *builder_names()])
        advice = (
            f"{meant}check the name, or run {command} first. The sets with settings of their own "
            f"are {', '.join(SOURCES)}."
        )
    return FileNotFoundError(f"Found no {name} prepared as array_record in {root / name}; {advice}")


def _check_format(source: Source, description: Description, directory: pathlib.Path) -> None:
    """Raise a ValueError where a prepared set is not the one of its name in `SOURCES`."""
    said = tuple(x or y for x, y in zip(description.image_shape, source.image_shape, strict=True))
    if (said, description.num_classes) != (source.image_shape, source.num_classes):
        expected, found = (
            f"images of {' x '.join(map(str, shape))} in {classes} classes"
            for shape, classes in (
                (source.image_shape, source.num_classes),
                (said, description.num_classes),
            )
        )
        raise ValueError(
            f"data.name = {source.name!r} stands for {expected}, but {directory} holds {found}. "
            "Give a set of your own another name, or another data.data_dir."
        )


def _check_splits(name: str, train_split: str, splits: Sequence[str], test_split: str) -> None:
    """Raise a ValueError where a set cannot be trained on some splits of it."""
    for part in train_split.split("+"):
        if part not in splits:
            raise ValueError(
                f"data.train_split = {train_split!r}, but {name} has no split {part!r}; it has "
                f"{', '.join(splits)}."
            )
        if part == test_split:
            raise ValueError(
                f"data.train_split = {train_split!r} holds {part!r}, on which {name} is tested."
            )
