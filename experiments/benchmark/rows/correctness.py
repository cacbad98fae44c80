"""Whether the paths that a CPU never takes give the right numbers on this device."""

from collections.abc import Iterator

from experiments.benchmark.lab import Lab
from experiments.benchmark.measured import Ratio
from experiments.benchmark.tasks import Line, Task, about
from sam_jax.runs.records import Record


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield a record of each check."""
    with lab.jax("correctness", task.case) as side:
        found = side.ready(lab.start_seconds())
        for name in found["calls"]:
            for error, words, bound in side.time(name, 1)["result"]:
                yield about(task) | {
                    "work": words,
                    "error_found": error,
                    "bound": bound,
                    "software": {"jax": found},
                }


def lines(record: Record) -> list[Line]:
    """Return the line of a check: the largest error over its bound."""
    share = record["error_found"] / record["bound"]
    return [
        Line(
            "correctness",
            record["work"],
            f"the bound {record['bound']:.2g}",
            Ratio(share, share, share, 1),
            reach=1.0,
            ours=f"{record['error_found']:.2g}",
            unit="of the bound",
        )
    ]
