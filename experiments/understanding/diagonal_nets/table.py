"""The recorded test losses beside these runs'."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from experiments.study.formats import number_text
from experiments.study.grid import Grid, csv_text
from experiments.understanding.command import Results
from experiments.understanding.diagonal_nets.arms import ARMS, DIVERGED, Arm

CAPTION = "Test loss at the end of a phase"


class Line(NamedTuple):
    """One network after one phase."""

    cell: str
    network: str
    scale: float
    learning_rate: float
    iterations: int
    recorded: float | str | None  # "diverged" or, where nothing was recorded, None
    test_loss: float  # NaN where the network diverged
    relative_difference: float  # NaN where there is no number


def lines(results: Results) -> list[Line]:
    """Return a line for every recorded number, and one for every network without any."""
    return [
        _line(results, row, arm, phase) for row, arm in enumerate(ARMS) for phase in _phases(arm)
    ]


def csv(found: list[Line]) -> str:
    """Return the table as CSV, in full precision."""
    return csv_text(pd.DataFrame(found))


def grid(found: list[Line]) -> Grid:
    """Return the table as texts."""
    heads = ("cell", "network", "α", "γ", "iterations", "recorded", "here", "relative difference")
    rows = [
        [line.cell, line.network, f"{line.scale:g}", f"{line.learning_rate:.4g}"]
        + [
            f"{line.iterations:,}",
            _text(line.recorded),
            _text(line.test_loss if math.isfinite(line.test_loss) else DIVERGED),
        ]
        + [number_text(line.relative_difference, ".1e")]
        for line in found
    ]
    return Grid(heads, rows, caption=CAPTION, text_columns=2)


def _phases(arm: Arm) -> Iterator[int]:
    recorded = [phase for phase in range(2) if arm.recorded[phase] is not None]
    yield from recorded or [0]


def _line(results: Results, row: int, arm: Arm, phase: int) -> Line:
    iterations = int(results["logged"][-1]) + 1
    here, recorded = float(results["test_losses"][phase, -1, row]), arm.recorded[phase]
    number = recorded if isinstance(recorded, float) else math.nan
    rate, done = arm.phases[phase].learning_rate, (phase + 1) * iterations
    return Line(arm.cell, arm.label, arm.scale, rate, done, recorded, here, here / number - 1)


def _text(value: float | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.9g}"
