"""How well every measure goes with the test loss, over the models."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.even_better.paper.published import MEASURED_AS, published_values
from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.columns import (
    TEST_LOSS,
    TRAIN_LOSS,
    column_means,
    column_setting,
    columns_of,
)
from experiments.study.formats import counted, p_text, signed, span
from experiments.study.grid import Grid, csv_text
from experiments.study.table import Cell, Column
from sam_jax.measuring import registry
from sam_jax.statistics import (
    METHODS,
    Correlation,
    PartialCorrelation,
    adjust_p_values,
    correlation,
    partial_correlation,
)

RESAMPLES = 1999  # of the bootstrap intervals and the permutation tests


class CorrelationRow(NamedTuple):
    """Correlations of one column of the tables with the test loss."""

    name: str
    setting: str
    pearson: Correlation
    spearman: Correlation
    kendall: Correlation
    partial: PartialCorrelation  # Pearson's, given the training loss
    published: Correlation | None  # from the study's corrected tables


def test_losses(results: StudyResults) -> list[Cell]:
    """Return the test loss of every model."""
    return column_means(results, TEST_LOSS)


test_losses.__test__ = False  # its name is no test for pytest to collect


def pearson(results: StudyResults, column: Column) -> Correlation:
    """Return Pearson's r of a column's seed means with the test loss, without a bootstrap."""
    x, y = ([cell.mean for cell in column_means(results, c)] for c in (column, TEST_LOSS))
    return correlation(x, y, resamples=1)


def correlate(results: StudyResults, column: Column) -> CorrelationRow:
    """Correlate the seed means of a column with the seed means of the test loss."""
    x, y, given = (
        [cell.mean for cell in column_means(results, c)] for c in (column, TEST_LOSS, TRAIN_LOSS)
    )
    measure = column.where["measure"]
    published = next((q for q, m in MEASURED_AS.items() if m == (measure, column.quantity)), None)
    return CorrelationRow(
        name=registry.by_name()[measure].column(column.quantity).label,
        setting=column_setting(column),
        **{method: correlation(x, y, method, resamples=RESAMPLES) for method in METHODS},
        partial=partial_correlation(x, y, given),
        # The sound preset measures another quantity than the study did.
        published=published_correlation(
            published, column.where.get("measured_batch"), column.where.get("measured_rho")
        )
        if published is not None and column.where["preset"] == "published"
        else None,
    )


def published_correlation(
    quantity: str, measured_batch: str | None = None, measured_rho: float | None = None
) -> Correlation | None:
    """Return Pearson's r with the test loss from the study's corrected tables, or None."""
    values = published_values(quantity, measured_batch, measured_rho)
    if not values.size:
        return None
    return correlation(values, published_values("test_loss"), resamples=RESAMPLES)


def correlation_rows(results: StudyResults, preset: str) -> list[CorrelationRow]:
    """Return a row for every measure, setting and quantity of a preset."""
    return [
        correlate(results, column)
        for instrument in registry.INSTRUMENTS
        for shown in instrument.columns
        for column in columns_of(results, instrument.name, preset, shown.field)
    ]


def holm_p_values(rows: Sequence[CorrelationRow], method: str) -> np.ndarray:
    """Return the rows' p values of one coefficient, corrected for their number by Holm.

    Columns that are one measurement under several m count once each, which makes them too large
    rather than too small.

    Args:
      rows: The rows of one preset.
      method: "pearson", "spearman" or "kendall".
    """
    return adjust_p_values([getattr(row, method).p_value for row in rows])


def correlations_csv(rows: Sequence[CorrelationRow]) -> str:
    """Return the rows as CSV."""
    names = [
        *("r", "n", "p_value", "holm_p_value", "permutation_p_value"),
        *("fisher_low", "fisher_high", "bootstrap_low", "bootstrap_high"),
        *("leave_one_out_low", "leave_one_out_high"),
    ]
    columns = [f"{method}_{name}" for method in METHODS for name in names]
    columns += [f"partial_{name}" for name in ("r", "p_value", "fisher_low", "fisher_high")]
    lines = []
    adjusted = {method: holm_p_values(rows, method) for method in METHODS}
    for index, row in enumerate(rows):
        published = (row.published.r, row.published.n) if row.published else (math.nan, 0)
        values = []
        for method in METHODS:
            found = getattr(row, method)
            values += [found.r, found.n, found.p_value, adjusted[method][index]]
            values += [found.permutation_p_value, *found.fisher_interval]
            values += [*found.bootstrap_interval, *found.leave_one_out]
        values += [row.partial.r, row.partial.p_value, *row.partial.fisher_interval]
        lines.append([row.name, row.setting, *values, *published, row.pearson.of])
    heads = ["measure", "setting", *columns, "published_r", "published_n", "models"]
    return csv_text(pd.DataFrame(lines, columns=heads))


_GROUPS = (
    *("", "", *["Pearson"] * 6, *["Spearman"] * 3, *["Kendall"] * 3),
    *(*["Pearson, given train loss"] * 2, "", "Study"),
)
_HEADS = (
    *("Quantity", "Measured with"),
    *("r", "95% CI", "bootstrap", "p", "p, Holm", "one left out"),
    *("r", "p", "p, Holm", "τ", "p", "p, Holm"),
    *("r", "p", "n", "r"),
)


def correlations_grid(rows: Sequence[CorrelationRow], preset: str) -> Grid:
    """Return the rows of a preset as texts."""
    holm = {method: holm_p_values(rows, method) for method in METHODS}
    lines = []
    for index, row in enumerate(rows):
        found = row.pearson
        line = [row.name, row.setting, signed(found.r), span(found.fisher_interval)]
        line += [span(found.bootstrap_interval), p_text(found.p_value)]
        line += [p_text(holm["pearson"][index]), span(found.leave_one_out)]
        for method in ("spearman", "kendall"):
            found = getattr(row, method)
            line += [signed(found.r), p_text(found.p_value), p_text(holm[method][index])]
        line += [signed(row.partial.r), p_text(row.partial.p_value)]
        published = signed(row.published.r) if row.published else "—"
        lines.append([*line, counted(row.pearson.n, row.pearson.of), published])
    return Grid(_HEADS, lines, _GROUPS, f"These runs: {preset} preset", 2)
