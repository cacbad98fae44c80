"""Measure the tasks of a preset one after the other; every record is kept as it comes."""

from collections.abc import Iterable, Sequence

from experiments.benchmark.lab import Lab
from experiments.benchmark.machine import machine
from experiments.benchmark.rows import ROWS
from experiments.benchmark.sides import SideFailed
from experiments.benchmark.tasks import Task, about, is_of
from sam_jax.runs import records
from sam_jax.runs.records import Record


def run(tasks: Sequence[Task], lab: Lab) -> None:
    """Measure what has no record yet, until the budget ends.

    A task that fails leaves a record of its error, and is tried again by the next run. One that
    was measured without PyTorch is measured again once an interpreter has it.
    """
    path, here = lab.folder / "records.jsonl", machine()
    for number, task in enumerate(tasks, 1):
        if is_done(task, records.read(path), bool(lab.torch_python)):
            continue
        if lab.left < task.needs:
            print(f"The budget ended before {task.row} {dict(task.case)}.", flush=True)
            continue
        print(f"{number}/{len(tasks)} {task.row} {_words(task)}", flush=True)
        # No task may take the time that all others need: where it is late it stops early.
        limited = task._replace(seconds=min(task.seconds, max(lab.left / 2, 1.0)))
        try:
            for record in ROWS[task.row].measure(limited, lab):
                records.append(path, record | {"machine": here})
        except (SideFailed, OSError) as error:
            print(f"  failed: {error}", flush=True)
            records.append(path, about(task) | {"error": str(error), "machine": here})


def is_done(task: Task, found: Iterable[Record], has_torch: bool) -> bool:
    """Say whether all of a task has been measured, with PyTorch if there is one."""
    own = [record for record in found if is_of(record, task) and "error" not in record]
    missing = any(record.get("torch_error") for record in own)
    whole = len({record["work"] for record in own}) >= works(task)
    return whole and not (missing and has_torch)


def works(task: Task) -> int:
    """Return how many works a task measures, a record each, at the least."""
    listed = {"steps": "methods", "instruments": "instruments"}
    return len(task.case[listed[task.row]]) if task.row in listed else 1


def latest(tasks: Iterable[Task], found: Sequence[Record]) -> list[tuple[Task, list[Record]]]:
    """Return the newest records of every task, one of each work; an error only where nothing is."""
    result = []
    for task in tasks:
        own = [record for record in found if is_of(record, task)]
        good = {record["work"]: record for record in own if "error" not in record}
        result.append((task, list(good.values()) or own[-1:]))
    return result


def _words(task: Task) -> str:
    case = task.case
    names = [str(case[x]) for x in ("net", "config", "batch", "precision") if x in case]
    threads = case.get("threads", 0)
    return " ".join([*names, *([f"{threads} threads"] if threads else [])])
