"""Claims as tests: hypothesis, effect, interval and verdict.

A claim says something of an effect: that it is positive, negative or next to nothing. It is made of
parts. A part holds where its whole interval fits, fails where none of it does, and is undecided
otherwise. Without finite numbers it has no data, and its claim cannot hold.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.study.evidence import Evidence, arm_means, compare
from experiments.study.formats import counted, span
from sam_jax import statistics
from sam_jax.statistics.correlation_difference import correlation_difference
from sam_jax.statistics.sample_size import models_needed, seeds_needed

LEVEL = 0.05


class Part(NamedTuple):
    """One test of a claim on one body of evidence."""

    label: str
    n: str  # seeds, models or runs, in words
    effect: float
    interval: statistics.Interval
    confidence: float  # of the interval
    verdict: str  # "holds", "fails", "undecided" or "no data"
    needed: str = ""  # where it is undecided: what would decide, in words


def difference(
    evidence: Evidence,
    label: str,
    group: Sequence[int],
    other: Sequence[int],
    quantity: Any,
    direction: str,
    *,
    allowance: float = 0.0,
    confidence: float = 1 - LEVEL,
) -> list[Part]:
    """Test the difference of the means of two groups of models.

    Args:
      evidence: What to test on.
      label: The name of the part.
      group: Rows of the models whose mean comes first.
      other: Rows of the models to subtract.
      quantity: The quantity of the means.
      direction: "positive", "negative" or "equivalent", as of `statistics.verdict`.
      allowance: How far the effect may miss its side. "positive": effect > -allowance.
        "negative": effect < allowance. "equivalent": |effect| < allowance.
      confidence: Of the interval.

    Returns:
      One part; it has no data where a group is missing, was not measured or diverged.
    """
    if not group or not other:
        return [_without_data(label, confidence)]
    found = compare(evidence, group, other, quantity, confidence)
    if not math.isfinite(found.difference) or (direction == "equivalent" and allowance == 0):
        return [_without_data(label, confidence)]
    interval, bound = found.interval, 0.0
    if direction == "equivalent":
        said = statistics.verdict(interval, direction, margin=allowance)
    else:
        bound = -allowance if direction == "positive" else allowance
        said = statistics.verdict(_shifted(interval, -bound), direction)
    count = _seeds(found.n[0]) if evidence.seeds else f"{found.n[0]} and {found.n[1]} runs"
    needed = ""
    if said == "undecided" and evidence.seeds and direction != "equivalent":
        needed = _words(seeds_needed(found, bound, 1 - confidence), "seeds")
    elif math.isnan(interval.low) and not evidence.seeds:
        needed = "repeated runs"
    return [Part(label, count, found.difference, interval, confidence, said, needed)]


def extreme(
    evidence: Evidence,
    label: str,
    group: Sequence[int],
    rivals: Mapping[str, Sequence[int]],
    quantity: Any,
    direction: str = "negative",
) -> list[Part]:
    """Test that a group has the lowest mean of all; the part shows the rival that decides.

    The intervals against the k rivals have a confidence of 1 - 0.05 / k each, so that they hold
    together whichever is the closest. The part holds if the group is below every rival, and fails
    if it is above any.

    Args:
      evidence: What to test on.
      label: The name of the part.
      group: Rows of the models.
      rivals: Rows of all others, by name.
      quantity: The quantity of the means.
      direction: "negative" for the lowest mean, "positive" for the highest.
    """
    confidence = 1 - LEVEL / max(len(rivals), 1)
    parts = [
        part._replace(label=f"{label}: against {name}")
        for name, rows in rivals.items()
        for part in difference(
            evidence, "", group, rows, quantity, direction, confidence=confidence
        )
    ]
    if not parts:
        return [_without_data(label, confidence)]
    said = combined(parts, "all")
    # Of the rivals that decide the verdict, the closest; where only missing ones do, one of these.
    deciding = [part for part in parts if part.verdict == said]
    if not deciding:
        deciding = [part for part in parts if part.verdict == "no data"]
        deciding = [deciding[0]._replace(verdict="undecided")]
    sign = 1 if direction == "negative" else -1
    return [max(deciding, key=lambda part: sign * part.effect)]


def correlation(
    evidence: Evidence,
    label: str,
    quantity: Any,
    direction: str,
    *,
    bound: float = 0.0,
    without: Sequence[int] = (),
) -> list[Part]:
    """Test whether Pearson's r with the test loss is above ("positive") or below a bound."""
    x = np.delete(arm_means(evidence, quantity), without)
    y = np.delete(arm_means(evidence, evidence.outcome), without)
    found = statistics.correlation(x, y, resamples=1)
    if math.isnan(found.r):
        return [_without_data(label)]
    said = statistics.verdict(_shifted(found.fisher_interval, -bound), direction)
    needed = _words(models_needed(found.r, bound), "models") if said == "undecided" else ""
    count = f"{counted(found.n, found.of)} models"
    return [Part(label, count, found.r, found.fisher_interval, 1 - LEVEL, said, needed)]


