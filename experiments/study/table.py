"""A table of a study: a row an arm, a column a quantity, a cell a mean with its error."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from experiments.study import formats
from experiments.study.formats import NOT_MEASURED
from experiments.study.grid import Grid, Marked, csv_text
from experiments.study.results import Results
from sam_jax.measuring import registry
from sam_jax.statistics import MeanAndStderr, mean_and_stderr


class Cell(NamedTuple):
    """A number with its standard error over n seeds, or with the quartiles of n rounds."""

    mean: float
    stderr: float = math.nan
    n: int = 1
    low: float = math.nan
    high: float = math.nan


Write = Callable[[Sequence[Cell], int], list[str]]  # the cells of a column, the seeds -> texts


def write_means(cells: Sequence[Cell], seeds: int, sign: str = "") -> list[str]:
    """Return "mean ± standard error" for every cell, with the digits that suit the column."""
    means = [MeanAndStderr(cell.mean, cell.stderr, cell.n) for cell in cells]
    return formats.cell_texts(means, seeds, sign)


class Column(NamedTuple):
    """One quantity: its heading on two lines, where it is found, and which end is best."""

    group: str
    name: str  # with the unit
    quantity: str  # in records and CSV files
    where: Mapping[str, Any] = {}  # fields that select the records
    best: str = "none"  # "min" or "max" where an end of the scale is better
    scale: float = 1.0
    floor: float = -math.inf  # a mean below it is out of the quantity's range and never the best
    write: Write = write_means


def instrument_column(
    measure: str,
    field: str,
    where: Mapping[str, Any] | None = None,
    *,
    group: str | None = None,
    name: str | None = None,
    scale: float = 1.0,
) -> Column:
    """Return the column of a number that an instrument measures.

    Args:
      measure: the name of the instrument.
      field: of its records, one of its columns.
      where: further fields that select the records.
      group: the first line of the heading; None for the title of the instrument.
      name: the second line; None for the name of the column, with its unit.
      scale: a factor for the numbers.
    """
    instrument = registry.by_name()[measure]
    about = instrument.column(field)
    unit = f" / {about.unit}" if about.unit else ""
    return Column(
        instrument.title if group is None else group,
        about.name + unit if name is None else name,
        field,
        {"measure": measure, **(where or {})},
        best=about.better,
        scale=scale,
        floor=scale * about.floor,
    )


class Row(NamedTuple):
    """One arm: its texts at the left of the table, and its fields in the CSV."""

    heads: tuple[str, ...]
    about: Mapping[str, Any]


class Table(NamedTuple):
    """A table over a frame that has a line a cell: mean, stderr, n, low and high."""

    heads: tuple[str, ...]  # of the texts at the left
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    frame: pd.DataFrame  # its index: the number of the row and of the column
    stem: str  # of its files
    seeds: int  # a mean over fewer says so
    caption: str = "These runs"

    def cell(self, row: int, column: int) -> Cell:
        """Return one cell."""
        mean, stderr, n, low, high = self.frame.loc[row, column]
        return Cell(float(mean), float(stderr), int(n), float(low), float(high))

    def cells(self, column: int) -> list[Cell]:
        """Return a column."""
        return [self.cell(row, column) for row in range(len(self.rows))]

    def texts(self, column: int) -> list[str]:
        """Return a column as texts; n is added to a mean over fewer than all seeds."""
        return self.columns[column].write(self.cells(column), self.seeds)

    def best_rows(self, column: int) -> set[int]:
        """Return the rows with the best mean that is finite and in range, several in a tie."""
        about = self.columns[column]
        means = {row: cell.mean for row, cell in enumerate(self.cells(column))}
        means = {
            r: mean for r, mean in means.items() if math.isfinite(mean) and mean >= about.floor
        }
        if not means or about.best == "none":
            return set()
        best = (max if about.best == "max" else min)(means.values())
        return {row for row, mean in means.items() if mean == best}

    def grid(self, columns: Sequence[int] | None = None, heads: int | None = None) -> Grid:
        """Return the texts, the best of a column marked.

        Args:
          columns: the numbers of the columns to show; None for all.
          heads: how many of the texts at the left to show; None for all.
        """
        columns = range(len(self.columns)) if columns is None else columns
        left = len(self.heads) if heads is None else heads
        rows = [list(row.heads[:left]) for row in self.rows]
        for column in columns:
            best = self.best_rows(column)
            for index, text in enumerate(self.texts(column)):
                mark = "best" if index in best else "muted" if text == NOT_MEASURED else ""
                rows[index].append(Marked(text, mark) if mark else text)
        shown = [self.columns[column] for column in columns]
        return Grid(
            [*self.heads[:left], *(column.name for column in shown)],
            rows,
            [*[""] * left, *(column.group for column in shown)],
            self.caption,
            left,
        )

    def csv(self, names: Mapping[str, str] | None = None) -> str:
        """Return the table in long form, a line a cell, with numbers in full precision.

        Args:
          names: the fields to write, in order, with their headings. Fields come from the row's
            `about`, from the column's `where`, and from a cell; "quantity" is one too. None writes
            all fields except the quartiles.
        """
        if names is None:
            about = [name for row in self.rows for name in row.about]
            about += [name for column in self.columns for name in column.where]
            names = {name: name for name in (*about, "quantity", "mean", "stderr", "n")}
        lines = []
        for row, about in enumerate(self.rows):
            for number, column in enumerate(self.columns):
                cell = self.cell(row, number)._asdict()
                line = {**about.about, **column.where, "quantity": column.quantity, **cell}
                found = (line.get(name) for name in names)
                lines.append(["" if value is None else value for value in found])
        return csv_text(pd.DataFrame(lines, columns=list(names.values())))


def make_table(
    stem: str,
    heads: Sequence[str],
    rows: Sequence[Row],
    columns: Sequence[Column],
    cells: Sequence[Sequence[Cell]],
    *,
    seeds: int,
    caption: str = "These runs",
) -> Table:
    """Return a table; `cells[j][i]` belongs to `columns[j]` and `rows[i]`."""
    index = pd.MultiIndex.from_product([range(len(rows)), range(len(columns))])
    lines = [cells[j][i] for i, j in index]
    frame = pd.DataFrame(lines, index=index, columns=list(Cell._fields)).astype({"n": int})
    return Table(tuple(heads), tuple(rows), tuple(columns), frame, stem, seeds, caption)


def means_over_seeds(
    results: Results, column: Column, arms: Sequence[Any] | None = None
) -> list[Cell]:
    """Return mean and standard error over the seeds of every arm; None: all arms."""
    values = results.by_seed(column.quantity, column.where, arms=arms, scale=column.scale)
    return [Cell(*mean_and_stderr(row)) for row in values]


def arms_table(results: Results, stem: str, columns: Sequence[Column]) -> Table:
    """Return a table with a row an arm, of columns that are found in the records."""
    return make_table(
        stem,
        ("Arm",),
        [Row((arm.label,), {"arm": arm.name}) for arm in results.arms],
        columns,
        [means_over_seeds(results, column) for column in columns],
        seeds=len(results.seeds),
    )
