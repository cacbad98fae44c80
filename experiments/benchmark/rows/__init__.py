"""The rows of the benchmark's table, by name: one kind a file.

A row has `measure(task, lab)`, which yields records, and `lines(record)`, which reads one.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from experiments.benchmark.lab import Lab
from experiments.benchmark.rows import (
    compilation,
    correctness,
    epoch,
    evaluation,
    growth,
    instruments,
    memory,
    methods,
    steps,
    training,
)
from experiments.benchmark.tasks import Line, Task
from sam_jax.runs.records import Record


class Row(NamedTuple):
    """One kind of row."""

    title: str
    measure: Callable[[Task, Lab], Iterator[Record]]
    lines: Callable[[Record], list[Line]]


ROWS = {
    "steps": Row("Training steps", steps.measure, steps.lines),
    "evaluation": Row("Evaluation", evaluation.measure, evaluation.lines),
    "methods": Row("Methods against the gradients they take", methods.measure, methods.lines),
    "instruments": Row("Instruments", instruments.measure, instruments.lines),
    "compilation": Row("Compilation", compilation.measure, compilation.lines),
    "memory": Row("Memory", memory.measure, memory.lines),
    "epoch": Row("A whole epoch", epoch.measure, epoch.lines),
    "correctness": Row("Correctness on this device", correctness.measure, correctness.lines),
    "growth": Row("Growth beside its model", growth.measure, growth.lines),
    "training": Row("A short training", training.measure, training.lines),
}
