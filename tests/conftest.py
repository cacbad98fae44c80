"""Eight CPU devices and a compilation cache for the whole suite; set before JAX starts."""

import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
# Subprocesses inherit the cache, so that each real command compiles only once per machine.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path(tempfile.gettempdir()) / "sam_jax_test_compilation_cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.util
import subprocess
import sys

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[1]
MOST_MAPS = 20_000  # a module of tests adds up to ten thousand
# Where packages put the published files; Debian's is dataset-fashion-mnist.
FASHION_MNIST_FOLDERS = (
    pathlib.Path("/usr/share/datasets/fashion-mnist"),
    pathlib.Path("~/datasets/fashion-mnist").expanduser(),
    pathlib.Path("~/fashion-mnist").expanduser(),
)


@pytest.fixture(scope="session")
def fashion_mnist_files():
    """The folder with the four published files of Fashion-MNIST."""
    for folder in FASHION_MNIST_FOLDERS:
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return folder
    pytest.skip(f"needs the files of Fashion-MNIST in one of {[*map(str, FASHION_MNIST_FOLDERS)]}")


@pytest.fixture(scope="session")
def fashion_mnist_dir(fashion_mnist_files, tmp_path_factory):
    """A data_dir with the real Fashion-MNIST, prepared by the command; half a minute."""
    pytest.importorskip("tensorflow_datasets")
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("preparing a set needs TensorFlow")
    data_dir = tmp_path_factory.mktemp("tensorflow_datasets")
    command = [sys.executable, "-m", "sam_jax.data.prepare", "fashion_mnist"]
    command += [f"--data_dir={data_dir}", f"--from_dir={fashion_mnist_files}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "60000 train and 10000 test examples" in result.stdout
    return data_dir


@pytest.fixture(scope="session")
def tiny_tfds_dir(tmp_path_factory):
    """A data_dir with `tiny_shapes`, prepared; the other sets of tiny_tfds.py can be, too."""
    pytest.importorskip("tensorflow_datasets")
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("preparing a set needs TensorFlow")
    import tiny_tfds  # noqa: F401  (registers its sets)

    from sam_jax.data.prepare import main

    data_dir = tmp_path_factory.mktemp("tensorflow_datasets")
    main(["tiny_shapes", f"--data_dir={data_dir}"])
    return data_dir


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Every program holds memory maps, of which Linux gives a process 65,530: then it aborts."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > MOST_MAPS:
        jax.clear_caches()


# Whole commands and whole sets: minutes, and of use only once the parts are known to work.
LAST = (
    *("test_prepare.py", "test_configs.py", "test_commands.py"),
    *("test_even_better_run.py", "test_notebooks.py"),
)


def pytest_collection_modifyitems(items):
    """Run the fast tests first."""
    items.sort(key=lambda item: item.path.name in LAST)
