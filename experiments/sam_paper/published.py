"""The numbers that the paper printed: errors in per cent, typed from its tables and its Figure 3.

`published.csv` has a line a setting. The errors with wrong labels are 100 less the printed
accuracies. The table of inner steps has SAM alone.
"""

import csv
import functools
import pathlib
from typing import NamedTuple

PATH = pathlib.Path(__file__).with_name("published.csv")


class Published(NamedTuple):
    """One line; texts, so that their digits are kept."""

    table: str
    data_set: str
    network: str
    setting: str
    epochs: str
    sgd: str
    sam: str


@functools.cache
def published() -> tuple[Published, ...]:
    """Return all lines."""
    with PATH.open(newline="", encoding="utf-8") as file:
        return tuple(Published(**row) for row in csv.DictReader(file))


def published_text(table: str, setting: str, data_set: str, long: bool | None = None) -> str:
    """Return what the paper printed for its own net in a setting: "SGD, SAM"; a dash for nothing.

    Args:
      table: "errors", "noise", "steps" or "spectrum".
      setting: as in the CSV.
      data_set: "CIFAR-10" or "CIFAR-100".
      long: whether the longest training is asked for; None where there is one length.

    >>> published_text("errors", "basic", "CIFAR-10", long=False)
    '3.5, 2.7'
    """
    rows = [
        row
        for row in published()
        if (row.table, row.setting, row.data_set) == (table, setting, data_set)
        and row.network not in ("Shake-Shake", "PyramidNet + ShakeDrop")
        and (long is None or long == (row.epochs == "1800"))
    ]
    return ", ".join(text for text in (rows[0].sgd, rows[0].sam) if text) if rows else "—"
