"""Tables as CSV, Markdown and plain text, and how their numbers are written."""

import csv
import io

from experiments.even_better.arms import OPTIMISERS, Model, longer
from experiments.even_better.tables.tables import Table, best_rows
from experiments.study import formats

TEXT_WIDTH = 100


def cell_texts(table: Table, column: int) -> list[str]:
    """Return "mean ± standard error" for every row; n is added where it is not the table's most."""
    most = max(cell.n for row in table.cells for cell in row)
    return formats.cell_texts([row[column] for row in table.cells], most)


def row_heads(model: Model) -> tuple[str, str, str]:
    """Return optimiser, batch size and rho of a row as text."""
    rho = "—" if model.optimiser == "sgd" else f"{model.rho:g}"
    name = OPTIMISERS[model.optimiser] + longer(model.times_epochs)
    return name, str(model.batch_size), rho


def to_csv(table: Table) -> str:
    """Return the table in long form, a line a cell, with the numbers in full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        "table preset model optimiser batch batch_size rho times_epochs quantity distribution "
        "distance measured_batch m measured_rho value se n".split()
    )
    for model, row in zip(table.models, table.cells, strict=True):
        for column, cell in zip(table.columns, row, strict=True):
            where = column.where
            writer.writerow(
                [table.number, where.get("preset", ""), *model, column.quantity]
                + [where.get(name, "") for name in ("distribution", "distance")]
                + [where.get(name, "") for name in ("measured_batch", "m", "measured_rho")]
                + list(cell)
            )
    return file.getvalue()


def to_markdown(table: Table) -> str:
    """Return a Markdown table, the best of every column in bold."""
    heads = [f"{column.group} {column.name}" for column in table.columns]
    lines = [["Optimiser", "Batch", "ρ", *heads], ["---"] * 3 + ["---:"] * len(heads)]
    columns = [cell_texts(table, j) for j in range(len(table.columns))]
    best = [best_rows(table, j) for j in range(len(table.columns))]
    for i, model in enumerate(table.models):
        texts = [
            f"**{column[i]}**" if i in best[j] else column[i] for j, column in enumerate(columns)
        ]
        lines.append([*row_heads(model), *texts])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def to_text(table: Table, width: int = TEXT_WIDTH) -> str:
    """Return the table as plain text, the best of every column marked with an asterisk.

    Columns that do not fit into the width follow below in a further block.
    """
    heads = [("", "Optimiser"), ("", "Batch"), ("", "ρ")]
    grid = [list(texts) for texts in zip(*map(row_heads, table.models), strict=True)]
    columns = [[*h, *texts] for h, texts in zip(heads, grid, strict=True)]
    left = [formats.padded(column, str.ljust) for column in columns]
    blocks = [left]
    for j, column in enumerate(table.columns):
        best = best_rows(table, j)
        texts = [t + ("*" if i in best else " ") for i, t in enumerate(cell_texts(table, j))]
        texts = [text.replace(" ± ", "±") for text in texts]
        padded = formats.padded([column.group + " ", column.name + " ", *texts], str.rjust)
        if len(" ".join(c[0] for c in [*blocks[-1], padded])) > width and len(blocks[-1]) > 3:
            blocks.append(left)
        blocks[-1] = [*blocks[-1], padded]
    lines = [[" ".join(line).rstrip() for line in zip(*b, strict=True)] for b in blocks]
    return "\n\n".join("\n".join(block) for block in lines) + "\n"
