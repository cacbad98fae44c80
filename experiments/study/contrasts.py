"""Two arms beside each other in every row: both means, and their difference seed by seed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from experiments.study.arms import Arm
from experiments.study.formats import NOT_MEASURED
from experiments.study.grid import Grid, Marked, csv_text
from experiments.study.results import Results
from experiments.study.table import Cell, Column, write_means
from sam_jax.statistics import mean_and_stderr, mean_difference


class Contrast(NamedTuple):
    """One row: an arm and the arm that it is compared with."""

    heads: tuple[str, ...]  # the texts at the left
    about: Mapping[str, Any]  # the fields of the row in the CSV
    reference: Arm
    arm: Arm
    more: tuple[str, ...] = ()  # texts at the right, such as published numbers


class Found(NamedTuple):
    """The means of both arms over the seeds, and the paired difference."""

    reference: Cell
    arm: Cell
    difference: Cell  # arm minus reference
    p_value: float


def contrast(results: Results, row: Contrast, column: Column) -> Found:
    """Return the means of a row's two arms, and their difference.

    Args:
      results: the results of the runs.
      row: the row.
      column: the quantity.
    """
    reference, arm = results.by_seed(
        column.quantity, column.where, arms=[row.reference, row.arm], scale=column.scale
    )
    found = mean_difference(arm, reference, paired=True)
    return Found(
        Cell(*mean_and_stderr(reference)),
        Cell(*mean_and_stderr(arm)),
        Cell(found.difference, found.stderr, found.n[0]),
        found.p_value,
    )


def contrasts_grid(
    results: Results,
    rows: Sequence[Contrast],
    column: Column,
    *,
    heads: Sequence[str],
    names: tuple[str, str],
    more: Sequence[str] = (),
    caption: str = "",
) -> Grid:
    """Return the rows as texts; the better mean of a row is marked.

    Args:
      results: the results of the runs.
      rows: the rows.
      column: the quantity.
      heads: the headings of the texts at the left.
      names: the headings of the reference and of the arm.
      more: the headings of the texts at the right.
      caption: of the table.
    """
    found = [contrast(results, row, column) for row in rows]
    seeds = len(results.seeds)
    both = write_means([cell for pair in found for cell in (pair.reference, pair.arm)], seeds)
    differences = write_means([pair.difference for pair in found], seeds, sign="+")
    lines = []
    for i, (row, pair) in enumerate(zip(rows, found, strict=True)):
        better = pair.difference.mean < 0 if column.best == "min" else pair.difference.mean > 0
        worse = pair.difference.mean > 0 if column.best == "min" else pair.difference.mean < 0
        texts = [
            _marked(both[2 * i], worse and column.best != "none"),
            _marked(both[2 * i + 1], better and column.best != "none"),
            _marked(differences[i], False),
        ]
        lines.append([*row.heads, *texts, *row.more[: len(more)]])
    return Grid(
        [*heads, *names, f"{names[1]} − {names[0]}", *more],
        lines,
        [*[""] * len(heads), *[f"{column.group} / {column.name}"] * 3, *["Published"] * len(more)],
        caption,
        len(heads),
    )


def contrasts_csv(results: Results, rows: Sequence[Contrast], column: Column) -> str:
    """Return the rows as CSV: the fields of each, both means and the difference."""
    lines = []
    for row in rows:
        found = contrast(results, row, column)
        lines.append(
            {
                **row.about,
                "quantity": column.quantity,
                "reference_mean": found.reference.mean,
                "reference_stderr": found.reference.stderr,
                "mean": found.arm.mean,
                "stderr": found.arm.stderr,
                "difference": found.difference.mean,
                "difference_stderr": found.difference.stderr,
                "p_value": found.p_value,
                "n": found.difference.n,
            }
        )
    return csv_text(pd.DataFrame(lines))


def _marked(text: str, best: bool) -> str:
    if text == NOT_MEASURED:
        return Marked(text, "muted")
    return Marked(text, "best") if best else text
