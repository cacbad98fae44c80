"""The numbers that the study printed, and their values in its released data files.

`published.csv` holds Tables 1, 2, 5, 6 and 7, typed from the text. Column `corrected` differs from
`printed` in two tables: Table 2 has two columns in each other's place, and the last column of Table
6 repeats Table 7. The note of such a cell says so. Every other cell agrees with the released files.
The study trained one model a row, with batches of 128 ("small") and 5000 ("large").
"""

import csv
import functools
import pathlib
from typing import NamedTuple

import numpy as np

BATCH_SIZES = {"small": 128, "large": 5000}
# quantity -> the instrument that measures it here, and the field of its records
MEASURED_AS = {
    "adversarial_loss": ("adversarial_sharpness", "perturbed_loss"),
    "adversarial_sharpness": ("adversarial_sharpness", "sharpness"),
    "average_loss": ("average_sharpness", "perturbed_loss"),
    "average_sharpness": ("average_sharpness", "sharpness"),
    "asymmetry_factor": ("asymmetry_factor", "factor"),
}
PATH = pathlib.Path(__file__).with_name("published.csv")


class PublishedCell(NamedTuple):
    """One number of the study; the last two fields of its column are None in Table 1."""

    table: int
    optimiser: str
    batch: str
    rho: float
    quantity: str
    measured_batch: str | None
    measured_rho: float | None
    printed: str  # as text, so that its digits are kept
    corrected: str
    note: str

    @property
    def row(self) -> tuple[str, str, float]:
        """The model: optimiser, batch and rho."""
        return self.optimiser, self.batch, self.rho

    @property
    def differs(self) -> bool:
        """Whether the released data differ from the printed number."""
        return self.printed != self.corrected

    @property
    def batch_size(self) -> int:
        """The batch size of the model."""
        return BATCH_SIZES[self.batch]

    @property
    def column(self) -> tuple[str, str | None, float | None]:
        """The measured quantity, batch and rho."""
        return self.quantity, self.measured_batch, self.measured_rho


@functools.cache
def published_cells() -> tuple[PublishedCell, ...]:
    """Return every cell of published.csv, table by table and row by row."""
    with PATH.open(newline="", encoding="utf-8") as file:
        return tuple(
            PublishedCell(
                table=int(row["table"]),
                optimiser=row["optimiser"],
                batch=row["batch"],
                rho=float(row["rho"]),
                quantity=row["quantity"],
                measured_batch=row["measured_batch"] or None,
                measured_rho=float(row["measured_rho"]) if row["measured_rho"] else None,
                printed=row["printed"],
                corrected=row["corrected"],
                note=row["note"],
            )
            for row in csv.DictReader(file)
        )


def published_values(
    quantity: str,
    measured_batch: str | None = None,
    measured_rho: float | None = None,
    *,
    printed: bool = False,
) -> np.ndarray:
    """Return one column over the ten models in the order of Table 1, corrected by default.

    Args:
      quantity: "test_loss", "train_loss", "test_accuracy" (per cent), "asymmetry_factor",
        "adversarial_loss", "adversarial_sharpness", "average_loss" or "average_sharpness".
      measured_batch: "small" or "large"; None for a quantity of Table 1.
      measured_rho: The radius; None for a quantity of Table 1.
      printed: Return the numbers as they were printed.

    Returns:
      Shape [10], or [0] where the study has no such column.

    >>> published_values("test_loss")[:2]
    array([0.2197, 0.1879])
    """
    column = (quantity, measured_batch, measured_rho)
    cells = [cell for cell in published_cells() if cell.column == column]
    return np.array([float(cell.printed if printed else cell.corrected) for cell in cells])
