"""Compile time of a SAM step, and what the persistent cache leaves of it."""

import math
import tempfile
from collections.abc import Iterator

from experiments.benchmark import measured, nets
from experiments.benchmark.lab import Lab
from experiments.benchmark.measured import Ratio
from experiments.benchmark.rows.texts import of_case, seconds_text
from experiments.benchmark.tasks import Line, Task, about
from sam_jax.runs.records import Record

PHASES = ("trace", "lower", "compile")
REACH = 20.0  # seconds, on two cores


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield one record: a compilation with an empty cache, and one with what that left there."""
    sides = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "cached"):
            with lab.jax("compilation", task.case, cache=cache, own_process=True) as side:
                found = side.ready(lab.start_seconds())
            sides[name] = {
                clock: [sum(found[phase][clock] for phase in PHASES)] for clock in measured.CLOCKS
            } | {phase: found[phase] for phase in PHASES}
    yield about(task) | {"work": "compilation", "sides": sides, "software": {"jax": found}}


def lines(record: Record) -> list[Line]:
    """Return the line of the compilation and that from the cache."""
    case, work = record["case"], nets.title(record["case"]["net"])
    found = []
    for name, words in (("cold", "nothing cached"), ("cached", "from the persistent cache")):
        side = record["sides"][name]
        wall, processor = side["wall"][0], side["processor"][0]
        phases = ", ".join(f"{p} {seconds_text(side[p]['wall'])}" for p in PHASES)
        found.append(
            Line(
                "compilation",
                f"Compiling a SAM step, {work}, {of_case(case)}",
                words,
                Ratio(wall, wall, wall, 1),
                reach=REACH if name == "cold" else math.nan,
                ours=f"{seconds_text(wall)} ({seconds_text(processor)} of processors)",
                note=phases,
                unit="s",
            )
        )
    return found
