import gzip
import pathlib
import shutil
import time
from importlib.util import find_spec

import numpy as np
import pytest
from published_files import EXPECTED, FOLDERS, expected_cifar, write_cifar, write_svhn
from real_commands import run

from sam_jax import data
from sam_jax.data import prepare, prepared

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (find_spec("tensorflow_datasets") and find_spec("tensorflow")),
        reason="preparing a set needs TensorFlow",
    ),
]
PREPARE = "sam_jax.data.prepare"


def tfds():
    """Import it here: with TensorFlow it takes five seconds, which no other tier has."""
    import tensorflow_datasets

    return tensorflow_datasets


class LocalFiles:
    """A download manager to which every download is in a folder already."""

    downloaded_size = 0

    def __init__(self, folder):
        self.folder = folder

    def download_and_extract(self, url):
        return self.folder

    def download(self, urls):
        return {split: self.folder / pathlib.Path(url).name for split, url in urls.items()}


def prepare_with_tfds(name, files, data_dir):
    """The independent route: the unchanged builder with its own reader of the files."""
    builder = tfds().builder(name, data_dir=str(data_dir), file_format="array_record")
    builder._make_download_manager = lambda **_: LocalFiles(files)
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


@pytest.mark.parametrize("name, kind", [*FOLDERS, ("svhn_cropped", "mat")])
def test_prepared_set_equals_that_of_tfds(name, kind, tmp_path):
    files, theirs_dir, ours_dir = (tmp_path / x for x in ("files", "theirs", "ours"))
    files.mkdir()
    if kind == "mat":
        write_svhn(files)
        theirs = prepare_with_tfds(name, files, theirs_dir)
        expected = {"train": 7, "test": 7, "extra": 7}
    else:
        write_cifar(name, "binary", files)
        theirs = prepare_with_tfds(name, files, theirs_dir)
        shutil.rmtree(files / FOLDERS[name, "binary"])
        write_cifar(name, kind, files)
        expected = EXPECTED
    ours = prepare.prepare(name, ours_dir, files, expected)
    assert ours.relative_to(ours_dir) == theirs.relative_to(theirs_dir)
    paths = [path.relative_to(theirs) for path in sorted(theirs.rglob("*"))]
    assert paths == [path.relative_to(ours) for path in sorted(ours.rglob("*"))]
    for path in paths:  # metadata, names of the classes, features
        if ".array_record" not in path.name:
            assert (ours / path).read_text() == (theirs / path).read_text(), path
    for split, size in expected.items():
        left, right = (
            list(tfds().data_source(name, data_dir=str(d), split=split))
            for d in (theirs_dir, ours_dir)
        )
        assert len(left) == size
        for a, b in zip(left, right, strict=True):  # the same order, too
            assert a.keys() == b.keys()
            for key in a:
                np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_prepared_cifar_is_what_was_written(name, tmp_path):
    write_cifar(name, "python", tmp_path)
    prepare.prepare(name, tmp_path / "out", tmp_path, EXPECTED)
    dataset = data.load(name, tmp_path / "out")
    for split in ("train", "test"):
        images, _, labels = expected_cifar(name, split)
        split = getattr(dataset, split)
        written = sorted((x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True))
        read = sorted((x.tobytes(), int(y)) for x, y in zip(*split, strict=True))
        assert read == written


def test_prepared_svhn_has_ten_as_zero(tmp_path):
    write_svhn(tmp_path)
    (tmp_path / "extra_32x32.mat").unlink()
    prepare.prepare("svhn_cropped", tmp_path / "out", tmp_path, {"train": 7, "test": 7})
    dataset = data.load("svhn_cropped", tmp_path / "out")
    assert sorted(dataset.train.labels) == [0, 4, 5, 6, 7, 8, 9]


