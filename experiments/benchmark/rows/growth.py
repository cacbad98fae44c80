"""How time, memory and collectives grow, each sweep beside its model."""

import math
import statistics
from collections.abc import Iterator

from experiments.benchmark import nets
from experiments.benchmark.growth.model import SWEEPS, predicted
from experiments.benchmark.lab import Lab
from experiments.benchmark.measured import Ratio
from experiments.benchmark.sides import alternate
from experiments.benchmark.tasks import Line, Task, about
from sam_jax.runs.records import Record


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield the record of a sweep: at every point seconds, operations, bytes and collectives."""
    case = task.case
    devices = max(case["values"]) if case["sweep"].startswith("devices") else 1
    # What comes from the cache does not tell its memory, and devices are set as a process starts.
    with lab.jax("growth", case, cache="", own_process=devices > 1, devices=devices) as side:
        found = side.ready(lab.start_seconds())
        times = {}
        if found["calls"]:
            for call in found["calls"]:
                side.time(call, 1)
            times = alternate(
                {call: (side, call) for call in found["calls"]},
                rounds=task.rounds,
                repeats=task.repeats,
                seconds=task.seconds,
            )
    points = [
        point
        | {"seconds": statistics.median(times[str(point["x"])]["wall"]) if times else math.nan}
        for point in found.pop("points")
    ]
    yield about(task) | {
        "work": case["sweep"],
        "points": points,
        "rounds": times,
        "software": {"jax": found},
    }


def lines(record: Record) -> list[Line]:
    """Return a line a panel: the measurement over the model, where they differ most."""
    case = record["case"]
    sweep, parameters = SWEEPS[case["sweep"]], record["software"]["jax"]["parameters"]
    model = predicted(case["sweep"], record["points"], parameters)
    found = []
    for panel, name in enumerate((sweep.quantity, sweep.memory)):
        ratios = [
            point[name] / numbers[panel]
            for point, numbers in zip(record["points"], model, strict=True)
            if numbers[panel] > 0
        ]
        ratios = [ratio for ratio in ratios if math.isfinite(ratio) and ratio > 0]
        if ratios:
            worst = max(ratios, key=lambda ratio: abs(math.log(ratio)))
            values = f"{min(case['values'])} to {max(case['values'])} {sweep.x}"
            found.append(
                Line(
                    "growth",
                    f"{sweep.title}, {nets.title(case['net'])}: {name.replace('_', ' ')}",
                    f"the model, {values}",
                    Ratio(worst, min(ratios), max(ratios), len(ratios)),
                    note=sweep.words,
                )
            )
    return found
