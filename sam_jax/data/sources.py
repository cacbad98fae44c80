"""The image classification sets, and the one function that loads any of them into memory."""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.data import prepared, synthetic


class Source(NamedTuple):
    """What is known about a set before it is read.

    Attributes:
      name: the name in configs.
      tfds_name: the name in TensorFlow Datasets; None for the digits, which scikit-learn ships.
      image_shape: height, width and channels.
      num_classes: number of classes.
      mean: of each channel over the training set, of values in [0, 1].
      std: standard deviation of each channel over all pixels of the training set, likewise.
      augmentations: what a training applies, in this order, where its config names nothing: the
        usual ones that keep an image's class.
      pad: pixels on each side before the random crop, an eighth of the image's, where the config
        gives none.
      cutout_size: side of the square that cutout paints over, half the image's, likewise.
    """

    name: str
    tfds_name: str | None
    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentations: tuple[str, ...]
    pad: int
    cutout_size: int


class Split(NamedTuple):
    """Images, uint8 [n, height, width, channels], and their labels, int32 [n]."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A training and a test split with their source."""

    source: Source
    train: Split
    test: Split


# Means and standard deviations: of the digits and Fashion-MNIST they are computed from the training
# images here (a test repeats it); of CIFAR and SVHN they are the widely published ones.
_SOURCES = (
    Source(
        name="digits",
        tfds_name=None,
        image_shape=(8, 8, 1),
        num_classes=10,
        mean=(0.30489,),
        std=(0.37571,),
        # A mirrored digit is another sign. The digits fill their eight rows, so only small shifts:
        # copies shifted by one pixel help a support vector machine (98.6 to 99.4 % on three random
        # splits), mirrored copies harm it (97.8 %).
        augmentations=("crop_zero",),
        pad=1,
        cutout_size=4,
    ),
    Source(
        name="fashion_mnist",
        tfds_name="fashion_mnist",
        image_shape=(28, 28, 1),
        num_classes=10,
        mean=(0.28604,),
        std=(0.35302,),
        augmentations=("flip", "crop_zero", "cutout"),
        pad=4,
        cutout_size=14,
    ),
    Source(
        name="cifar10",
        tfds_name="cifar10",
        image_shape=(32, 32, 3),
        num_classes=10,
        mean=(0.49140, 0.48216, 0.44653),
        std=(0.24703, 0.24349, 0.26159),
        augmentations=("flip", "crop_reflect"),
        pad=4,
        cutout_size=16,
    ),
    Source(
        name="cifar100",
        tfds_name="cifar100",
        image_shape=(32, 32, 3),
        num_classes=100,
        mean=(0.50708, 0.48655, 0.44092),
        std=(0.26733, 0.25644, 0.27615),
        augmentations=("flip", "crop_reflect"),
        pad=4,
        cutout_size=16,
    ),
    Source(
        name="svhn_cropped",
        tfds_name="svhn_cropped",
        image_shape=(32, 32, 3),
        num_classes=10,
        mean=(0.43768, 0.44377, 0.47280),
        std=(0.19803, 0.20102, 0.19704),
        augmentations=("crop_reflect",),  # digits again
        pad=4,
        cutout_size=16,
    ),
)
SOURCES: dict[str, Source] = {source.name: source for source in _SOURCES}


def load(
    name: str, data_dir: str | os.PathLike | None = None, synthetic_examples: int = 0
) -> Dataset:
    """Load a whole set into memory.

    The digits come with scikit-learn: 1,797 images of 8 x 8, split here into 1,440 and 357. The
    other sets are read as TensorFlow Datasets stores them, without TensorFlow;
    `sam_jax.data.prepare` writes them once.

    Args:
      name: a key of `SOURCES`.
      data_dir: where the sets are prepared; None is the default of TensorFlow Datasets
        (`$TFDS_DATA_DIR`, or `~/tensorflow_datasets`).
      synthetic_examples: where positive, no file is read and the set is artificial: so many
        training images, and a quarter of that (at least one a class) for testing, in the format of
        the real ones. It is for trying a program out, as the `:smoke` variants of the configs do;
        a result on it says nothing about the real set.

    Returns:
      The source with its training and test splits.

    Raises:
      ValueError: for an unknown name or a negative number of examples.
      FileNotFoundError: if the set is not prepared; the message has the command that does it.

    >>> dataset = load("digits")
    >>> dataset.train.images.shape, dataset.test.images.shape, dataset.source.num_classes
    ((1440, 8, 8, 1), (357, 8, 8, 1), 10)
    >>> load("cifar100", synthetic_examples=200).test.images.shape
    (100, 32, 32, 3)
    """
    if name not in SOURCES:
        raise ValueError(f"Unknown data set {name!r}; the known ones are {', '.join(SOURCES)}.")
    if synthetic_examples < 0:
        raise ValueError(
            f"synthetic_examples must be 0 (real data) or positive, got {synthetic_examples}."
        )
    source = SOURCES[name]
    if synthetic_examples:
        return _synthetic(source, synthetic_examples)
    if source.tfds_name is None:
        return _digits()
    return _prepared(source, data_dir)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Return `(images / 255 - mean) / std`, channel by channel.

    Args:
      images: [..., channels], values 0..255, uint8 or floating point.
      mean: of each channel, in units of the full range.
      std: of each channel, likewise.

    Returns:
      float32, the shape of `images`.

    >>> normalise(jnp.array([[0], [255]], jnp.uint8), mean=(0.5,), std=(0.25,)).tolist()
    [[-2.0], [2.0]]
    """
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    return (images.astype(jnp.float32) / 255 - mean) / std


def _synthetic(source: Source, examples: int) -> Dataset:
    def split(examples: int, seed: int) -> Split:
        return Split(
            *synthetic.synthetic_images(source.image_shape, source.num_classes, examples, seed)
        )

    return Dataset(
        source, split(examples, seed=1), split(max(examples // 4, source.num_classes), seed=2)
    )


def _digits() -> Dataset:
    """Split the digits: shuffle, sort stably by class, and 357 evenly spaced ones are for testing.

    From each class that is its share to within one. The 1,440 training images are whole batches of
    32 and of 144, a tenth. Both splits keep the shuffled order, so that the first n images are a
    random sample. numpy keeps `RandomState` as it is.
    """
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    digits = load_digits()
    images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)  # stored as 0..16
    labels = digits.target.astype(np.int32)
    order = np.random.RandomState(0).permutation(len(labels))
    is_test = np.zeros(len(labels), bool)
    by_class = order[np.argsort(labels[order], kind="stable")]
    is_test[by_class[np.linspace(0, len(labels) - 1, 357).round().astype(int)]] = True
    train, test = order[~is_test[order]], order[is_test[order]]
    return Dataset(
        SOURCES["digits"],
        Split(images[train], labels[train]),
        Split(images[test], labels[test]),
    )


def _prepared(source: Source, data_dir: str | os.PathLike | None) -> Dataset:
    root = prepared.data_root(data_dir)
    # Looked up here first: TensorFlow Datasets would search the network for a set that it misses.
    directory = prepared.locate(source.tfds_name, root)
    if directory is None:
        raise FileNotFoundError(
            f"Found no {source.name} prepared as array_record in {root / source.tfds_name}; run "
            f"`python -m sam_jax.data.prepare {source.name} --data_dir={root}` first (with "
            "--from_dir=FOLDER where the published files are on disk)."
        )
    train, test = (
        Split(*prepared.read_split(directory, split, source.image_shape))
        for split in ("train", "test")
    )
    return Dataset(source, train, test)
