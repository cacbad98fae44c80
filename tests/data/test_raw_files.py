import pathlib
import pickle
import shutil

import numpy as np
import pytest
from published_files import (
    ARCHIVES,
    CIFAR10_CLASSES,
    COARSE_CLASSES,
    FINE_CLASSES,
    FOLDERS,
    expected_cifar,
    pack,
    write_cifar,
    write_idx,
    write_svhn,
)

from sam_jax.data import raw_cifar, raw_files


@pytest.mark.parametrize("packed", [False, True, "inside"])
@pytest.mark.parametrize("name, kind", FOLDERS)
def test_cifar_files(name, kind, packed, tmp_path):
    write_cifar(name, kind, tmp_path)
    directory = tmp_path / FOLDERS[name, kind] if packed == "inside" else tmp_path
    if packed is True:
        pack(name, kind, tmp_path)
    raw = raw_cifar.read_cifar(name, directory)
    for split in ("train", "test"):
        images, coarse, labels = expected_cifar(name, split)
        np.testing.assert_array_equal(raw.splits[split].images, images)
        np.testing.assert_array_equal(raw.splits[split].labels["label"], labels)
        if name == "cifar100":
            np.testing.assert_array_equal(raw.splits[split].labels["coarse_label"], coarse)
    if name == "cifar10":
        assert raw.class_names == {"label": CIFAR10_CLASSES}
    else:
        assert raw.class_names == {"label": FINE_CLASSES, "coarse_label": COARSE_CLASSES}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name, kind", FOLDERS)
def test_missing_cifar_file_is_named(name, kind, packed, tmp_path):
    write_cifar(name, kind, tmp_path)
    stem = "data_batch_3" if name == "cifar10" else "test"
    file = stem + (".bin" if kind == "binary" else "")
    (tmp_path / FOLDERS[name, kind] / file).unlink()
    if packed:
        pack(name, kind, tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"cifar-.*: {file}\.$"):
        raw_cifar.read_cifar(name, tmp_path)


@pytest.mark.parametrize("name, kind", FOLDERS)
def test_truncated_cifar_file_is_named(name, kind, tmp_path):
    write_cifar(name, kind, tmp_path)
    stem = "data_batch_3" if name == "cifar10" else "test"
    path = tmp_path / FOLDERS[name, kind] / (stem + (".bin" if kind == "binary" else ""))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{path.name} is truncated"):
        raw_cifar.read_cifar(name, tmp_path)


@pytest.mark.parametrize("name, kind", FOLDERS)
def test_truncated_cifar_archive_is_named(name, kind, tmp_path):
    write_cifar(name, kind, tmp_path)
    pack(name, kind, tmp_path)
    path = tmp_path / ARCHIVES[name, kind]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"{path.name} is truncated"):
        raw_cifar.read_cifar(name, tmp_path)


def test_pickles_run_no_code(tmp_path):
    write_cifar("cifar10", "python", tmp_path)
    batch = tmp_path / FOLDERS["cifar10", "python"] / "test_batch"
    victim = tmp_path / "victim"

    class Attack:
        def __reduce__(self):
            return pathlib.Path.touch, (victim,)

    batch.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match="test_batch"):
        raw_cifar.read_cifar("cifar10", tmp_path)
    assert not victim.exists()
    pickle.loads(batch.read_bytes())
    assert victim.exists()  # the plain unpickler would have run it


def test_nothing_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="cifar-10-binary.tar.gz or.*cifar-10-batches-py"):
        raw_cifar.read_cifar("cifar10", tmp_path)
    with pytest.raises(FileNotFoundError, match="train_32x32.mat, test_32x32.mat"):
        raw_files.read_svhn(tmp_path)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files(end, tmp_path):
    contents = write_idx(tmp_path, end)
    raw = raw_files.read_fashion_mnist(tmp_path)
    np.testing.assert_array_equal(raw.splits["train"].images[..., 0], contents["train"])
    np.testing.assert_array_equal(raw.splits["test"].images[..., 0], contents["t10k"])
    assert raw.splits["test"].labels["label"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("keep", [0, 2, 9, -1])
def test_truncated_idx_file_is_named(end, keep, tmp_path):
    write_idx(tmp_path, end)
    path = tmp_path / f"t10k-images-idx3-ubyte{end}"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.* is truncated"):
        raw_files.read_fashion_mnist(tmp_path)


def test_missing_idx_files_are_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r": train-labels-idx1-ubyte.gz\.$"):
        raw_files.read_fashion_mnist(tmp_path)


def test_labels_of_another_length_are_refused(tmp_path):
    write_idx(tmp_path)
    shutil.copy(tmp_path / "t10k-labels-idx1-ubyte", tmp_path / "train-labels-idx1-ubyte")
    with pytest.raises(ValueError, match="train-images"):
        raw_files.read_fashion_mnist(tmp_path)


def test_truncated_mat_file_is_named(tmp_path):
    write_svhn(tmp_path)
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="test_32x32.mat is truncated"):
        raw_files.read_svhn(tmp_path)