def test_svhn_is_trained_on_with_its_extra_images(tmp_path):
    write_svhn(tmp_path)
    prepare.prepare(
        "svhn_cropped", tmp_path, tmp_path, dict.fromkeys(("train", "test", "extra"), 7)
    )
    parts = [data.load("svhn_cropped", tmp_path, train_split=x) for x in ("train", "extra")]
    assert not np.array_equal(*(part.train.images for part in parts))
    both = data.load("svhn_cropped", tmp_path, train_split="train+extra")
    streamed = data.load("svhn_cropped", tmp_path, train_split="train+extra", streaming="always")
    assert both.source == parts[0].source == data.SOURCES["svhn_cropped"]
    assert len(streamed.train) == 14
    for found in (both, streamed):
        np.testing.assert_array_equal(found.test.images[:], parts[0].test.images)
        for i, name in enumerate(("images", "labels")):
            expected = np.concatenate([part.train[i] for part in parts])
            np.testing.assert_array_equal(getattr(found.train, name)[:], expected)


def test_other_number_of_examples_is_refused(tmp_path):
    write_cifar("cifar10", "binary", tmp_path)
    with pytest.raises(ValueError, match="train files of cifar10 hold 15 images instead of 50000"):
        prepare.prepare("cifar10", tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_set_in_another_format_is_left_alone(tmp_path):
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").touch()
    with pytest.raises(FileExistsError, match="cifar10/3.0.2 .*delete it or choose another"):
        prepare.prepare("cifar10", tmp_path)


def test_fashion_mnist_is_read_by_its_usual_name(fashion_mnist_dir, fashion_mnist_files):
    def raw(file, offset, shape):
        content = gzip.open(fashion_mnist_files / f"{file}-ubyte.gz").read()
        return np.frombuffer(content, np.uint8, offset=offset).reshape(shape)

    images, labels = raw("t10k-images-idx3", 16, (-1, 28, 28, 1)), raw("t10k-labels-idx1", 8, -1)
    source = tfds().data_source("fashion_mnist", data_dir=str(fashion_mnist_dir), split="test")
    assert len(source) == len(images) == 10000
    assert source.dataset_info.features["label"].names[9] == "Ankle boot"
    folder = prepared.locate("fashion_mnist", fashion_mnist_dir)
    records = prepared.Records("fashion_mnist", folder, "test")
    test = records.read(np.arange(10000), (28, 28, 1))
    for i in (0, 1, 9999):
        np.testing.assert_array_equal(source[i]["image"], test.images[i])
        assert source[i]["label"] == test.labels[i]
    # Stored in shuffled order; the published test labels begin with 9, 2, 1, 1.
    where = {image.tobytes(): label for image, label in zip(*test, strict=True)}
    assert len(where) == 10000  # no image occurs twice
    assert [where[image.tobytes()] for image in images] == labels.tolist()
    assert [where[image.tobytes()] for image in images[:4]] == [9, 2, 1, 1]


def test_second_time_does_nothing(fashion_mnist_dir):
    folder = fashion_mnist_dir / "fashion_mnist" / "3.0.1"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    result = run(PREPARE, "fashion_mnist", f"--data_dir={fashion_mnist_dir}", "--from_dir=nowhere")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == (
        f"fashion_mnist was already prepared: 60000 train and 10000 test examples in {folder}\n"
        "config.data.name = 'fashion_mnist': 28 x 28 x 1 pixels, 10 classes"
    )
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_command_fails_with_one_sentence(tmp_path):
    result = run(PREPARE, "fashion_mnist", f"--data_dir={tmp_path}", f"--from_dir={tmp_path}")
    assert result.returncode == 2
    assert result.stderr == (
        f"Missing in {tmp_path}: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
        "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz.\n"
    )


def test_command_without_tensorflow(tmp_path):
    code = """
import sys
sys.modules["tensorflow"] = None  # makes every import of it fail
from sam_jax.data.prepare import main
main()
"""
    result = run("-c", code, "cifar10", f"--data_dir={tmp_path}")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and 'pip install "sam_jax[tfds]"' in result.stderr


def test_command_without_network(tmp_path):
    # The proxy refuses every connection at once, as a machine without network does.
    code = """
import os
os.environ.update(dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"))
from sam_jax.data.prepare import main
main()
"""
    start = time.perf_counter()
    result = run("-c", code, "cifar10", f"--data_dir={tmp_path}")
    assert result.returncode == 1 and time.perf_counter() - start < 30
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Cannot reach https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")
    assert "--from_dir" in last
    assert not any(tmp_path.iterdir())
