"""The comparison of SAM variants that the study printed: its Tables 3 (CIFAR) and 4 (ImageNet).

`published.csv` is typed from the text; an empty cell was printed as a dash. The study took the rows
with images per second from Du et al. ("Sharpness-Aware Training for Free", 2022), and the others
from each method's own paper, so rows differ in more than the method. The second pair of columns of
Table 3 is headed CIFAR-10 like the first; its accuracies belong to CIFAR-100.
"""

import csv
import functools
import math
import pathlib
from typing import NamedTuple

PATH = pathlib.Path(__file__).with_name("published.csv")
SGD = "SGD"


class PublishedRow(NamedTuple):
    """One method on one network and data set; texts, so that their digits are kept."""

    table: int
    data_set: str
    network: str
    printed_name: str
    method: str  # our label of the method
    accuracy: str  # per cent
    images_per_second: str


class Published(NamedTuple):
    """Numbers of one row, with those relative to SGD on the same network and data set."""

    accuracy: float  # per cent
    accuracy_difference: float  # percentage points
    images_per_second: float
    speed: float  # images per second, SGD's being 1


@functools.cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Return every row of published.csv."""
    with PATH.open(newline="", encoding="utf-8") as file:
        return tuple(
            PublishedRow(**{**row, "table": int(row["table"])}) for row in csv.DictReader(file)
        )


def networks(table: int) -> list[tuple[str, str]]:
    """Return the (data set, network) of a table in the order of the print.

    >>> networks(4)[0]
    ('ImageNet', 'ResNet-50')
    """
    found = [(row.data_set, row.network) for row in published_rows() if row.table == table]
    return list(dict.fromkeys(found))


def published(method: str, data_set: str, network: str) -> Published:
    """Return the numbers of a method, NaN where the study has none.

    >>> published("SAM", "CIFAR-10", "ResNet-18").accuracy
    96.52
    """
    rows = {(r.data_set, r.network, r.method): r for r in published_rows()}
    own, sgd = rows.get((data_set, network, method)), rows[data_set, network, SGD]
    if own is None:
        return Published(math.nan, math.nan, math.nan, math.nan)
    accuracy, speed = _number(own.accuracy), _number(own.images_per_second)
    return Published(
        accuracy,
        accuracy - _number(sgd.accuracy),
        speed,
        speed / _number(sgd.images_per_second),
    )


def _number(text: str) -> float:
    return float(text) if text else math.nan
