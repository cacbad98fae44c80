"""Tables as CSV, Markdown and plain text, and how their numbers are written."""

import csv
import io
import math
from typing import Any

from experiments.even_better.results import OPTIMISERS, Model
from experiments.even_better.statistics import MeanAndStderr
from experiments.even_better.tables import Table, best_rows

TEXT_WIDTH = 100
MOST_DECIMALS = 6
MOST = 1e6  # from here on numbers are written with exponents
NOT_MEASURED = "not measured"


def cell_texts(table: Table, column: int) -> list[str]:
    """Return "mean ± standard error" for every row, with as many digits as suit the column.

    A single seed has no standard error ("—"). Where fewer seeds were measured than elsewhere in
    the table, n is added.
    """
    cells = [row[column] for row in table.cells]
    most = max(cell.n for row in table.cells for cell in row)
    digits = _digits(cells)

    def text(cell: MeanAndStderr) -> str:
        if cell.n == 0:
            return NOT_MEASURED
        # What the column's digits would round to nothing is written with an exponent.
        largest = max(abs(cell.mean), cell.stderr) if cell.stderr > 0 else abs(cell.mean)
        plain = largest == 0 or 0.5 * 10**-digits <= largest < MOST
        style = f"z.{digits}f" if plain else ".2e"
        mean, stderr = (_number_text(value, style) for value in (cell.mean, cell.stderr))
        return f"{mean} ± {stderr}" + (f" (n={cell.n})" if cell.n < most else "")

    return [text(cell) for cell in cells]


def row_heads(model: Model) -> tuple[str, str, str]:
    """Return optimiser, batch size and rho of a row as text."""
    rho = "—" if model.optimiser == "sgd" else f"{model.rho:g}"
    return OPTIMISERS[model.optimiser], str(model.batch_size), rho


def to_csv(table: Table) -> str:
    """Return the table in long form, a line a cell, with the numbers in full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        "table preset model optimiser batch batch_size rho quantity distribution distance "
        "measured_batch m measured_rho value se n".split()
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
    left = [_padded(column, str.ljust) for column in columns]
    blocks = [left]
    for j, column in enumerate(table.columns):
        best = best_rows(table, j)
        texts = [t + ("*" if i in best else " ") for i, t in enumerate(cell_texts(table, j))]
        texts = [text.replace(" ± ", "±") for text in texts]
        padded = _padded([column.group + " ", column.name + " ", *texts], str.rjust)
        if len(" ".join(c[0] for c in [*blocks[-1], padded])) > width and len(blocks[-1]) > 3:
            blocks.append(left)
        blocks[-1] = [*blocks[-1], padded]
    lines = [[" ".join(line).rstrip() for line in zip(*b, strict=True)] for b in blocks]
    return "\n\n".join("\n".join(block) for block in lines) + "\n"


def _digits(cells: list[MeanAndStderr]) -> int:
    """Decimals that show two digits of a typical standard error, or else four of a mean."""
    means = [cell.mean for cell in cells if math.isfinite(cell.mean)]
    errors = sorted(cell.stderr for cell in cells if cell.stderr > 0)
    largest = max(map(abs, means), default=0.0)
    spread = max(means, default=0.0) - min(means, default=0.0)
    if errors:
        wanted = 1 - math.floor(math.log10(errors[len(errors) // 2]))
    else:  # one seed: four digits, or what tells the models apart
        scales = [scale for scale in (largest / 100, spread / 10) if scale]
        wanted = max((1 - math.floor(math.log10(scale)) for scale in scales), default=3)
    return min(max(wanted, 0), MOST_DECIMALS)


def _number_text(value: float, style: str) -> str:
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "—"
    return f"{value:{style}}".replace("-", "−")


def _padded(texts: list[str], pad: Any) -> list[str]:
    return [pad(text, max(map(len, texts))) for text in texts]
