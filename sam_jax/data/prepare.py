"""Prepare a set once, so that `sam_jax.data.load` can read it.

`python -m sam_jax.data.prepare NAME --data_dir=DIR`: TensorFlow Datasets downloads the set and
writes it as array_record. That needs TensorFlow (`pip install "sam_jax[tfds]"`); reading it later
does not. `--from_dir` takes published files that are already on disk instead of the network.
Other programs read the result by `tfds.data_source(NAME, data_dir=DIR)`; `tfds.load` cannot, as
TensorFlow Datasets streams no array_record.
"""

import argparse
import functools
import importlib.util
import os
import pathlib
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sam_jax.data import prepared
from sam_jax.data.raw_cifar import read_cifar
from sam_jax.data.raw_files import RawSet, RawSplit, read_fashion_mnist, read_svhn
from sam_jax.data.sources import SOURCES

READERS: dict[str, Callable[[pathlib.Path], RawSet]] = {
    "fashion_mnist": read_fashion_mnist,
    "cifar10": functools.partial(read_cifar, "cifar10"),
    "cifar100": functools.partial(read_cifar, "cifar100"),
    "svhn_cropped": read_svhn,
}
PUBLISHED_EXAMPLES = {
    "fashion_mnist": {"train": 60_000, "test": 10_000},
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "svhn_cropped": {"train": 73_257, "test": 26_032, "extra": 531_131},
}
# How TensorFlow Datasets numbers the examples of the sets that have an "id".
IDENTIFIERS = {
    "cifar10": "{}_{:05d}",
    "cifar100": "{}_{:05d}",
    "svhn_cropped": "{}_{:06d}",
}
CONNECTION_SECONDS = 10


def prepare(
    name: str,
    data_dir: str | os.PathLike | None = None,
    from_dir: str | os.PathLike | None = None,
    expected_examples: Mapping[str, int] | None = None,
) -> pathlib.Path:
    """Write a set as array_record in the layout of TensorFlow Datasets, unless it is there already.

    The result does not depend on where the files come from: the builder of TensorFlow Datasets
    writes the same features, version and order of examples, and reads them by the usual name.

    Args:
      name: a key of `READERS`.
      data_dir: where to write; None is the default of TensorFlow Datasets.
      from_dir: a folder with published files; None downloads them. Files that were merely
        recompressed are fine, as only their contents are checked.
      expected_examples: size of each split that `from_dir` must have; None is the published one.

    Returns:
      The folder of the prepared version.

    Raises:
      ValueError: for an unknown name, or files in `from_dir` that are not whole.
      FileNotFoundError: if files are missing in `from_dir`.
      FileExistsError: if the set is there in another file format.
      ModuleNotFoundError: if TensorFlow is not installed.
      ConnectionError: if the server cannot be reached.
      RuntimeError: if the download fails later on.
    """
    if name not in READERS:
        raise ValueError(f"Unknown data set {name!r}; choose one of {', '.join(READERS)}.")
    root, tfds_name = prepared.data_root(data_dir), SOURCES[name].tfds_name
    directory = prepared.locate(tfds_name, root)
    if directory is not None:
        return directory
    if others := prepared.versions(tfds_name, root):
        raise FileExistsError(
            f"{others[-1]} holds {name} in another file format than array_record; delete it or "
            "choose another --data_dir."
        )
    # Read before TensorFlow is looked for: a wrong folder is the likelier mistake.
    raw = None
    if from_dir is not None:
        raw = READERS[name](pathlib.Path(from_dir).expanduser())
        _check_examples(name, raw, expected_examples or PUBLISHED_EXAMPLES[name])
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            "Preparing a set needs TensorFlow, which reading it does not; run "
            '`pip install "sam_jax[tfds]"`.'
        )
    import tensorflow_datasets as tfds

    builder = tfds.builder(tfds_name, data_dir=os.fspath(root), file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if raw is None:
        _download_and_prepare(name, builder, config)
    else:
        _use_raw_examples(name, builder, raw)
        builder.download_and_prepare(download_config=config)
    return pathlib.Path(builder.data_dir)


def _check_examples(name: str, raw: RawSet, expected: Mapping[str, int]) -> None:
    for split, content in raw.splits.items():
        if len(content.images) != expected[split]:
            raise ValueError(
                f"The {split} files of {name} hold {len(content.images)} images instead of "
                f"{expected[split]}; they are truncated or another set."
            )


def _use_raw_examples(name: str, builder: Any, raw: RawSet) -> None:
    """Make a builder of TensorFlow Datasets take its examples from `raw` instead of a download.

    Only this one method of this one instance is replaced: a subclass would be registered under a
    name of its own and lose the set's checksums and documentation.
    """
    for label, names in raw.class_names.items():
        builder.info.features[label].names = names
    builder._split_generators = lambda dl_manager: {
        split: _examples(name, split, content) for split, content in raw.splits.items()
    }


def _examples(name: str, split: str, raw: RawSplit) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the examples under the keys that the builder uses, which decide their stored order."""
    for i, image in enumerate(raw.images):
        example = {"image": image} | {key: int(labels[i]) for key, labels in raw.labels.items()}
        if name in IDENTIFIERS:
            example["id"] = IDENTIFIERS[name].format(split, i)
        yield i, example


def _download_and_prepare(name: str, builder: Any, config: Any) -> None:
    advice = (
        "check the network, or get the files otherwise and run "
        f"`python -m sam_jax.data.prepare {name} --from_dir=FOLDER`."
    )
    url = next(iter(builder.url_infos))
    try:  # TensorFlow Datasets would retry for minutes where there is no network
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=CONNECTION_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # the server answers; it may only dislike the question
    except OSError as error:
        raise ConnectionError(f"Cannot reach {url} ({error}); {advice}") from error
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # network, server and checksums each have types of their own
        raise RuntimeError(f"Preparing {name} failed ({error}); {advice}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: prepare one set, say where it lies, exit with a sentence on failure."""
    parser = argparse.ArgumentParser(prog="python -m sam_jax.data.prepare", description=__doc__)
    parser.add_argument("name", choices=sorted(READERS))
    parser.add_argument("--data_dir", help="where to write; default: as TensorFlow Datasets")
    parser.add_argument("--from_dir", help="a folder with published files; default: download")
    args = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets with its build options
    root, tfds_name = prepared.data_root(args.data_dir), SOURCES[args.name].tfds_name
    was_there = prepared.locate(tfds_name, root) is not None
    try:
        directory = prepare(args.name, args.data_dir, args.from_dir)
    except (OSError, ImportError, RuntimeError, ValueError) as error:
        sys.exit(str(error))
    sizes = prepared.split_sizes(directory)
    counts = " and ".join(f"{size} {split}" for split, size in sizes.items())
    verb = "was already prepared" if was_there else "is prepared"
    print(f"{args.name} {verb}: {counts} examples in {directory}")


if __name__ == "__main__":
    main()
