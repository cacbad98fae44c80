"""Writers of the formats in which Fashion-MNIST, CIFAR and SVHN are published, with few records."""

import gzip
import pickle
import shutil
import struct
import tarfile

import numpy as np
import scipy.io

CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
COARSE_CLASSES = [f"coarse_{i}" for i in range(20)]
FINE_CLASSES = [f"fine_{i}" for i in range(100)]
EXPECTED = {"train": 15, "test": 4}


def cifar_planes(seed, n):
    return np.random.RandomState(seed).randint(0, 256, (n, 3072)).astype(np.uint8)


def cifar_content(name):
    """File stem -> planes [n, 3072], coarse labels and (fine) labels."""
    classes = 10 if name == "cifar10" else 100
    stems = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    if name == "cifar100":
        stems = ["train", "test"]
    content = {}
    for i, stem in enumerate(stems):
        n = 4 if "test" in stem else 15 // (len(stems) - 1)
        labels = np.random.RandomState(i).randint(0, classes, n)
        content[stem] = (cifar_planes(i, n), labels // 5, labels)
    return content


def write_cifar_binary(name, folder):
    folder.mkdir(parents=True)
    for stem, (planes, coarse, labels) in cifar_content(name).items():
        columns = [labels] if name == "cifar10" else [coarse, labels]
        records = np.concatenate([np.stack(columns, 1).astype(np.uint8), planes], 1)
        (folder / f"{stem}.bin").write_bytes(records.tobytes())
    if name == "cifar10":  # the published file ends in an empty line
        (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_CLASSES) + "\n\n")
    else:
        (folder / "coarse_label_names.txt").write_text("\n".join(COARSE_CLASSES) + "\n")
        (folder / "fine_label_names.txt").write_text("\n".join(FINE_CLASSES) + "\n")


class Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did, which pickled the published files in protocol 2."""

    def save_string(self, value):
        value = value if isinstance(value, bytes) else value.encode("latin-1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_string, str: save_string}


def write_python2_pickle(path, content):
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)
    # numpy 2 moved its core; the published files name the old place.
    path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))


def write_cifar_python(name, folder):
    folder.mkdir(parents=True)
    for stem, (planes, coarse, labels) in cifar_content(name).items():
        entries = {"batch_label": stem, "data": planes, "filenames": ["a.png"] * len(planes)}
        if name == "cifar10":
            entries["labels"] = labels.tolist()
        else:
            entries |= {"coarse_labels": coarse.tolist(), "fine_labels": labels.tolist()}
        write_python2_pickle(folder / stem, entries)
    if name == "cifar10":
        meta = {"num_cases_per_batch": 10000, "label_names": CIFAR10_CLASSES, "num_vis": 3072}
        write_python2_pickle(folder / "batches.meta", meta)
    else:
        meta = {"coarse_label_names": COARSE_CLASSES, "fine_label_names": FINE_CLASSES}
        write_python2_pickle(folder / "meta", meta)


FOLDERS = {
    ("cifar10", "binary"): "cifar-10-batches-bin",
    ("cifar10", "python"): "cifar-10-batches-py",
    ("cifar100", "binary"): "cifar-100-binary",
    ("cifar100", "python"): "cifar-100-python",
}
ARCHIVES = {key: f"cifar-{key[0][5:]}-{key[1]}.tar.gz" for key in FOLDERS}


def write_cifar(name, kind, directory):
    """Write the extracted folder of an archive into `directory`."""
    writer = write_cifar_binary if kind == "binary" else write_cifar_python
    writer(name, directory / FOLDERS[name, kind])


def pack(name, kind, directory):
    """Replace the folder by its archive."""
    folder = directory / FOLDERS[name, kind]
    with tarfile.open(directory / ARCHIVES[name, kind], "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    shutil.rmtree(folder)


def write_svhn(directory, n=7):
    random = np.random.RandomState(0)
    for split in ("train", "test", "extra"):
        images = random.randint(0, 256, (32, 32, 3, n)).astype(np.uint8)
        labels = np.arange(n, dtype=np.uint8).reshape(-1, 1) + 4  # 4..10; 10 is the digit 0
        scipy.io.savemat(directory / f"{split}_32x32.mat", {"X": images, "y": labels})


def expected_cifar(name, split):
    """Images and labels straight from the definition of the format, pixel by pixel."""
    content = cifar_content(name)
    parts = [value for stem, value in content.items() if ("test" in stem) == (split == "test")]
    planes = np.concatenate([part[0] for part in parts])
    images = np.empty((len(planes), 32, 32, 3), np.uint8)
    for channel in range(3):
        for row in range(32):
            start = 1024 * channel + 32 * row
            images[:, row, :, channel] = planes[:, start : start + 32]
    return images, *(np.concatenate([part[i] for part in parts]) for i in (1, 2))


def write_idx(directory, end=""):
    """Four small IDX files; 28 x 28 as Fashion-MNIST."""
    write = gzip.open if end else open
    contents = {}
    for prefix, n in (("train", 5), ("t10k", 3)):
        images = np.random.RandomState(n).randint(0, 256, (n, 28, 28)).astype(np.uint8)
        labels = np.arange(n, dtype=np.uint8)
        for part, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            with write(directory / f"{prefix}-{part}-ubyte{end}", "wb") as file:
                file.write(struct.pack(f">{1 + array.ndim}I", magic, *array.shape))
                file.write(array.tobytes())
        contents[prefix] = images
    return contents
