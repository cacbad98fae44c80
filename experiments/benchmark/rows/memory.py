"""Memory that steps need beside their arguments and results, from the compiled programs."""

import math
from collections.abc import Iterator

from experiments.benchmark import nets
from experiments.benchmark.lab import Lab
from experiments.benchmark.measured import NOTHING, Ratio
from experiments.benchmark.tasks import Line, Task, about
from sam_jax.runs.records import Record

MOST_COPIES = 1.0
MOST_OF_ONE = 1.1  # of the memory of one sub-batch; the accumulated gradient comes on top


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield one record with the bytes of all of `case["programs"]`."""
    # What comes from the cache does not tell its memory.
    with lab.jax("memory", task.case, cache="") as side:
        found = side.ready(lab.start_seconds())
    yield about(task) | {"work": "memory", "bytes": found.pop("bytes"), "software": {"jax": found}}


def lines(record: Record) -> list[Line]:
    """Return a line a comparison that the record holds."""
    case, found = record["case"], record["bytes"]
    title, params = nets.title(case["net"]), record["software"]["jax"]["parameters"] * 4
    lines = []
    for name, words in (("sam", "SAM"), ("average_sam", "average SAM")):
        if name in found and "sgd" in found:
            copies = (found[name] - found["sgd"]) / params
            lines.append(
                Line(
                    "memory",
                    f"Memory of a step of {words}, {title}, batch {case['batch']}",
                    "a step of SGD, in copies of the parameters above it",
                    _exact(copies),
                    reach=MOST_COPIES,
                    ours=_megabytes(found[name]),
                    theirs=_megabytes(found["sgd"]),
                    unit="copies",
                )
            )
    if "m_sam_scan" in found and "sub_batch" in found:
        images = case["examples"]
        lines.append(
            Line(
                "memory",
                f"Memory of SAM on {images} images by scan, m = {case['batch']}, {title}",
                "a step of SAM on one sub-batch",
                _exact(found["m_sam_scan"] / (found["sub_batch"] or math.nan)),
                reach=MOST_OF_ONE,
                ours=_megabytes(found["m_sam_scan"]),
                theirs=_megabytes(found["sub_batch"]),
            )
        )
    return lines


def _exact(value: float) -> Ratio:
    return Ratio(value, value, value, 1) if value == value else NOTHING


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
