import os
import pathlib
import pickle
import shutil
import tarfile

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


class Call:
    """What a pickle makes by a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


ATTACKS = {
    "a function": lambda victim: Call(pathlib.Path.touch, victim),
    "code": lambda victim: Call(exec, f"import os; os.mknod({str(victim)!r})"),
    "a command": lambda victim: Call(os.system, f"touch {victim}"),
    "in an entry": lambda victim: {b"data": Call(pathlib.Path.touch, victim), b"labels": []},
    "in an array": lambda victim: {b"data": np.array([Call(pathlib.Path.touch, victim)], object)},
}


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ATTACKS)
def test_pickles_run_no_code(name, protocol, tmp_path):
    write_cifar("cifar10", "python", tmp_path)
    batch = tmp_path / FOLDERS["cifar10", "python"] / "test_batch"
    victim = tmp_path / "victim"
    batch.write_bytes(pickle.dumps(ATTACKS[name](victim), protocol))
    with pytest.raises(ValueError, match="test_batch"):
        raw_cifar.read_cifar("cifar10", tmp_path)
    assert not victim.exists()
    pickle.loads(batch.read_bytes())
    assert victim.exists()  # the plain unpickler would have run it


WRONG_CONTENTS = {
    "no dict": [1, 2],
    "other entries": {b"images": b""},
    "text for images": {b"data": b"images", b"labels": [0]},
    "numbers out of range": {b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1000]},
    "another shape": {b"data": np.zeros((1, 3071), np.uint8), b"labels": [0]},
    "labels of a shape": {b"data": np.zeros((1, 3072), np.uint8), b"labels": 0},
    "ragged": {b"data": [[1], [1, 2]], b"labels": [0, 1]},
}


@pytest.mark.parametrize("name", WRONG_CONTENTS)
def test_a_pickle_of_something_else_is_named(name, tmp_path):
    write_cifar("cifar10", "python", tmp_path)
    batch = tmp_path / FOLDERS["cifar10", "python"] / "test_batch"
    batch.write_bytes(pickle.dumps(WRONG_CONTENTS[name], 2))
    with pytest.raises(ValueError, match="test_batch is truncated or not in the published format"):
        raw_cifar.read_cifar("cifar10", tmp_path)


@pytest.mark.parametrize("file", ["test_batch", "batches.meta"])
def test_a_damaged_pickle_is_named(file, tmp_path):
    write_cifar("cifar10", "python", tmp_path)
    path = tmp_path / FOLDERS["cifar10", "python"] / file
    whole, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(100):
        damaged = bytearray(whole)
        # Where the instructions are: the bytes of the images may be any.
        for place in random.integers(0, min(len(whole), 200), size=3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            raw_cifar.read_cifar("cifar10", tmp_path)
        except ValueError as error:
            assert file in str(error)
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_the_members_of_an_archive_stay_inside(kind, tmp_path):
    """No member is written anywhere, and none that points elsewhere is read."""
    write_cifar("cifar10", kind, tmp_path / "in")
    folder = tmp_path / "in" / FOLDERS["cifar10", kind]
    inside, archive = tmp_path / "in" / "place", tmp_path / "in" / ARCHIVES["cifar10", kind]
    inside.mkdir()
    files = sorted(folder.iterdir())
    secret = tmp_path / "secret"
    secret.write_bytes(files[0].read_bytes())
    for prefix in ("../../", f"{tmp_path}/outside/", "a/../../../"):
        with tarfile.open(inside / archive.name, "w:gz") as tar:
            for path in files:
                tar.add(path, prefix + path.name)
        before = sorted(tmp_path.rglob("*"))
        raw = raw_cifar.read_cifar("cifar10", inside)
        assert sorted(raw.splits) == ["test", "train"]
        assert sorted(tmp_path.rglob("*")) == before
    for link_type in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        with tarfile.open(inside / archive.name, "w:gz") as tar:
            link = tarfile.TarInfo(files[0].name)
            link.type, link.linkname = link_type, str(secret)
            tar.addfile(link)
            for path in files[1:]:
                tar.add(path, path.name)
        with pytest.raises(FileNotFoundError, match=f"Missing in .*: {files[0].name}"):
            raw_cifar.read_cifar("cifar10", inside)


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