def better_correlated(evidence: Evidence, label: str, quantity: Any, other: Any) -> list[Part]:
    """Test whether one quantity has a higher Pearson's r with the test loss than another.

    The label says how far the difference moves where any one model is left out.
    """
    losses = arm_means(evidence, evidence.outcome)
    columns = arm_means(evidence, quantity), arm_means(evidence, other)
    found = correlation_difference(*columns, losses)
    if math.isnan(found.difference):
        return [_without_data(label)]
    said = statistics.verdict(found.interval, "positive")
    without = [
        correlation_difference(
            *(np.delete(values, row) for values in (*columns, losses))
        ).difference
        for row in range(len(losses))
    ]
    moves = span(statistics.Interval(min(without), max(without)))
    label = f"{label} (any one model left out: {moves})"
    return [Part(label, f"{counted(found.n, len(losses))} models", *found[:2], 1 - LEVEL, said)]


def above(label: str, values: np.ndarray, bound: float) -> list[Part]:
    """Test whether the mean over seeds of a quantity is above a bound.

    Args:
      label: The name of the part.
      values: Shape [seeds].
      bound: The claim is that the mean is above it.
    """
    found = statistics.mean_difference(values, np.zeros_like(values), paired=True)
    if not math.isfinite(found.difference):
        return [_without_data(label)]
    interval = found.interval
    said = statistics.verdict(_shifted(interval, -bound), "positive")
    needed = ""
    if said == "undecided":
        needed = _words(seeds_needed(found, bound), "seeds")
    count = _seeds(found.n[0])
    return [Part(label, count, found.difference, interval, 1 - LEVEL, said, needed)]


def combined(parts: Sequence[Part], combine: str) -> str:
    """Return the verdict of several parts.

    Args:
      parts: The tests of one claim.
      combine: "all" for a claim that says every part, "any" for one that says at least one.

    Returns:
      "holds", "fails", "undecided" or, if no part has any, "no data". A part without data leaves
      the claim undecided unless the others decide it.
    """
    verdicts = [part.verdict for part in parts]
    if set(verdicts) <= {"no data"}:
        return "no data"
    every, one = ("holds", "fails") if combine == "all" else ("fails", "holds")
    if one in verdicts:
        return one
    return every if set(verdicts) == {every} else "undecided"


def _without_data(label: str, confidence: float = 1 - LEVEL) -> Part:
    nothing = statistics.Interval(math.nan, math.nan)
    return Part(label, "—", math.nan, nothing, confidence, "no data")


def _shifted(interval: statistics.Interval, by: float) -> statistics.Interval:
    return statistics.Interval(interval.low + by, interval.high + by)


def _seeds(count: int) -> str:
    return f"{count} seed" + ("" if count == 1 else "s")


def _words(count: int | None, unit: str) -> str:
    if count is None:
        return ""
    return f"about {count} {unit}" if count <= 1000 else f"more than 1000 {unit}"
