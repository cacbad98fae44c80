"""The study's tables, ours beside the printed ones, as HTML."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.even_better.arms import model_label
from experiments.even_better.paper.published import BATCH_SIZES, PublishedCell, published_cells
from experiments.even_better.tables.correlations import (
    TEXT_GROUPS,
    TEXT_HEADS,
    CorrelationRow,
    correlation_texts,
)
from experiments.even_better.tables.formats import cell_texts, row_heads
from experiments.even_better.tables.tables import Table, best_rows
from experiments.study.formats import NOT_MEASURED
from experiments.study.page import Markup, element, grid


def table_html(table: Table) -> Markup:
    """Return one of our tables, the best of every column in bold."""
    columns = []
    for j in range(len(table.columns)):
        best = best_rows(table, j)
        texts = [
            element("span", text, class_="muted") if text == NOT_MEASURED else text
            for text in cell_texts(table, j)
        ]
        columns.append([element("b", t) if i in best else t for i, t in enumerate(texts)])
    rows = [
        [*row_heads(model), *(column[i] for column in columns)]
        for i, model in enumerate(table.models)
    ]
    return grid(
        f"These runs: {table.preset} preset" if table.preset else "These runs",
        ["", "", "", *(column.group for column in table.columns)],
        ["Optimiser", "Batch", "ρ", *(column.name for column in table.columns)],
        rows,
        text_columns=1,
    )


def published_html(number: int) -> Markup:
    """Return a table of the study; corrected numbers follow the printed ones."""
    cells = [cell for cell in published_cells() if cell.table == number]
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = []
    for row in dict.fromkeys(cell.row for cell in cells):
        optimiser, batch, rho = row
        found = {cell.column: _published_cell(cell) for cell in cells if cell.row == row}
        head = model_label(optimiser, BATCH_SIZES[batch], rho)
        rows.append([head, *(found[column] for column in columns)])
    groups, heads = published_heads(number)
    notes = [
        element("p", note, class_="note") for note in dict.fromkeys(c.note for c in cells) if note
    ]
    caption = "The study: printed → corrected" if notes else "The study, as printed"
    table = grid(caption, groups, heads, rows, 1)
    return element("div", table, *(element("p", note, class_="note") for note in notes))


def published_heads(
    number: int, batch_sizes: Mapping[str, int] = BATCH_SIZES
) -> tuple[list[str], list[str]]:
    """Return the two lines of headings of a table of the study.

    Args:
      number: Of the table.
      batch_sizes: What the small and the large batch are.
    """
    columns = dict.fromkeys(cell.column for cell in published_cells() if cell.table == number)
    groups = [f"m = {batch_sizes.get(batch, batch)}" if batch else "" for _, batch, _ in columns]
    # Tables 6 and 7 print as ρ what was the standard deviation of every weight's noise.
    radius = "σ" if number in (6, 7) else "ρ"
    heads = [
        f"{radius} = {rho:g}" if rho else quantity.replace("_", " ").capitalize()
        for quantity, _, rho in columns
    ]
    return ["", *groups], ["Model", *heads]


def correlations_html(rows: Sequence[CorrelationRow], preset: str) -> Markup:
    """Return the correlations of a preset with the test loss."""
    lines = correlation_texts(rows)
    return grid(f"These runs: {preset} preset", TEXT_GROUPS, TEXT_HEADS, lines, text_columns=2)


def _published_cell(cell: PublishedCell) -> Any:
    if not cell.differs:
        return cell.printed
    corrected = element("span", cell.corrected, class_="corrected")
    return Markup(f"{html.escape(cell.printed)} → {corrected}")
