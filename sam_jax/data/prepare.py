"""Prepare a set once, so that trainings can read it: python -m sam_jax.data.prepare NAME.

TensorFlow Datasets downloads the set, any of its image classification sets, and writes it as
array_record. That needs TensorFlow (`pip install "sam_jax[tfds]"`); reading it later does not.
--from_dir takes published files that are already on disk instead of the network:

    python -m sam_jax.data.prepare fashion_mnist
    python -m sam_jax.data.prepare cifar10 --from_dir=downloads --data_dir=/data/tfds

Then config.data.name and config.data.data_dir name it. Other programs read the result by
`tfds.data_source(NAME, data_dir=DIR)`; `tfds.load` cannot, as TensorFlow Datasets streams no
array_record. Exit codes: 0 done, 1 failed, 2 a mistake in the command line.
"""

import argparse
import functools
import os
import pathlib
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from sam_jax import extras, mistakes
from sam_jax.data import prepared
from sam_jax.data.channel_statistics import SizesDiffer
from sam_jax.data.description import builder_names, describe
from sam_jax.data.open_prepared import open_prepared
from sam_jax.data.raw_cifar import read_cifar
from sam_jax.data.raw_files import RawSet, RawSplit, read_fashion_mnist, read_svhn
from sam_jax.suggestions import did_you_mean

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
      name: an image classification set of TensorFlow Datasets, such as "mnist" or
        "imagenet_resized/32x32".
      data_dir: where to write; None is the default of TensorFlow Datasets.
      from_dir: a folder with published files; None downloads them. For the keys of `READERS` it
        replaces the network; files that were merely recompressed are fine, as only their contents
        are checked. For any other set it is the folder in which TensorFlow Datasets expects files
        downloaded by hand.
      expected_examples: size of each split that `from_dir` must have; None is the published one.

    Returns:
      The folder of the prepared version.

    Raises:
      ValueError: for an unknown name, a set that is no image classification set, or files in
        `from_dir` that are not whole.
      FileNotFoundError: if files are missing in `from_dir`.
      FileExistsError: if the set is there in another file format.
      ModuleNotFoundError: if TensorFlow is not installed.
      ConnectionError: if the server cannot be reached.
      RuntimeError: if the download fails later on.
    """
    if name == "digits":
        raise ValueError("The digits come with scikit-learn; there is nothing to prepare.")
    root = prepared.data_root(data_dir)
    directory = prepared.locate(name, root)
    if directory is not None:
        return directory
    if others := prepared.versions(name, root):
        raise FileExistsError(
            f"{others[-1]} holds {name} in another file format than array_record; delete it or "
            "choose another --data_dir."
        )
    # Read before TensorFlow is looked for: a wrong folder is the likelier mistake.
    raw = None
    if from_dir is not None and name in READERS:
        raw = READERS[name](pathlib.Path(from_dir).expanduser())
        _check_examples(name, raw, expected_examples or PUBLISHED_EXAMPLES[name])
    extras.needs("Preparing a set, unlike reading it,", "tfds", "tensorflow")
    import tensorflow_datasets as tfds

    builder = _builder(name, root)
    describe(name, builder.info)  # before a download of hours
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if raw is not None:
        _use_raw_examples(name, builder, raw)
        builder.download_and_prepare(download_config=config)
    else:
        if from_dir is not None:
            config = config.replace(manual_dir=pathlib.Path(from_dir).expanduser().absolute())
        _download_and_prepare(name, builder, config)
    return pathlib.Path(builder.data_dir)


def _builder(name: str, root: pathlib.Path) -> Any:
    """Return the builder of TensorFlow Datasets of a set."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=os.fspath(root), file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        meant = did_you_mean(name, builder_names(), most=3)
        raise ValueError(f"TensorFlow Datasets has no set {name!r}.{meant}") from error
    except ValueError as error:  # a variant that the set does not have
        raise ValueError(f"TensorFlow Datasets has no set {name!r}: {error}") from error
    if builder.builder_config is not None and "/" not in name:
        variants = ", ".join(f"{name}/{variant}" for variant in builder.builder_configs)
        raise ValueError(f"{name} has variants; choose one of {variants}.")
    return builder


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
    url = next(iter(builder.url_infos or ()), None)  # a builder may have no list of its files
    if url is not None:
        _check_connection(url, advice)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # network, server and checksums each have types of their own
        raise RuntimeError(f"Preparing {name} failed ({error}); {advice}") from error


def _check_connection(url: str, advice: str) -> None:
    """Raise a ConnectionError at once; TensorFlow Datasets would retry for minutes."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=CONNECTION_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # the server answers; it may only dislike the question
    except OSError as error:
        raise ConnectionError(f"Cannot reach {url} ({error}); {advice}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: prepare one set, say where it lies, exit with a sentence on failure."""
    parser = _Parser(
        prog="python -m sam_jax.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="an image classification set of TensorFlow Datasets")
    parser.add_argument("--data_dir", help="where to write; default: as TensorFlow Datasets")
    parser.add_argument("--from_dir", help="a folder with published files; default: download")
    parser.add_argument(
        f"--{mistakes.FLAG}", action="store_true", help="show the traceback of a mistake"
    )
    with mistakes.one_sentence(arguments):
        args = parser.parse_args(arguments)
        _prepare_and_say(args.name, args.data_dir, args.from_dir)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise the one sentence that is wrong with a command line, with the nearest flag."""
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        near = did_you_mean(unknown[1], self._option_string_actions) if unknown else ""
        raise mistakes.UserMistake(f"{message}.{near} --help shows the arguments of this command.")


def _prepare_and_say(name: str, data_dir: str | None, from_dir: str | None) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets with its build options
    was_there = prepared.locate(name, prepared.data_root(data_dir)) is not None
    try:
        directory = prepare(name, data_dir, from_dir)
        # Computes the statistics kept beside the set, and finds out whether it can be trained on.
        source, _, _ = open_prepared(name, data_dir)
        height, width, channels = source.image_shape
        images = f": {height} x {width} x {channels} pixels, {source.num_classes} classes"
    except SizesDiffer:
        images = " with config.data.image_size, such as 224: images of several sizes"
    except ValueError as error:
        raise mistakes.UserMistake(str(error)) from error
    except (OSError, ImportError, RuntimeError) as error:
        if mistakes.is_mistake(error):
            raise
        sys.exit(str(error))
    sizes = prepared.split_sizes(directory)
    counts = " and ".join(f"{size} {split}" for split, size in sizes.items())
    verb = "was already prepared" if was_there else "is prepared"
    print(f"{name} {verb}: {counts} examples in {directory}")
    print(f"config.data.name = {name!r}{images}")


if __name__ == "__main__":
    main()
