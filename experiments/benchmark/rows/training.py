"""A short real training with SAM: that it learns, and how fast it runs."""

from collections.abc import Iterator

from experiments.benchmark.lab import Lab
from experiments.benchmark.measured import Ratio
from experiments.benchmark.rows.texts import seconds_text
from experiments.benchmark.tasks import Line, Task, about
from sam_jax.runs.records import Record


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield one record: the accuracy at the end, and the time of all."""
    case = dict(task.case) | {
        "folder": str(lab.folder / "short_training"),
        "data_dir": lab.data_dir,
    }
    with lab.jax("training", case) as side:
        found = side.ready(lab.start_seconds())
        result = side.time("train", 1, seconds=max(lab.left, 30.0))["result"]
    yield about(task) | {"work": "training", "result": result, "software": {"jax": found}}


def lines(record: Record) -> list[Line]:
    """Return the line of a record."""
    found = record["result"]
    accuracy, epochs = 100 * found["test_accuracy"], found["epochs"]
    return [
        Line(
            "training",
            f"{found['title']}, {epochs} epochs of {found['examples']} images with SAM",
            "test accuracy",
            Ratio(accuracy, accuracy, accuracy, 1),
            reach=100 * record["case"]["least_accuracy"],
            at_least=True,
            ours=f"test loss {found['test_loss']:.3f}",
            note=f"{seconds_text(found['seconds'])}, compilation included",
            unit="%",
        )
    ]
