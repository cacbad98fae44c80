"""Instruments over a whole training set, against the peers' loops in PyTorch."""

import math
from collections.abc import Iterator
from typing import Any

from experiments.benchmark import measured, nets
from experiments.benchmark.lab import Lab
from experiments.benchmark.rows.texts import of_case, seconds_text
from experiments.benchmark.sides import AnySide, Side, SideFailed, alternate
from experiments.benchmark.tasks import Line, Task, about
from sam_jax.runs.records import Record

NAMES = {
    "asymmetry": ("Asymmetry factor", "the study's loop"),
    "surface": ("Loss surface", "the loop of Li et al."),
    "lanczos": ("Lanczos", "PyHessian's loop"),
}
CPU_REACH, GPU_REACH = 3.0, 10.0
# Batches from a DataLoader, as the peers have them, or cut beforehand. What the DataLoader costs a
# point is known from the asymmetry; the surface is long, and measured as the peers have it.
LOOPS = {
    "asymmetry": ("loader", "tensors"),
    "surface": ("loader",),
    "lanczos": ("loader", "tensors"),
}


def measure(task: Task, lab: Lab) -> Iterator[Record]:
    """Yield a record of each of `case["instruments"]`; both sides measure the same weights."""
    case = dict(task.case) | {"weights": str(lab.folder / "instruments.npz")}
    with lab.jax("instruments", case) as jax_side:
        jax_about = jax_side.ready(lab.start_seconds())  # writes the weights
        with lab.torch("instruments", case) as torch_side:
            torch_about, error = _ready(torch_side, lab)
            for name in task.case["instruments"]:
                calls: dict[str, tuple[AnySide, str]] = {"jax": (jax_side, name)}
                results = {"jax": jax_side.time(name, 1)["result"]}  # compiles
                if torch_side is not None and not error:
                    calls |= {f"torch {x}": (torch_side, f"{name}/{x}") for x in LOOPS[name]}
                    torch_side.time("warm_up", 1)
                times = alternate(
                    calls, rounds=task.rounds, seconds=task.seconds / len(NAMES), least=1
                )
                if torch_side is not None and not error:
                    results["torch"] = torch_side.time(f"{name}/result", 1)["result"]
                yield about(task) | {
                    "work": name,
                    "sides": times,
                    "results": results,
                    "torch_error": error,
                    "software": {"jax": jax_about, "torch": torch_about},
                }


def _ready(side: Side | None, lab: Lab) -> tuple[dict[str, Any], str]:
    if side is None:
        return {}, "PyTorch is not installed here"
    try:
        return side.ready(lab.start_seconds()), ""
    except SideFailed as error:
        return {}, str(error)


def lines(record: Record) -> list[Line]:
    """Return the line of a record."""
    case, (title, loop) = record["case"], NAMES[record["work"]]
    jax_about = record["software"]["jax"]
    on_gpu = jax_about["platform"] != "cpu"
    clock = "wall" if on_gpu else measured.judged_clock(case)
    by_clock = {
        name: measured.of_record(record, "torch loader", "jax", name) for name in measured.CLOCKS
    }
    note = record["torch_error"]
    if not note:
        cut = measured.of_record(record, "torch tensors", "jax", clock).median
        found = [record["results"][side] for side in ("jax", "torch")]
        note = f"without the DataLoader {cut:.2f}; " if math.isfinite(cut) else ""
        note += f"results {found[0]:.4g} and {found[1]:.4g}"
    of = {
        "asymmetry": f"{case['directions']} directions",
        "surface": f"{case['points']} x {case['points']}",
        "lanczos": f"{case['steps']} products",
    }
    words = f"{of[record['work']]}, {jax_about['examples']} images, {nets.title(case['net'])}"
    return [
        Line(
            "instruments",
            f"{title}, {words}, {of_case(case)}",
            f"PyTorch, {loop}",
            by_clock[clock],
            reach=GPU_REACH if on_gpu else CPU_REACH,
            at_least=True,
            wall=by_clock["wall"],
            processor=by_clock["processor"],
            ours=seconds_text(measured.median(record, "jax", clock)),
            theirs=seconds_text(measured.median(record, "torch loader", clock)),
            note=note,
        )
    ]
