"""Whole epochs of the training command, against the bare compiled steps."""

from collections.abc import Iterator

from experiments.benchmark import measured
from experiments.benchmark.lab import Lab
from experiments.benchmark.rows.texts import seconds_text
from experiments.benchmark.sides import alternate
from experiments.benchmark.tasks import Line, Task, about
from sam_jax.runs.records import Record

REACH = 1.05


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield one record: whole trainings and their steps alone, in turns in one process."""
    case = dict(task.case) | {"folder": str(lab.folder / "trainings"), "data_dir": lab.data_dir}
    with lab.jax("epoch", case) as side:
        found = side.ready(lab.start_seconds())
        calls = {name: (side, name) for name in ("whole", "bare")}
        for name in calls:
            side.time(name, 1)
        times = alternate(calls, rounds=task.rounds, seconds=task.seconds)
    yield about(task) | {"work": "epoch", "sides": times, "software": {"jax": found}}


def lines(record: Record) -> list[Line]:
    """Return the line of a record."""
    case, found = record["case"], record["software"]["jax"]
    clock = measured.judged_clock(case)
    by_clock = {name: measured.of_record(record, "whole", "bare", name) for name in measured.CLOCKS}
    epochs = case["epochs"]
    return [
        Line(
            "epoch",
            f"An epoch with SAM: input, augmentation, logging, evaluation; {found['title']}",
            "the bare compiled steps",
            by_clock[clock],
            reach=REACH,
            wall=by_clock["wall"],
            processor=by_clock["processor"],
            ours=seconds_text(measured.median(record, "whole", clock) / epochs),
            theirs=seconds_text(measured.median(record, "bare", clock) / epochs),
            note=f"{epochs} epochs of {found['steps']} steps and {found['test_examples']} test "
            "images, checkpoint included",
        )
    ]
