"""The page of the study's numbers: printed, from its released data, and of these runs."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.even_better.arms import Model, model_label
from experiments.even_better.claims.evidence import Quantity, run_column
from experiments.even_better.claims.printed_correlations import Recomputed
from experiments.even_better.pages.tables import published_heads, published_html
from experiments.even_better.paper.errata import errors
from experiments.even_better.paper.published import PublishedCell, published_cells
from experiments.even_better.read.results import Results
from experiments.even_better.tables.tables import column_means
from experiments.study import formats
from experiments.study.formats import p_text, signed, span
from experiments.study.page import Markup, element, grid, links
from sam_jax.metrics.statistics import MeanAndStderr, mean_and_stderr

TITLE = "The study's numbers: printed, recomputed and of these runs"
CELLS, CORRELATIONS, ERRORS = "published_cells", "published_correlations", "published_errors"
TABLES = (1, 2, 5, 6, 7)
NOTHING = mean_and_stderr([])


class Compared(NamedTuple):
    """A printed cell beside the same cell of these runs, measured with the published preset."""

    cell: PublishedCell
    run: MeanAndStderr  # n = 0 where these runs have no such model or measurement


def compare_cells(results: Results) -> list[Compared]:
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
    return formats.csv_text(
        heads,
        (
            [*cell[:7], cell.printed, cell.corrected, cell.differs, *run]
            for cell, run in found
        ),
    )  # fmt: skip


def cells_markdown(found: Sequence[Compared]) -> str:
    """Return every table as Markdown: printed → recomputed (these runs)."""
    blocks = []
    for number in TABLES:
        groups, heads = published_heads(number)
        rows = []
        ours = {id(c.cell): text for c, text in _run_texts(found, number)}
        for row, cells in _rows(found, number):
            texts = [_marked(c.cell) + f" ({ours[id(c.cell)]})" for c in cells]
            rows.append([model_label(row[0], cells[0].cell.batch_size, row[2]), *texts])
        joined = [f"{a} {b}".strip() for a, b in zip(groups, heads, strict=True)]
        title = f"Table {number}, printed → recomputed (these runs)\n\n"
        blocks.append(title + formats.markdown(joined, rows))
    return "\n".join(blocks)


def correlations_csv(found: Sequence[Recomputed]) -> str:
    """Return the printed correlations as CSV."""
    heads = (
        "figure quantity printed r n p_value permutation_p_value fisher_low fisher_high "
        "bootstrap_low bootstrap_high leave_one_out_low leave_one_out_high spearman_r "
        "spearman_p_value r_of_printed_table "
        "run_r run_n run_p_value"
    ).split()
    rows = (
        [source.figure, source.label, source.printed, ours.r, ours.n, ours.p_value]
        + [ours.permutation_p_value, *ours.fisher_interval, *ours.bootstrap_interval]
        + [*ours.leave_one_out, ranks.r, ranks.p_value, as_printed.r, run.r, run.n, run.p_value]
        for source, ours, ranks, as_printed, run in found
    )
    return formats.csv_text(heads, rows)


def correlations_markdown(found: Sequence[Recomputed]) -> str:
    """Return the printed correlations as a Markdown table."""
    heads = [f"{a} {b}".strip() for a, b in zip(_GROUPS, _HEADS, strict=True)]
    return formats.markdown(heads, _correlation_rows(found), 2)


def errors_csv() -> str:
    """Return the errors as CSV."""
    return formats.csv_text(["what", "effect", "evidence"], errors())


def errors_markdown() -> str:
    """Return the errors as a Markdown table."""
    return formats.markdown(["What", "Effect", "Evidence"], errors(), 3)


def published_page(
    results: Results, cells: Sequence[Compared], correlations: Sequence[Recomputed]
) -> list[Markup]:
    """Return what the page shows."""
    differing = sum(compared.cell.differs for compared in cells)
    children = [
        element("h1", TITLE),
        element("p", element("a", "Report of these runs", href="index.html")),
        element(
            "p",
            f"The study prints {len(cells)} numbers in Tables 1, 2, 5, 6 and 7. Its released data "
            f"say something else of {differing}: these are marked, printed → recomputed. Beside "
            "them is the same cell of these runs with the published preset, mean ± standard error "
            "over seeds; model, data and batches are those of these runs, so that only the pattern "
            "compares.",
        ),
        links(CELLS),
    ]
    for number in TABLES:
        beside = element("div", published_html(number), _run_html(results, cells, number),
                         class_="beside")  # fmt: skip
        children += [element("h2", f"Table {number}", id=f"table-{number}"), beside]
    rows = _correlation_rows(correlations)
    for row in rows:
        if "≠" in row[_PRINTED]:
            row[_PRINTED] = element("span", row[_PRINTED], class_="corrected")
    facts = [[error.what, error.effect, error.evidence] for error in errors()]
    return [
        *children,
        element("h2", "Correlations with the test loss"),
        element(
            "p",
            "Pearson's r over the models, with Fisher's 95% interval, that of a bootstrap over "
            "models (BCa) and the range with any one model left out. “Spearman” is r of the ranks, "
            "“Printed table” Pearson's of the numbers as they were printed, with ≠ where it "
            "differs. The tables' digits leave an error of up to 0.02 in r.",
        ),
        grid("", _GROUPS, _HEADS, rows, 2),
        links(CORRELATIONS),
        element("h2", "What is wrong in the text and the code"),
        element("div", grid("", [""] * 3, ["What", "Effect", "Evidence"], facts, 3), class_="wide"),
        links(ERRORS),
    ]


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
_PRINTED = 12  # the column of r from the printed table


def _correlation_rows(found: Sequence[Recomputed]) -> list[list[str]]:
    return [
        [str(source.figure), source.label, source.printed.replace("-", "−")]
        + [signed(ours.r), str(ours.n), p_text(ours.p_value), span(ours.fisher_interval)]
        + [span(ours.bootstrap_interval), span(ours.leave_one_out)]
        + [p_text(ours.permutation_p_value), signed(ranks.r), p_text(ranks.p_value)]
        + [signed(as_printed.r) + (" ≠" if as_printed.r != ours.r else "")]
        + [signed(run.r), str(run.n), p_text(run.p_value)]
        for source, ours, ranks, as_printed, run in found
    ]


def _rows(
    found: Sequence[Compared], number: int
) -> list[tuple[tuple[str, str, float], list[Compared]]]:
    chosen = [compared for compared in found if compared.cell.table == number]
    names = dict.fromkeys(compared.cell.row for compared in chosen)
    return [(name, [c for c in chosen if c.cell.row == name]) for name in names]


def _run_texts(found: Sequence[Compared], number: int) -> list[tuple[Compared, str]]:
    # Column by column, for the digits are those of a column.
    chosen = [compared for compared in found if compared.cell.table == number]
    most = max((compared.run.n for compared in found), default=0)
    texts = []
    for column in dict.fromkeys(compared.cell.column for compared in chosen):
        cells = [compared for compared in chosen if compared.cell.column == column]
        written = formats.cell_texts([compared.run for compared in cells], most)
        texts += zip(cells, written, strict=True)
    return texts


def _run_html(results: Results, found: Sequence[Compared], number: int) -> Markup:
    sizes = {model.batch: model.batch_size for model in results.models}
    models = {(model.optimiser, model.batch, model.rho): model for model in results.models}
    ours = {id(c.cell): text for c, text in _run_texts(found, number)}
    groups, heads = published_heads(number, sizes)
    rows = [
        [_run_label(models.get(row)), *(ours[id(c.cell)] for c in cells)]
        for row, cells in _rows(found, number)
    ]
    return grid("These runs, published preset", groups, heads, rows, 1)


def _run_label(model: Model | None) -> str:
    return model.label if model else "not trained"


def _marked(cell: PublishedCell) -> str:
    return f"**{cell.printed} → {cell.corrected}**" if cell.differs else cell.printed
