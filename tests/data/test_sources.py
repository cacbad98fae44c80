import hashlib
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_commands import run

from sam_jax import data
from sam_jax.data import prepared
from sam_jax.data.augmentation import AUGMENTATIONS

ROOT = pathlib.Path(__file__).parents[2]
NAMES = tuple(name for name, source in data.SOURCES.items() if not source.sizes_vary)


def run_python(code):
    return run("-c", code, env={"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"})


def checksum(split):
    return hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()


def test_table():
    for name, source in data.SOURCES.items():
        assert source.name == name
        assert len(source.mean) == len(source.std) == source.image_shape[2]
        assert set(source.augmentations) <= set(AUGMENTATIONS)
        assert source.image_shape[0] == 2 * source.cutout_size
        assert source.pad == round(source.image_shape[0] / 8)
    for name in ("digits", "svhn_cropped"):
        assert "flip" not in data.SOURCES[name].augmentations


@pytest.mark.parametrize("name", NAMES)
def test_augmentations_accept_their_source(name):
    # All at once: wrong channels or a padding too wide would raise.
    source = data.SOURCES[name]
    images = data.load(name, synthetic_examples=2).train.images
    out = jax.eval_shape(
        lambda x: data.augment(
            jax.random.key(0),
            x,
            source.augmentations,
            pad=source.pad,
            cutout_size=source.cutout_size,
        ),
        jnp.asarray(images),
    )
    assert out.shape == images.shape and out.dtype == jnp.uint8


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    digits = load_digits()
    train, test = data.load("digits")[1:]
    assert train.images.shape == (1440, 8, 8, 1) and test.images.shape == (357, 8, 8, 1)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int32
    images = np.concatenate([train.images, test.images])[..., 0]
    assert images.min() == 0 and images.max() == 255
    # Together the two splits are the whole set, each image once with its own label: no image of one
    # split is in the other unless scikit-learn has it twice.
    ours = [
        (image.tobytes(), label)
        for image, label in zip(images, [*train.labels, *test.labels], strict=True)
    ]
    original = [
        # sixteenths to 255ths by integers: round half to even of 255 v / 16
        (np.round(255 * image.astype(int) / 16).astype(np.uint8).tobytes(), label)
        for image, label in zip(digits.images, digits.target, strict=True)
    ]
    assert sorted(ours) == sorted(original)


def test_digits_are_stratified():
    train, test = data.load("digits")[1:]
    share = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    # One image of the smallest class (174) is 0.6 % of it.
    np.testing.assert_allclose(share, 357 / 1797, atol=0.006)


def test_digits_never_change():
    # A figure of an experiment on the digits holds only for this split.
    train, test = data.load("digits")[1:]
    assert checksum(train).startswith("2c28f58875b8e2ee")
    assert checksum(test).startswith("67130470f253dd97")


def test_order_of_the_digits_is_random():
    # scikit-learn's order has 0, 1, ..., 9 in turn; sorted by class it would be constant.
    labels = data.load("digits").train.labels
    assert 0.05 < np.mean(labels[1:] == labels[:-1]) < 0.15
    assert np.mean(labels[1:] == (labels[:-1] + 1) % 10) < 0.15


def check_statistics(source, images):
    pixels = images.astype(np.float64) / 255
    # The table has five decimals.
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), source.mean, atol=6e-6)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), source.std, atol=6e-6)


def test_statistics_of_the_digits():
    dataset = data.load("digits")
    check_statistics(dataset.source, dataset.train.images)


@pytest.mark.e2e
def test_fashion_mnist(fashion_mnist_dir, fashion_mnist_files):
    start = time.perf_counter()
    dataset = data.load("fashion_mnist", fashion_mnist_dir)
    seconds = time.perf_counter() - start
    assert seconds < 60, "reading 70,000 images takes about 6 s"
    assert dataset.train.images.shape == (60000, 28, 28, 1)
    assert dataset.test.images.shape == (10000, 28, 28, 1)
    assert dataset.train.images.dtype == np.uint8 and dataset.train.labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), 6000)
    check_statistics(dataset.source, dataset.train.images)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(0, 255), min_size=6, max_size=6),
    st.tuples(*[st.floats(0, 1)] * 3),
    st.tuples(*[st.floats(0.1, 1)] * 3),
)
def test_normalise_is_the_formula(pixels, mean, std):
    images = np.array(pixels, np.uint8).reshape(2, 1, 3)
    ours = jax.jit(data.normalise, static_argnums=(1, 2))(images, mean, std)
    assert ours.dtype == jnp.float32
    expected = (images / 255.0 - np.array(mean)) / np.array(std)
    # Values up to 10 with a few float32 roundings of 6e-8 each, relative to 1 / 0.1.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=5e-6)


