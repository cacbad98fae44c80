"""What the page shows of a run: its row in the table, its notes and its curves, from its files."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from sam_jax.live.curves import CHARTS, by_epoch, curve, number, plain
from sam_jax.live.folders import Found, arm_and_seed
from sam_jax.live.logs import Log, Record
from sam_jax.mistakes import first_of

STATES = ("training", "finished", "stopped", "waiting", "failed")
# Other numbers are NaN where nobody asked for them.
_ALWAYS_ASKED = ("batch_loss", "learning_rate", "gradient_norm", "perturbation_norm")
_RECENT = 5  # epochs, whose time says how long the next ones take


class Files(NamedTuple):
    """What was read of a run."""

    found: Found
    config: Record | None  # None where it is damaged
    metrics: Log = Log()
    speed: Log = Log()
    holder: str = ""  # the process that trains it; "" for none
    nonfinite: Record | None = None  # the contents of nonfinite.json


def summary(files: Files, root: str) -> dict[str, Any]:
    """Return what the page shows of a run, as JSON has it.

    Args:
      files: of the run.
      root: the name of the folder that all runs lie in.
    """
    records, speeds = by_epoch(files.metrics.records), by_epoch(files.speed.records)
    arm, seed = arm_and_seed(files.found.name, root)
    epoch = records[-1]["epoch"] if records else 0
    epochs = _whole((files.config or {}).get("epochs"))
    state = state_of(epoch, epochs, bool(files.holder), files.found.files)
    drawn = {chart.field: curve(_source(chart.field, records, speeds), chart) for chart in CHARTS}
    return {
        "name": files.found.name,
        "arm": arm,
        "seed": _whole((files.config or {}).get("seed"), seed),
        "state": state,
        "epoch": epoch,
        "epochs": epochs,
        "last": {
            field: last_number(records, field)
            for field in ("batch_loss", "batch_accuracy", "test_loss", "test_accuracy")
        }
        | {"images_per_second": recent_speed(speeds)},
        "began_at": began_at(speeds),
        "ends_at": ends_at(speeds, epoch, epochs) if state == "training" else None,
        "notes": notes(files, records),
        "curves": {field: points for field, points in drawn.items() if points},
    }


def state_of(epoch: int, epochs: int | None, is_held: bool, names: frozenset[str]) -> str:
    """Return the state of a run, one of `STATES`.

    Args:
      epoch: the last one that it finished, 0 for none.
      epochs: how many it is to have; None where nobody knows.
      is_held: whether a process holds the lock of its training.
      names: of the files in its folder.

    >>> state_of(3, 10, True, frozenset()), state_of(3, 10, False, frozenset())
    ('training', 'stopped')
    >>> state_of(3, 10, False, frozenset({"nonfinite.json"})), state_of(10, 10, False, frozenset())
    ('failed', 'finished')
    """
    if epochs is not None and epoch >= epochs:
        return "finished"
    if is_held:
        return "training"
    if "nonfinite.json" in names:
        return "failed"
    return "stopped" if epoch or "interrupted" in names else "waiting"


def last_number(records: Sequence[Record], field: str) -> float | None:
    """Return the newest number of a field that is not NaN; None where there is none."""
    values = (number(record.get(field)) for record in reversed(records))
    return plain(next((x for x in values if x is not None and not math.isnan(x)), None))


def recent_speed(speeds: Sequence[Record]) -> float | None:
    """Return the median images/s of the newest epochs; None where there is none.

    The line of one epoch may hold a compilation, or time of its neighbour: epochs are written while
    the next ones compute.

    Args:
      speeds: the records of speed.jsonl by ascending epochs.

    >>> recent_speed([{"images_per_second": speed} for speed in (5.0, 7.0, 900.0)])
    7.0
    """
    return plain(_recent_median(speeds, "images_per_second"))


def began_at(speeds: Sequence[Record]) -> float | None:
    """Return when the first epoch that has a speed began, in seconds since 1970; None for none.

    Args:
      speeds: the records of speed.jsonl by ascending epochs.

    >>> began_at([{"epoch": 1, "seconds": 60.0, "time": 1000.0}])
    940.0
    """
    if not speeds:
        return None
    time, seconds = (number(speeds[0].get(field)) for field in ("time", "seconds"))
    return None if time is None or seconds is None else plain(time - seconds)


def ends_at(speeds: Sequence[Record], epoch: int, epochs: int | None) -> float | None:
    """Return when a training is done, if its epochs take as long as the newest ones.

    Args:
      speeds: the records of speed.jsonl by ascending epochs.
      epoch: the last one that it finished.
      epochs: how many it is to have.

    Returns:
      Seconds since 1970; None where nobody knows.

    >>> ends_at([{"epoch": 1, "seconds": 60.0, "time": 1000.0}], epoch=1, epochs=3)
    1120.0
    """
    seconds = _recent_median(speeds, "seconds")
    time = number(speeds[-1].get("time")) if speeds else None
    if epochs is None or seconds is None or time is None or not math.isfinite(time):
        return None
    return time + seconds * (epochs - epoch)


def _recent_median(speeds: Sequence[Record], field: str) -> float | None:
    """Return the median of a field over the newest epochs; None where none has a finite one."""
    found = [number(record.get(field)) for record in speeds[-_RECENT:]]
    known = [value for value in found if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None


def notes(files: Files, records: Sequence[Record]) -> list[str]:
    """Return sentences about what is wrong with a run, or with its files."""
    found = []
    if files.config is None:
        found.append("config.json is damaged")
    for name, log in (("metrics.jsonl", files.metrics), ("speed.jsonl", files.speed)):
        if log.fault:
            found.append(f"{name} cannot be read: {log.fault}")
        if log.damaged:
            lines = "line" if len(log.damaged) == 1 else "lines"
            are = "is" if len(log.damaged) == 1 else "are"
            numbers = first_of([str(number) for number in log.damaged])
            found.append(f"{lines} {numbers} of {name} {are} damaged")
    if files.nonfinite:
        step, epoch = (_whole(files.nonfinite.get(name)) for name in ("step", "epoch"))
        found.append(f"stopped by numbers that are not finite, at step {step} of epoch {epoch}")
    for field in _ALWAYS_ASKED:
        values = ((record["epoch"], number(record.get(field))) for record in records)
        bad = [str(epoch) for epoch, x in values if x is not None and not math.isfinite(x)]
        if bad:
            found.append(f"{field} is not finite at epoch {first_of(bad)}")
    steps = sum(_whole(record.get("nonfinite_steps"), 0) or 0 for record in records)
    if steps:
        found.append(f"{steps} steps were not finite")
    diverged = next((r["epoch"] for r in records if r.get("diverged") is True), None)
    if diverged:
        found.append(f"diverged at epoch {diverged}")
    return found


def _source(field: str, records: list[Record], speeds: list[Record]) -> list[Record]:
    return speeds if field == "images_per_second" else records


def _whole(value: Any, default: int | None = None) -> int | None:
    return value if type(value) is int else default
