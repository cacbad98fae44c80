"""The evaluation of a set, against PyTorch."""

from collections.abc import Iterator

from experiments.benchmark.lab import Lab
from experiments.benchmark.rows.versus import line_of, versus
from experiments.benchmark.tasks import Line, Task
from sam_jax.runs.records import Record

REACH = 2.5  # times PyTorch's images/s


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield the record of a case."""
    yield from versus(task, lab, ["evaluation"], "evaluation", "evaluation")


def lines(record: Record) -> list[Line]:
    """Return the line of a record."""
    return [line_of(record, "evaluation", "Evaluation", REACH, at_least=True)]
