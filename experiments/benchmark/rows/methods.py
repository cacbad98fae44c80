"""Methods against SGD times the gradients that they take; m-SAM against SAM."""

from collections.abc import Iterator

from experiments.benchmark import measured, nets
from experiments.benchmark.lab import Lab
from experiments.benchmark.rows.texts import of_case, seconds_text
from experiments.benchmark.sides import alternate
from experiments.benchmark.tasks import Line, Task, about
from sam_jax.runs.records import Record

# Method -> its name, what it is measured against, the gradients of a step, and the reach.
METHODS = {
    "sam": ("SAM", "sgd", 2.0, 1.05),
    "average_sam": ("average SAM", "sgd", 1.0, 1.05),
    "looksam_5": ("LookSAM-5", "sgd", 1.2, 1.10),
    "m_sam": ("m-SAM, m = B/4", "sam", 1.0, 1.10),
    "esam": ("ESAM", "sgd", 1 + 1 / 3 + 1 / 2, 1.15),
}
STRATEGIES = ("m_sam_vmap", "m_sam_scan")  # of m-SAM; the faster counts
PERIOD = 5  # steps after which LookSAM-5 does the same again


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield one record with the times of all of `case["methods"]`, taken in turns."""
    with lab.jax("training_step", task.case) as side:
        found = side.ready(lab.start_seconds())
        methods = task.case["methods"]
        # Whole periods of LookSAM; of the others as many steps as the task says.
        repeats = {m: task.repeats * (PERIOD if m == "looksam_5" else 1) for m in methods}
        for method in methods:
            side.time(method, repeats[method])
        times = alternate(
            {method: (side, method) for method in methods},
            rounds=task.rounds,
            repeats=repeats,
            seconds=task.seconds,
        )
        yield about(task) | {"work": "methods", "sides": times, "software": {"jax": found}}


def lines(record: Record) -> list[Line]:
    """Return a line a method."""
    case, sides = record["case"], record["sides"]
    clock = measured.judged_clock(case)
    tried = [name for name in STRATEGIES if name in sides]
    best = min(tried, key=lambda name: measured.median(record, name, clock), default="m_sam")
    found = []
    for name, (title, against, gradients, reach) in METHODS.items():
        side = best if name == "m_sam" else name
        if side not in sides:
            continue
        by_clock = {
            c: measured.of_record(record, side, against, c, gradients) for c in measured.CLOCKS
        }
        factor = f"{gradients:.3g} × " if gradients != 1 else ""
        note = f"the faster strategy: {side.removeprefix('m_sam_')}" if name == "m_sam" else ""
        found.append(
            Line(
                "methods",
                f"{title}, {nets.title(case['net'])}, {of_case(case)}",
                f"{factor}{against.upper()}",
                by_clock[clock],
                reach=reach,
                wall=by_clock["wall"],
                processor=by_clock["processor"],
                ours=seconds_text(measured.median(record, side, clock)),
                theirs=seconds_text(gradients * measured.median(record, against, clock)),
                note=note,
            )
        )
    return found
