"""Curves over epochs, thin enough to be sent and drawn."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sam_jax.live.logs import Record

MOST_POINTS = 500
_FORMAT = "%.6g"  # the digits of a number on the page


class Chart(NamedTuple):
    """A field of the records that the page draws over the epochs."""

    field: str
    title: str
    is_fraction: bool = False  # shown in per cent
    error: str = ""  # the field with its standard error, drawn as a band
    is_sparse: bool = False  # NaN where it was not asked for


CHARTS = (
    Chart("batch_loss", "Training loss, of the batches as trained on"),
    Chart("test_loss", "Test loss", is_sparse=True),
    Chart("test_accuracy", "Test accuracy", is_fraction=True, is_sparse=True),
    Chart("learning_rate", "Learning rate"),
    Chart("rho", "Radius ρ of the perturbation", is_sparse=True),  # some methods have none
    Chart("gradient_norm", "Norm of the gradient"),
    Chart("perturbation_norm", "Norm of the perturbation"),
    Chart("sharpness", "Sharpness", error="sharpness_stderr", is_sparse=True),
    Chart("images_per_second", "Images a second"),
)


def curve(records: Sequence[Record], chart: Chart) -> dict[str, list[float | None]] | None:
    """Return the points of a chart, as JSON has them; None where no record has the field.

    Args:
      records: by ascending epochs.
      chart: what to draw.

    Returns:
      "x", the epochs, and "y"; null where a number is not finite. "error" where the chart has one.
    """
    with_field = [(record, number(record.get(chart.field))) for record in records]
    points = [
        (record, value)
        for record, value in with_field
        if value is not None and not (chart.is_sparse and math.isnan(value))
    ]
    if not points:
        return None
    chosen = [points[i] for i in thinned([value for _, value in points])]
    found: dict[str, list[float | None]] = {
        "x": [record["epoch"] for record, _ in chosen],
        "y": [plain(value) for _, value in chosen],
    }
    if chart.error:
        found["error"] = [plain(number(record.get(chart.error))) for record, _ in chosen]
    return found


def thinned(values: Sequence[float], most: int = MOST_POINTS) -> list[int]:
    """Return which of many values to draw: the first, the last, and the extremes between them.

    A peak of one value stays to be seen, and so does a value that is not finite.

    Args:
      values: of a curve.
      most: how many are kept at most, an even number.

    >>> thinned([0.0, 1.0, 9.0, 2.0, 1.0, -3.0, 0.0, 4.0], most=6)
    [0, 1, 2, 4, 5, 7]
    """
    count = len(values)
    if count <= most:
        return list(range(count))
    parts = (most - 2) // 2
    bounds = [1 + (count - 2) * i // parts for i in range(parts + 1)]
    chosen = {0, count - 1}
    for low, high in zip(bounds, bounds[1:], strict=False):
        finite = [i for i in range(low, high) if math.isfinite(values[i])]
        others = [i for i in range(low, high) if not math.isfinite(values[i])]
        lowest = min(finite, key=values.__getitem__, default=low)
        chosen.add(others[0] if others else lowest)
        chosen.add(max(finite, key=values.__getitem__, default=low))
    return sorted(chosen)


def by_epoch(records: Iterable[Record]) -> list[Record]:
    """Return records in the order of their epochs; of two of one epoch the later holds."""
    found = {record["epoch"]: record for record in records}
    return [found[epoch] for epoch in sorted(found)]


def number(value: Any) -> float | None:
    """Return a number of a record as a float; None where it is none.

    >>> number(2), number("2"), number(True)
    (2.0, None, None)
    """
    if type(value) not in (int, float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def plain(value: float | None) -> float | None:
    """Return a number with the digits that the page shows; None where it is not finite.

    >>> plain(0.123456789), plain(float("nan"))
    (0.123457, None)
    """
    return float(_FORMAT % value) if value is not None and math.isfinite(value) else None
