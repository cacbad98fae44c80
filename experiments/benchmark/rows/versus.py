"""A comparison of the two sides: every mode of PyTorch is tried, and the fastest counts."""

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.benchmark import measured, nets
from experiments.benchmark.lab import Lab
from experiments.benchmark.rows.texts import images_per_second, of_case, torch_name
from experiments.benchmark.sides import AnySide, Side, SideFailed, alternate
from experiments.benchmark.tasks import Line, Task, about
from sam_jax.runs.records import Record

MODE_SECONDS = 90.0  # within which a mode of PyTorch has compiled and chosen its algorithms


def versus(
    task: Task, lab: Lab, works: Sequence[str], jax_task: str, torch_task: str
) -> Iterator[Record]:
    """Yield a record of every work, both sides timed in turns.

    Args:
      task: its case is given to both sides.
      lab: the place.
      works: the names of the calls; PyTorch's are WORK/MODE, and the last chooses the mode.
      jax_task: the module of the side that runs JAX.
      torch_task: the module of the other one.
    """
    with lab.jax(jax_task, task.case) as jax_side, lab.torch(torch_task, task.case) as torch_side:
        jax_about = jax_side.ready(lab.start_seconds())
        torch_about, mode, tried, error = _torch(lab, torch_side, works[-1], task, jax_about)
        for work in works:
            calls: dict[str, tuple[AnySide, str]] = {"jax": (jax_side, work)}
            jax_side.time(work, 1)
            if torch_side is not None and mode:
                calls["torch"] = (torch_side, f"{work}/{mode}")
                torch_side.time(f"{work}/{mode}", 1)
            times = alternate(calls, rounds=task.rounds, repeats=task.repeats, seconds=task.seconds)
            yield about(task) | {
                "work": work,
                "sides": times,
                "torch_mode": mode,
                "torch_tried": tried,
                "torch_error": error,
                "software": {"jax": jax_about, "torch": torch_about},
            }


def on_gpu(record: Record) -> bool:
    """Say whether JAX's side ran on an accelerator."""
    return record["software"]["jax"]["platform"] != "cpu"


def line_of(record: Record, row: str, work: str, reach: float, at_least: bool) -> Line:
    """Return the line of a comparison.

    Args:
      record: one that `versus` made.
      row: its name among the rows.
      work: what was done, in words.
      reach: the ratio to be reached.
      at_least: whether the ratio is PyTorch's time over ours, which shall be large; otherwise it is
        ours over PyTorch's.
    """
    case = record["case"]
    over, under = ("torch", "jax") if at_least else ("jax", "torch")
    clock = "wall" if on_gpu(record) else measured.judged_clock(case)
    by_clock = {name: measured.of_record(record, over, under, name) for name in measured.CLOCKS}
    return Line(
        row,
        f"{work}, {nets.title(case['net'])}, {of_case(case)}",
        torch_name(record),
        by_clock[clock],
        reach=reach,
        at_least=at_least,
        wall=by_clock["wall"],
        processor=by_clock["processor"],
        ours=images_per_second(record, "jax", clock),
        theirs=images_per_second(record, "torch", clock),
        note=record["torch_error"],
    )


def _torch(
    lab: Lab, side: Side | None, work: str, task: Task, jax_about: dict[str, Any]
) -> tuple[dict[str, Any], str, dict[str, float], str]:
    """Return what is known of PyTorch's side, its fastest mode, the times of all, and an error."""
    if side is None:
        return {}, "", {}, "PyTorch is not installed here"
    try:
        found = side.ready(lab.start_seconds())
    except SideFailed as error:
        return {}, "", {}, str(error)
    if found["parameters"] != jax_about["parameters"]:
        error = f"{found['parameters']} parameters and not {jax_about['parameters']}"
        return found, "", {}, f"PyTorch's network has {error}"
    tried, error = {}, ""
    clock = measured.judged_clock(task.case)
    for call in found["calls"]:
        name, mode = call.split("/", maxsplit=1)
        if name == work:
            try:
                side.time(call, 1, MODE_SECONDS)  # the first call allocates, or compiles
                tried[mode] = side.time(call, task.repeats, MODE_SECONDS)[clock]
            except SideFailed as failure:  # another mode may work
                error = str(failure)
    if not tried or side.has_ended:
        return found, "", {}, error
    return found, min(tried, key=lambda mode: tried[mode]), tried, ""
