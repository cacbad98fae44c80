"""Times of both sides, and ratios of them: medians over rounds that alternated."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

CLOCKS = ("wall", "processor")


class Ratio(NamedTuple):
    """The median of the ratios of all rounds, and the smallest and the largest of them."""

    median: float
    low: float
    high: float
    rounds: int


NOTHING = Ratio(math.nan, math.nan, math.nan, 0)


def ratio(over: Sequence[float], under: Sequence[float], factor: float = 1.0) -> Ratio:
    """Return over / (factor * under), round by round.

    Args:
      over: a time a round.
      under: the time of the other side in the same rounds.
      factor: what the other side's time is multiplied by.

    >>> ratio([3.0, 2.0, 5.0], [1.0, 1.0, 2.0])
    Ratio(median=2.5, low=2.0, high=3.0, rounds=3)
    """
    rounds = [a / (factor * b) for a, b in zip(over, under, strict=True) if b > 0]
    if not rounds:
        return NOTHING
    return Ratio(statistics.median(rounds), min(rounds), max(rounds), len(rounds))


def of_record(
    record: Mapping[str, Any], over: str, under: str, clock: str, factor: float = 1.0
) -> Ratio:
    """Return the ratio of two sides of a record by a clock; NaN where a side was not measured."""
    sides = record.get("sides", {})
    if over not in sides or under not in sides:
        return NOTHING
    return ratio(sides[over][clock], sides[under][clock], factor)


def median(record: Mapping[str, Any], side: str, clock: str) -> float:
    """Return the median time of a side; NaN where it was not measured."""
    times = record.get("sides", {}).get(side, {}).get(clock, ())
    return statistics.median(times) if times else math.nan


def judged_clock(case: Mapping[str, Any]) -> str:
    """Return the clock that decides: processor seconds for one thread, else the wall's.

    Beside other jobs the wall clock of one thread tells of them too. The processor time of several
    threads tells how long they span, and not how long the work took.
    """
    return "processor" if case.get("threads") == 1 else "wall"
