"""What the benchmark measures, in order: what matters most comes first.

A run that is cut, or whose budget ends, has measured the first ones; the next run goes on.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.benchmark.rows import ROWS
from experiments.benchmark.tasks import Task

BOTH = ["sam", "sgd"]
ALL_METHODS = ["sgd", "sam", "average_sam", "looksam_5", "m_sam_vmap", "m_sam_scan", "esam"]
INSTRUMENTS = ["asymmetry", "surface", "lanczos"]


def steps(net: str, batch: int, precision: str, threads: int, **options: Any) -> Task:
    """Return steps of SGD and SAM, on both sides."""
    case = {
        "net": net,
        "batch": batch,
        "precision": precision,
        "threads": threads,
        "methods": BOTH,
    }
    return Task("steps", case, batch_examples=batch, **options)


def evaluation(net: str, batch: int, examples: int, threads: int, **options: Any) -> Task:
    """Return the evaluation of so many examples, on both sides."""
    case = {"net": net, "batch": batch, "examples": examples, "threads": threads}
    return Task("evaluation", case, batch_examples=examples, **options)


def methods(
    net: str,
    batch: int,
    *,
    precision: str = "float32",
    threads: int = 0,
    names: list[str] | None = None,
    **options: Any,
) -> Task:
    """Return steps of many methods in turns."""
    case = {
        "net": net,
        "batch": batch,
        "m": batch // 4,
        "precision": precision,
        "threads": threads,
        "methods": names or ALL_METHODS,
    }
    return Task("methods", case, batch_examples=batch, **options)


def instruments(threads: int, **sizes: int) -> Task:
    """Return the instruments on the digits."""
    case = {
        "net": "small_conv_net",
        "examples": 0,
        "directions": 30,
        "points": 51,
        "steps": 40,
        "threads": threads,
        "instruments": INSTRUMENTS,
    }
    return Task("instruments", case | sizes, rounds=1)


def compilation(net: str, batch: int, precision: str) -> Task:
    """Return the compilation of a SAM step on all processors."""
    return Task("compilation", {"net": net, "batch": batch, "precision": precision})


def memory(net: str, batch: int, programs: list[str], examples: int = 0) -> Task:
    """Return the memory of some programs."""
    case = {
        "net": net,
        "batch": batch,
        "examples": examples,
        "programs": programs,
        "precision": "float32",
    }
    return Task("memory", case)


def epoch(
    config: str, variant: str, epochs: int, overrides: dict[str, object], **options: Any
) -> Task:
    """Return whole epochs of a config."""
    case = {"config": config, "variant": variant, "epochs": epochs, "overrides": overrides}
    return Task("epoch", case, **options)


def cpu() -> list[Task]:
    """Return the rows for a machine with a few cores; a quarter of an hour on two."""
    tasks = [
        steps("mobilenet_v2", 128, "float32", 1, rounds=3, seconds=40, needs=90),
        evaluation("mobilenet_v2", 128, 512, 1, rounds=5, seconds=20),
        methods("dense", 128, threads=1, rounds=7, repeats=20, seconds=20),
        instruments(1),
        compilation("mobilenet_v2", 128, "float32"),
        memory("wide_dense", 8, ["sgd", "sam", "average_sam"]),
        memory("small_conv_net_32", 50, ["sub_batch", "m_sam_scan"], 5000),
        epoch("digits", "", 30, {}, rounds=3, seconds=30),
        steps("mobilenet_v2", 128, "float32", 2, rounds=3, seconds=30, needs=60),
        evaluation("mobilenet_v2", 128, 512, 2, rounds=5, seconds=10),
        evaluation("resnet", 128, 256, 1, rounds=3, seconds=20),
        evaluation("resnet", 128, 256, 2, rounds=3, seconds=10),
        steps("resnet", 128, "float32", 1, rounds=3, seconds=40, needs=100),
        methods("mobilenet_v2", 16, rounds=5, seconds=20, needs=150),
        steps("resnet", 128, "float32", 2, rounds=3, seconds=30, needs=60),
        epoch(
            "cifar10",
            "",
            5,  # with one evaluation: a test image for five training images, as in the set itself
            {
                "data.synthetic_examples": 64,
                "batch_size": 32,
                "evaluation.test_every_epochs": 0,
                "checkpoint.every_epochs": 0,
            },
            rounds=3,
            seconds=60,
            needs=120,
        ),
    ]
    return tasks


def gpu() -> list[Task]:
    """Return the rows for one GPU: correctness, then times, then a training."""
    timed: dict[str, Any] = {"rounds": 5, "repeats": 10, "seconds": 20}
    return [
        Task("correctness", {"images": 512, "net": "mobilenet_v2", "batch": 32}),
        steps("mobilenet_v2", 128, "tf32", 0, **timed),
        steps("mobilenet_v2", 1024, "bfloat16", 0, **timed),
        steps("resnet", 128, "tf32", 0, **timed),
        steps("resnet", 1024, "bfloat16", 0, **timed),
        Task(
            "training",
            {
                "epochs": {"fashion_mnist": 4, "digits": 40},
                "examples": {"fashion_mnist": 20000, "digits": 0},
                "overrides": {},
                "least_accuracy": 0.8,
            },
        ),
        instruments(0),
        methods("dense", 128, precision="tf32", repeats=50, seconds=10),
        methods("mobilenet_v2", 128, precision="tf32", repeats=5, seconds=15),
        evaluation("mobilenet_v2", 1024, 10240, 0, **timed),
        steps("mobilenet_v2", 128, "bfloat16", 0, **timed),
        steps("mobilenet_v2", 1024, "tf32", 0, **timed),
        steps("resnet", 128, "bfloat16", 0, **timed),
        steps("resnet", 1024, "tf32", 0, **timed),
        evaluation("resnet", 1024, 10240, 0, **timed),
        compilation("mobilenet_v2", 128, "tf32"),
        memory("wide_dense", 8, ["sgd", "sam", "average_sam"]),
        memory("small_conv_net_32", 50, ["sub_batch", "m_sam_scan"], 5000),
        epoch("cifar10", "", 1, {"data.synthetic_examples": 12800}, rounds=2, seconds=30),
    ]


def smoke() -> list[Task]:
    """Return every kind of row, in sizes that say nothing."""
    quick: dict[str, Any] = {"rounds": 2, "seconds": 1}
    return [
        steps("tiny_mobilenet", 4, "float32", 1, **quick),
        steps("tiny_resnet", 4, "bfloat16", 1, **quick),
        evaluation("tiny_mobilenet", 4, 8, 1, **quick),
        methods("tiny_dense", 8, threads=1, **quick),
        instruments(1, examples=64, directions=2, points=3, steps=4),
        compilation("tiny_dense", 4, "float32"),
        memory("tiny_dense", 4, ["sgd", "sam", "average_sam", "sub_batch", "m_sam_scan"], 16),
        epoch("digits", "smoke", 1, {}, **quick),
        Task("correctness", {"images": 8, "net": "tiny_mobilenet", "batch": 8}),
        sweep("batch", "tiny_dense", [2, 4], **quick),
        sweep("m_scan", "tiny_dense", [2, 4], 4, **quick),
        sweep("points", "tiny_dense", [2, 4], 4, **quick),
        sweep("directions", "tiny_dense", [2, 4], 4, **quick),
        sweep("seeds", "tiny_dense", [1, 2], 4, **quick),
        sweep("devices_local", "tiny_dense", [1, 2], 4),
        Task(
            "training",
            {
                "epochs": {"fashion_mnist": 1, "digits": 1},
                "examples": {"fashion_mnist": 64, "digits": 64},
                "overrides": {"model.name": "small_conv_net", "batch_size": 32},
                "least_accuracy": 0.0,
            },
        ),
    ]


def sweep(name: str, net: str, values: list[int], batch: int = 0, **options: Any) -> Task:
    """Return one sweep of growth; `batch` is the number of images where that does not grow."""
    case = {"sweep": name, "net": net, "values": values} | ({"batch": batch} if batch else {})
    return Task("growth", case, **options)


def growth() -> list[Task]:
    """Return the sweeps of the page of growth; five minutes on two cores."""
    timed: dict[str, Any] = {"rounds": 5, "seconds": 20}
    return [
        sweep("batch", "small_conv_net_32", [16, 32, 64, 128, 256], repeats=2, **timed),
        sweep("m_scan", "small_conv_net_32", [8, 16, 32, 64, 128], 128, repeats=2, **timed),
        sweep("m_vmap", "small_conv_net_32", [8, 16, 32, 64, 128], 128, repeats=2, **timed),
        sweep("points", "small_conv_net", [8, 32, 128, 512], 256, **timed),
        sweep("directions", "small_conv_net", [4, 16, 64, 256], 256, **timed),
        sweep("seeds", "small_conv_net", [1, 2, 4, 8], 32, repeats=5, **timed),
        sweep("devices_common", "dense", [1, 2, 4, 8], 128),
        sweep("devices_local", "dense", [1, 2, 4, 8], 128),
    ]


class Preset(NamedTuple):
    """A list of tasks, and how they are run."""

    tasks: Callable[[], list[Task]]
    budget: float  # seconds, where none is named
    in_process: bool = False  # whether JAX's side needs no process of its own


PRESETS = {
    "cpu": Preset(cpu, 840.0),
    "gpu": Preset(gpu, 440.0),
    "growth": Preset(growth, 600.0),
    "smoke": Preset(smoke, 600.0, in_process=True),
}


def chosen(preset: str, rows: Sequence[str]) -> list[Task]:
    """Return the tasks of a preset, of some rows alone where they are named.

    Raises:
      ValueError: a row is unknown.
    """
    unknown = sorted(set(rows) - set(ROWS))
    if unknown:
        raise ValueError(f"--rows has {unknown}; the rows are {', '.join(ROWS)}.")
    return [task for task in PRESETS[preset].tasks() if not rows or task.row in rows]