def test_normalised_digits_are_standard():
    dataset = data.load("digits")
    x = data.normalise(jnp.asarray(dataset.train.images), dataset.source.mean, dataset.source.std)
    assert abs(x.mean()) < 1e-4 and abs(x.std() - 1) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_synthetic(name):
    source, train, test = data.load(name, synthetic_examples=60)
    assert source is data.SOURCES[name]
    assert train.images.shape == (60, *source.image_shape) and train.images.dtype == np.uint8
    assert len(test.images) == len(test.labels) == max(15, source.num_classes)
    assert set(test.labels) == set(range(source.num_classes)) and test.labels.dtype == np.int32
    again = data.load(name, synthetic_examples=60)
    assert checksum(train) == checksum(again.train) and checksum(test) == checksum(again.test)
    assert not np.array_equal(train.images[: len(test.images)], test.images[: len(train.images)])


@pytest.mark.parametrize("name", NAMES)
def test_synthetic_classes_can_be_learnt(name):
    source, train, test = data.load(name, synthetic_examples=500)
    x, z = (split.images.reshape(len(split.images), -1).astype(float) for split in (train, test))
    means = np.stack([x[train.labels == c].mean(0) for c in range(source.num_classes)])

    def accuracy(labels):
        nearest = ((z[:, None] - means) ** 2).sum(-1).argmin(1)
        return np.mean(nearest == labels)

    assert accuracy(test.labels) > 0.95
    assert accuracy(np.roll(test.labels, 1)) < 0.5  # with wrong labels there is nothing to learn


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="-1"):
        data.load("digits", synthetic_examples=-1)


@pytest.mark.commands
def test_missing_set_fails_at_once_with_one_sentence(tmp_path):
    start = time.perf_counter()
    result = run_python(f"import sam_jax.data; sam_jax.data.load('cifar10', {str(tmp_path)!r})")
    seconds = time.perf_counter() - start
    assert result.returncode == 1 and seconds < 20
    last = result.stderr.strip().splitlines()[-1]
    assert last == (
        f"FileNotFoundError: Found no cifar10 prepared as array_record in {tmp_path}/cifar10; run "
        f"`python -m sam_jax.data.prepare cifar10 --data_dir={tmp_path}` first (with "
        "--from_dir=FOLDER where the published files are on disk)."
    )


def test_default_folder_is_that_of_tensorflow_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "here"))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "here" / "svhn_cropped")):
        data.load("svhn_cropped")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepared.data_root(None) == tmp_path / "tensorflow_datasets"


def test_newest_version_is_found(tmp_path):
    for version in ("9.0.0", "10.0.0", "11.0.0", "incomplete.x_12.0.0"):
        (tmp_path / "cifar10" / version).mkdir(parents=True)
        (tmp_path / "cifar10" / version / "dataset_info.json").touch()
    for version in ("9.0.0", "10.0.0", "incomplete.x_12.0.0"):
        (tmp_path / "cifar10" / version / "cifar10-train.array_record-00000-of-00001").touch()
    assert prepared.locate("cifar10", tmp_path).name == "10.0.0"  # 11 is in another file format
    assert prepared.versions("cifar10", tmp_path)[-1].name == "11.0.0"
    assert prepared.locate("cifar100", tmp_path) is None


@pytest.mark.e2e
def test_reading_needs_no_tensorflow(fashion_mnist_dir):
    code = f"""
import sys
finders = sys.meta_path[:]
class WithoutTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            return None
        found = (finder.find_spec(name, path, target) for finder in finders)
        return next((spec for spec in found if spec), None)
sys.meta_path[:] = [WithoutTensorFlow()]
import pathlib
from sam_jax.data import prepared
folder = prepared.locate("fashion_mnist", pathlib.Path({str(fashion_mnist_dir)!r}))
records = prepared.Records("fashion_mnist", folder, "test")
images, labels = records.read(range(len(records)), (28, 28, 1))
assert "tensorflow" not in sys.modules
print(images.shape, labels.sum())
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(10000, 28, 28, 1) 45000"  # 1,000 of each of 0..9
