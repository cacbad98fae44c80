"""A set that is prepared on disk: found, checked and opened; its images are not read yet."""

import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from sam_jax.data import prepared
from sam_jax.data.channel_statistics import (
    ChannelStatistics,
    channel_statistics,
    keep_statistics,
    read_statistics,
)
from sam_jax.data.cropped_records import CroppedRecords, crop_shape
from sam_jax.data.description import Description, builder_names, describe
from sam_jax.data.sources import SOURCES, Source, cropped_source, source_of
from sam_jax.data.splits import Examples
from sam_jax.suggestions import did_you_mean

# The test split is the first of these that the set has with labels.
TEST_SPLITS = ("test", "validation")


def open_prepared(
    name: str,
    data_dir: str | os.PathLike | None,
    train_split: str = "train",
    image_size: int = 0,
) -> tuple[Source, Examples, Examples]:
    """Return the source of a prepared set, and its training and test examples, not read yet.

    Args:
      name: as in `load`.
      data_dir: likewise.
      train_split: likewise. Mean and deviation are those of "train" all the same.
      image_size: likewise. Mean and deviation are then those of the centres.

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
    known = SOURCES.get(name)
    if known is not None:
        _check_format(known, description, directory)
        image_size = image_size or known.sizes_vary * known.image_shape[0]
    if "train" not in info.splits:
        raise ValueError(f"{name} has no training split, only {', '.join(info.splits)}.")

    def records(split: str) -> prepared.Records:
        return prepared.Records(
            name, directory, split, description.image, description.label, bool(image_size)
        )

    tests = {x: records(x) for x in TEST_SPLITS if x in info.splits}
    labelled = [x for x in tests if tests[x][0][1] >= 0]  # -1 stands for no label
    if not labelled:
        raise ValueError(
            f"{name} has no labelled {' or '.join(TEST_SPLITS)} split, only "
            f"{', '.join(info.splits)}: nothing can be tested on. Prepare it by a builder of your "
            "own that splits it."
        )
    check_splits(name, train_split, tuple(info.splits), labelled[0])
    for part in train_split.split("+"):
        if records(part)[0][1] < 0:
            raise ValueError(
                f"data.train_split = {train_split!r}: the split {part!r} of {name} has no labels."
            )
    train, test = records(train_split), tests[labelled[0]]
    if not image_size:
        if known is None:
            base = records("train")
            statistics = _statistics(name, directory, len(base), (x for x, _ in base.chunks()))
            known = source_of(name, description.num_classes, statistics)
        return known, train, test
    shape = crop_shape(name, image_size, description.image_shape[2])
    if known is None:
        base = CroppedRecords(records("train"))
        statistics = _statistics(name, directory, len(base), base.chunks(shape), image_size)
        known = source_of(name, description.num_classes, statistics)
    return cropped_source(known, image_size), CroppedRecords(train), CroppedRecords(test)


def _statistics(
    name: str,
    directory: pathlib.Path,
    examples: int,
    chunks: Iterable[Sequence[np.ndarray] | np.ndarray],
    image_size: int = 0,
) -> ChannelStatistics:
    """Return the statistics that are kept in a folder, computed before where they are not."""
    statistics = read_statistics(directory, examples, image_size)
    if statistics is None:
        statistics = channel_statistics(name, chunks)
        keep_statistics(directory, statistics, image_size)
    return statistics


def _not_prepared(name: str, root: pathlib.Path) -> FileNotFoundError:
    command = f"`python -m sam_jax.data.prepare {name} --data_dir={root}`"
    if name in SOURCES:
        advice = (
            f"run {command} first (with --from_dir=FOLDER where the published files are on disk)."
        )
    else:
        known = [*SOURCES, *prepared.names(root), *builder_names()]
        advice = (
            f"check the name (in a config data.name), or run {command} first. The sets with "
            "settings of their own are "
            f"{', '.join(SOURCES)}.{did_you_mean(name, known, most=3)}"
        )
    return FileNotFoundError(f"Found no {name} prepared as array_record in {root / name}; {advice}")


def _check_format(source: Source, description: Description, directory: pathlib.Path) -> None:
    """Raise a ValueError where a prepared set is not the one of its name in `SOURCES`."""
    if source.sizes_vary:
        said = (*source.image_shape[:2], description.image_shape[2])
    else:
        said = description.image_shape
    said = tuple(x or y for x, y in zip(said, source.image_shape, strict=True))
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


def check_splits(name: str, train_split: str, splits: Sequence[str], test_split: str) -> None:
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
