"""The study's numbers: as printed, recomputed from its released data, and of these runs."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import markupsafe
import pandas as pd

from experiments.even_better.arms import Model, model_label
from experiments.even_better.claims.evidence import Quantity, run_column, runs
from experiments.even_better.claims.printed_correlations import Recomputed, recompute
from experiments.even_better.paper.errata import errata
from experiments.even_better.paper.published import BATCH_SIZES, PublishedCell, published_cells
from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.columns import column_means
from experiments.study.formats import p_text, signed, span
from experiments.study.grid import Grid, Marked, csv_text
from experiments.study.pages import write_page, write_table
from experiments.study.table import Cell, write_means

TITLE = "The study's numbers: printed, recomputed and of these runs"
CELLS, CORRELATIONS, ERRORS = "published_cells", "published_correlations", "published_errors"
TABLES = (1, 2, 5, 6, 7)
NOTHING = Cell(math.nan, n=0)


class Compared(NamedTuple):
    """A printed cell beside the same cell of these runs, measured with the published preset."""

    cell: PublishedCell
    run: Cell  # n = 0 where these runs have no such model or measurement


def write_published(results: StudyResults, folder: pathlib.Path) -> None:
    """Write the page, `published.html`, and its tables."""
    cells = compare_cells(results)
    found = recompute(runs(results, "published"))
    write_page(
        folder / "published.html",
        "published.html.j2",
        pathlib.Path(__file__).parent,
        title=TITLE,
        cells=write_table(folder, CELLS, cells_csv(cells), *cells_grids(cells)).stem,
        count=len(cells),
        differing=sum(compared.cell.differs for compared in cells),
        tables=[(n, published_grid(n), notes(n), run_grid(results, cells, n)) for n in TABLES],
        correlations=write_table(
            folder, CORRELATIONS, correlations_csv(found), correlations_grid(found)
        ),
        errors=write_table(folder, ERRORS, errors_csv(), errors_grid()),
    )


def compare_cells(results: StudyResults) -> list[Compared]:
    """Return every printed cell, table by table, with what these runs have of it."""
    rows = {(model.optimiser, model.batch, model.rho): i for i, model in enumerate(results.models)}
    columns = {}
    for quantity in dict.fromkeys(cell.column for cell in published_cells()):
        column = run_column(results, "published", Quantity(*quantity))
        columns[quantity] = column_means(results, column) if column else None
    return [
        Compared(
            cell,
            columns[cell.column][rows[cell.row]]
            if columns[cell.column] and cell.row in rows
            else NOTHING,
        )
        for cell in published_cells()
    ]


def cells_csv(found: Sequence[Compared]) -> str:
    """Return every cell as CSV, a line a cell."""
    heads = (
        "table optimiser batch rho quantity measured_batch measured_rho printed recomputed "
        "differs run_mean run_stderr run_n"
    ).split()
    rows = []
    for cell, run in found:
        place = ["" if value is None else value for value in cell[:7]]
        numbers = [cell.printed, cell.corrected, cell.differs, run.mean, run.stderr, run.n]
        rows.append([*place, *numbers])
    return csv_text(pd.DataFrame(rows, columns=heads, dtype=object))


def cells_grids(found: Sequence[Compared]) -> list[Grid]:
    """Return every table: printed → recomputed (these runs)."""
    grids = []
    for number in TABLES:
        groups, heads = published_heads(number)
        rows = []
        ours = {id(c.cell): text for c, text in _run_texts(found, number)}
        for row, cells in _rows(found, number):
            texts = [f"{_arrow(c.cell)} ({ours[id(c.cell)]})" for c in cells]
            rows.append([model_label(row[0], cells[0].cell.batch_size, row[2]), *texts])
        caption = f"Table {number}, printed → recomputed (these runs)"
        grids.append(Grid(heads, rows, groups, caption))
    return grids


def published_grid(number: int) -> Grid:
    """Return a table of the study; corrected numbers follow the printed ones."""
    cells = [cell for cell in published_cells() if cell.table == number]
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = []
    for row in dict.fromkeys(cell.row for cell in cells):
        optimiser, batch, rho = row
        found = {cell.column: _published_text(cell) for cell in cells if cell.row == row}
        head = model_label(optimiser, BATCH_SIZES[batch], rho)
        rows.append([head, *(found[column] for column in columns)])
    groups, heads = published_heads(number)
    caption = "The study: printed → corrected" if notes(number) else "The study, as printed"
    return Grid(heads, rows, groups, caption)


def notes(number: int | str) -> list[str]:
    """Return the notes of the corrected cells of a table."""
    cells = [cell for cell in published_cells() if cell.table == number]
    return [note for note in dict.fromkeys(cell.note for cell in cells) if note]


def published_heads(
    number: int, batch_sizes: Mapping[str, int] = BATCH_SIZES
) -> tuple[list[str], list[str]]:
    """Return the two lines of headings of a table of the study.

    Args:
      number: Of the table.
      batch_sizes: The sizes of the small and the large batch.
    """
    columns = dict.fromkeys(cell.column for cell in published_cells() if cell.table == number)
    groups = [f"m = {batch_sizes.get(batch, batch)}" if batch else "" for _, batch, _ in columns]
    # Tables 6 and 7 print as ρ the standard deviation of every weight's noise.
    radius = "σ" if number in (6, 7) else "ρ"
    heads = [
        f"{radius} = {rho:g}" if rho else quantity.replace("_", " ").capitalize()
        for quantity, _, rho in columns
    ]
    return ["", *groups], ["Model", *heads]


def run_grid(results: StudyResults, found: Sequence[Compared], number: int) -> Grid:
    """Return the same table of these runs, measured with the published preset."""
    sizes = {model.batch: model.batch_size for model in results.models}
    models = {(model.optimiser, model.batch, model.rho): model for model in results.models}
    ours = {id(c.cell): text for c, text in _run_texts(found, number)}
    groups, heads = published_heads(number, sizes)
    rows = [
        [_run_label(models.get(row)), *(ours[id(c.cell)] for c in cells)]
        for row, cells in _rows(found, number)
    ]
    return Grid(heads, rows, groups, "These runs, published preset")


def correlations_csv(found: Sequence[Recomputed]) -> str:
    """Return the printed correlations as CSV."""
    heads = (
        "figure quantity printed r n p_value permutation_p_value fisher_low fisher_high "
        "bootstrap_low bootstrap_high leave_one_out_low leave_one_out_high spearman_r "
        "spearman_p_value r_of_printed_table "
        "run_r run_n run_p_value"
    ).split()
    rows = [
        [source.figure, source.label, source.printed, ours.r, ours.n, ours.p_value]
        + [ours.permutation_p_value, *ours.fisher_interval, *ours.bootstrap_interval]
        + [*ours.leave_one_out, ranks.r, ranks.p_value, as_printed.r, run.r, run.n, run.p_value]
        for source, ours, ranks, as_printed, run in found
    ]
    return csv_text(pd.DataFrame(rows, columns=heads))


def correlations_grid(found: Sequence[Recomputed]) -> Grid:
    """Return the printed correlations, recomputed, as texts."""
    rows = []
    for source, ours, ranks, as_printed, run in found:
        printed = signed(as_printed.r)
        if as_printed.r != ours.r:
            printed = Marked(f"{printed} ≠", "corrected")
        row = [str(source.figure), source.label, source.printed.replace("-", "−")]
        row += [signed(ours.r), str(ours.n), p_text(ours.p_value), span(ours.fisher_interval)]
        row += [span(ours.bootstrap_interval), span(ours.leave_one_out)]
        row += [p_text(ours.permutation_p_value), signed(ranks.r), p_text(ranks.p_value)]
        rows.append([*row, printed, signed(run.r), str(run.n), p_text(run.p_value)])
    return Grid(_HEADS, rows, _GROUPS, text_columns=2)


def errors_csv() -> str:
    """Return the errors as CSV."""
    return csv_text(pd.DataFrame(errata(), columns=["what", "effect", "evidence"]))


def errors_grid() -> Grid:
    """Return the errors as texts."""
    return Grid(["What", "Effect", "Evidence"], [list(e) for e in errata()], text_columns=3)


_GROUPS = (
    *("", "", "", *["Corrected tables"] * 7, *["Spearman"] * 2),
    *("Printed table", *["These runs"] * 3),
)
_HEADS = (
    *("Figure", "Quantity", "printed r"),
    *("r", "n", "p", "95% CI", "bootstrap", "one left out", "p, permutation"),
    *("r", "p"),
    *("r", "r", "n", "p"),
)


def _rows(
    found: Sequence[Compared], number: int
) -> list[tuple[tuple[str, str, float], list[Compared]]]:
    chosen = [compared for compared in found if compared.cell.table == number]
    names = dict.fromkeys(compared.cell.row for compared in chosen)
    return [(name, [c for c in chosen if c.cell.row == name]) for name in names]


def _run_texts(found: Sequence[Compared], number: int) -> list[tuple[Compared, str]]:
    # Column by column, because the digits belong to a column.
    chosen = [compared for compared in found if compared.cell.table == number]
    most = max((compared.run.n for compared in found), default=0)
    texts = []
    for column in dict.fromkeys(compared.cell.column for compared in chosen):
        cells = [compared for compared in chosen if compared.cell.column == column]
        written = write_means([compared.run for compared in cells], most)
        texts += zip(cells, written, strict=True)
    return texts


def _run_label(model: Model | None) -> str:
    return model.label if model else "not trained"


def _arrow(cell: PublishedCell) -> str:
    return f"**{cell.printed} → {cell.corrected}**" if cell.differs else cell.printed


def _published_text(cell: PublishedCell) -> str:
    if not cell.differs:
        return cell.printed
    corrected = markupsafe.Markup('<span class="corrected">{}</span>').format(cell.corrected)
    return markupsafe.Markup("{} → {}").format(cell.printed, corrected)
