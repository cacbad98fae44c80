"""Training steps of SGD and SAM, against the same algorithm in PyTorch."""

from collections.abc import Iterator

from experiments.benchmark.lab import Lab
from experiments.benchmark.rows.versus import line_of, on_gpu, versus
from experiments.benchmark.tasks import Line, Task
from sam_jax.runs.records import Record

NAMES = {"sgd": "SGD step", "sam": "SAM step"}
CPU_REACH, GPU_REACH = 1.0, 1.5  # of PyTorch's time; times its images/s


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield a record of each of `case["methods"]`."""
    yield from versus(task, lab, task.case["methods"], "training_step", "training_step")


def lines(record: Record) -> list[Line]:
    """Return the line of a record."""
    fast = on_gpu(record)
    reach = GPU_REACH if fast else CPU_REACH
    return [line_of(record, "steps", NAMES[record["work"]], reach, at_least=fast)]
