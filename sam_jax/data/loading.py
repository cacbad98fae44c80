"""Any set by its name: opened, or read into memory."""

import math
import os
from typing import Any, cast

import numpy as np

from sam_jax.data import synthetic
from sam_jax.data.checks import check_whole
from sam_jax.data.cropped_records import CroppedRecords
from sam_jax.data.open_prepared import check_splits, open_prepared
from sam_jax.data.sources import SOURCES, Source, cropped_source
from sam_jax.data.splits import Dataset, Examples, InMemory, Split
from sam_jax.data.streaming import StreamedSplit, is_streamed


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    synthetic_examples: int = 0,
    *,
    train_examples: int = 0,
    train_split: str = "train",
    image_size: int = 0,
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
      image_size: where positive, every image is cropped and resized to a square of this side when
        it is read: at random in a training, the centre elsewhere (`crops`). 0 leaves images as they
        are, but for the sets of `SOURCES` whose sizes vary.
      streaming: "never" reads the set into memory; "always" leaves it on disk; "auto" does so where
        the examples taken are larger than `streaming.device_limit`, or are cropped.

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
    found, _ = load_with_validation(
        name,
        data_dir,
        synthetic_examples,
        train_examples=train_examples,
        validation_examples=0,
        train_split=train_split,
        image_size=image_size,
        streaming=streaming,
    )
    return found


def load_with_validation(
    name: str,
    data_dir: str | os.PathLike | None = None,
    synthetic_examples: int = 0,
    *,
    train_examples: int = 0,
    validation_examples: int,
    train_split: str = "train",
    image_size: int = 0,
    streaming: str = "never",
) -> tuple[Dataset, Split | None]:
    """Load a set with some of its training examples held out.

    The held-out examples are evenly spaced in the training set, and the same for every number of
    training examples. So a set that is stored class by class keeps its classes.

    Args:
      name: as in `load`.
      data_dir: likewise.
      synthetic_examples: likewise.
      train_split: likewise.
      image_size: likewise; held-out images are cropped in the centre.
      streaming: likewise.
      train_examples: where positive, take so many of the other training examples, evenly spaced.
      validation_examples: how many are held out; 0 for none.

    Returns:
      The set without them, and the held-out examples, None where there are none.

    Raises:
      ValueError, FileNotFoundError: as in `load`, and where no training examples are left.

    >>> (_, train, _), validation = load_with_validation("digits", validation_examples=144)
    >>> len(train.labels), len(validation.labels)
    (1296, 144)
    """
    for field, number in (
        ("synthetic_examples", synthetic_examples),
        ("train_examples", train_examples),
        ("validation_examples", validation_examples),
        ("image_size", image_size),
    ):
        check_whole(f"data.{field}", number)
    for field, text in (("name", name), ("train_split", train_split)):
        if not isinstance(text, str):
            raise ValueError(f"data.{field} must be a text, such as 'train', got {text!r}.")
    if not isinstance(data_dir, str | os.PathLike | None):
        raise ValueError(f"data_dir must be the path of a folder or None, got {data_dir!r}.")
    source, *splits = _open(name, data_dir, synthetic_examples, train_split, image_size)
    train, held_out = _training_rows(name, train_examples, validation_examples, len(splits[0]))
    parts = [(splits[0], train), (splits[1], np.arange(len(splits[1])))]
    if validation_examples:
        parts.append((splits[0], held_out))
    size = sum(len(rows) for _, rows in parts) * math.prod(source.image_shape)
    streamed = is_streamed(streaming, size)
    if isinstance(splits[0], CroppedRecords) and not streamed:
        if streaming == "never":
            raise ValueError(
                f"data.streaming = 'never', but the images of {name} are cropped anew in every "
                "step, from their files: set it to 'auto' or 'always'."
            )
        streamed = True
    # A StreamedSplit offers what a Split does.
    first, second, *rest = cast(
        list[Split],
        [
            StreamedSplit(examples, source.image_shape, rows)
            if streamed
            else examples.read(rows, source.image_shape)
            for examples, rows in parts
        ],
    )
    return Dataset(source, first, second), rest[0] if rest else None


def _training_rows(
    name: str, train_examples: int, validation_examples: int, total: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places in a training set to train on and those to hold out, both ascending."""
    if validation_examples >= total:
        raise ValueError(
            f"data.validation_examples = {validation_examples}, but {name} has {total} training "
            "examples, and some must be left to train on."
        )
    held_out = _evenly_spaced(validation_examples, total)
    others = np.setdiff1d(np.arange(total), held_out)
    if train_examples > len(others):
        besides = f" besides the {len(held_out)} for validation" if len(held_out) else ""
        raise ValueError(
            f"data.train_examples = {train_examples}, but {name} has {len(others)} training "
            f"examples{besides}; 0 takes them all."
        )
    chosen = _evenly_spaced(train_examples, len(others)) if train_examples else slice(None)
    return others[chosen], held_out


def _evenly_spaced(examples: int, of: int) -> np.ndarray:
    return np.linspace(0, of - 1, examples).round().astype(int)


def _open(
    name: str,
    data_dir: str | os.PathLike | None,
    synthetic_examples: int,
    train_split: str,
    image_size: int,
) -> tuple[Source, Examples, Examples]:
    """Return the source of a set and its training and test examples."""
    if synthetic_examples:
        if name not in SOURCES:
            source = open_prepared(name, data_dir, image_size=image_size)[0]
        elif image_size:
            source = cropped_source(SOURCES[name], image_size)
        else:
            source = SOURCES[name]
        return source, *_synthetic(source, synthetic_examples)
    if name == "digits":
        check_splits(name, train_split, ("train", "test"), "test")
        if image_size:
            raise ValueError(
                f"data.image_size = {image_size} crops the images of prepared sets; the digits "
                "have 8 x 8 pixels: set it to 0."
            )
        return SOURCES[name], *_digits()
    return open_prepared(name, data_dir, train_split, image_size)


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
