"""The tiers of the suite, and what JAX is told before it starts.

`python -m pytest` alone runs every tier in a process of its own, in the order below, and stops at
the first red one. `-m TIER` runs one of them; any other selection runs in one process, with eight
CPU devices.
"""

import gc
import importlib.metadata
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest

TIERS = {"unit": 1, "devices": 8, "commands": 1, "e2e": 1}  # tier -> CPU devices; fastest first
# Most of the time goes into compiling small programs that run once, so XLA is told to do less: its
# older emitter of kernels halves the time, and LLVM without optimisations takes a third off it.
QUICK_COMPILATION = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
JAXLIBS_THAT_KNOW_IT = ("0.8.", "0.9.", "0.10.")  # others end the process at an unknown flag
MOST_MAPS = 20_000  # a module of tests adds up to ten thousand
# Where packages put the published files; Debian's is dataset-fashion-mnist.
FASHION_MNIST_FOLDERS = (
    pathlib.Path("/usr/share/datasets/fashion-mnist"),
    pathlib.Path("~/datasets/fashion-mnist").expanduser(),
    pathlib.Path("~/fashion-mnist").expanduser(),
)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Workers, tiers and subprocesses share the cache. Most programs are small, many are single
# operations of shapes that recur: one that is found takes half the time of one that is compiled.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path(tempfile.gettempdir()) / "sam_jax_test_compilation_cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Shapes that differ in rank are broadcast only where the code says so.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")


def pytest_addoption(parser):
    """Define `--full`: the numbers of kills, damage and load that the README tells."""
    parser.addoption(
        "--full", action="store_true", help="kill, damage and load as often as the README says"
    )


@pytest.fixture(scope="session")
def full(pytestconfig):
    """Whether `--full` asks for all cases rather than for the few of every day."""
    return pytestconfig.getoption("full")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Run the tiers one after the other where nothing is selected."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        # A worker takes whole files: what one test of a file compiles, the next ones use.
        config.option.dist = "loadfile"
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    chosen = config.option.markexpr or config.option.keyword or config.option.collectonly
    if not everything or chosen or config.option.help or config.option.version:
        return None
    for tier in TIERS:
        print(f"\n{tier}:", flush=True)
        command = [sys.executable, "-m", "pytest", "-m", tier, *config.invocation_params.args]
        code = subprocess.call(command, cwd=config.invocation_params.dir)
        if code:
            return code
    return 0


def pytest_configure(config):
    """Give the processes of the tests their CPU devices; workers and commands inherit them."""
    devices = TIERS.get(config.option.markexpr, max(TIERS.values()))
    flags = f"--xla_force_host_platform_device_count={devices}"
    if importlib.metadata.version("jaxlib").startswith(JAXLIBS_THAT_KNOW_IT):
        flags = f"{QUICK_COMPILATION} {flags}"
    os.environ.setdefault("XLA_FLAGS", flags)
    # A shell starts what runs behind it, or under nohup, with these ignored, and so their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # An entry that another process is just writing, or that a kill cut short, is compiled again.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error reading persistent compilation cache:UserWarning"
    )


def pytest_collection(session):
    """Check the signatures of the instruments and methods at every call in the unit tier."""
    checkers = all(importlib.util.find_spec(name) for name in ("beartype", "jaxtyping"))
    if session.config.option.markexpr == "unit" and checkers:
        import checked_signatures

        checked_signatures.install()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Give every test its tier, unit where none is named, and run the fast tiers first."""

    def tier_of(item):
        return next((tier for tier in TIERS if item.get_closest_marker(tier)), "unit")

    for item in items:
        item.add_marker(tier_of(item))
    items.sort(key=lambda item: list(TIERS).index(tier_of(item)))


def pytest_collection_finish():
    """Spare the collector what stays to the end: tracing makes so many objects that it runs often.

    A twentieth of the time of the unit tier.
    """
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)


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
    from real_commands import made_once, output_of

    command = ("sam_jax.data.prepare", "fashion_mnist", f"--from_dir={fashion_mnist_files}")
    data_dir, output = made_once(
        tmp_path_factory,
        "tensorflow_datasets",
        lambda folder: output_of(*command, f"--data_dir={folder}"),
    )
    assert "60000 train and 10000 test examples" in output
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


@pytest.fixture(scope="session")
def tiny_imagenet_dir(tmp_path_factory):
    """A data_dir with the `imagenet2012` of tiny_imagenet.py."""
    pytest.importorskip("tensorflow_datasets")
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("preparing a set needs TensorFlow")
    import tiny_imagenet

    data_dir = tmp_path_factory.mktemp("imagenet")
    tiny_imagenet.prepare(data_dir)
    return data_dir


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Every program holds memory maps, of which Linux gives a process 65,530: then it aborts."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > MOST_MAPS:
        import jax

        jax.clear_caches()
