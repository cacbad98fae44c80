"""A comparison of the two sides: every mode of PyTorch is tried, and the fastest counts."""

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.benchmark.lab import Lab
from experiments.benchmark.measured import judged_clock
from experiments.benchmark.sides import AnySide, Side, SideFailed, alternate
from experiments.benchmark.tasks import Task, about
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
    clock = judged_clock(task.case)
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
