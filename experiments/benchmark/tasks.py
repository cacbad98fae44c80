"""What is to be measured, and what a table says of it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.benchmark.measured import NOTHING, Ratio
from sam_jax.runs.records import Record, as_read


class Task(NamedTuple):
    """One measurement of a row, and how long it may take."""

    row: str
    case: Mapping[str, Any]  # what tells it from others of its row
    rounds: int = 5
    repeats: int = 1  # of the work in one timed call
    seconds: float = 60.0  # after so many no further round begins, from the third on
    needs: float = 15.0  # seconds; with less of the budget left it is not begun
    batch_examples: int = 0  # of one repeat, to say images/s; 0 where that means nothing


class Line(NamedTuple):
    """A line of the table."""

    row: str
    work: str
    against: str
    number: Ratio  # what is judged
    reach: float = math.nan  # NaN where nothing is asked
    at_least: bool = False  # whether the number is to be at least `reach`, else at most
    wall: Ratio = NOTHING  # the same ratio by both clocks, where it is one of times
    processor: Ratio = NOTHING
    ours: str = ""  # what was measured, with its unit
    theirs: str = ""
    note: str = ""
    unit: str = "×"

    @property
    def reached(self) -> bool | None:
        """Whether the reach is met; None where nothing is asked, or nothing was measured."""
        if not (math.isfinite(self.reach) and math.isfinite(self.number.median)):
            return None
        if self.at_least:
            return self.number.median >= self.reach
        return self.number.median <= self.reach


def is_of(record: Record, task: Task) -> bool:
    """Say whether a record is of a task."""
    return record["row"] == task.row and record["case"] == as_read(dict(task.case))


def about(task: Task) -> Record:
    """Return the fields by which a record is known."""
    return {"row": task.row, "case": dict(task.case), "examples": task.batch_examples}
