"""Tables 3 and 4 of the study, with these runs beside them."""

import math

import pandas as pd

from experiments.study.grid import Grid, csv_text
from experiments.study.table import Table
from experiments.variants.published import networks, published, published_rows
from experiments.variants.results import VariantsResults, speed
from experiments.variants.tables import difference_from

DATA_SETS = {3: "CIFAR-10 and CIFAR-100", 4: "ImageNet"}  # by the number of the table


def published_grid(number: int, results: VariantsResults, table: Table) -> Grid:
    """Return a table of the study with these runs in its first columns.

    Behind every published number is, in brackets, the difference from SGD's accuracy or the ratio
    to its images per second.

    Args:
      number: 3 or 4.
      results: the results of the runs.
      table: the table of these runs.
    """
    ours = {column.quantity: table.texts(j) for j, column in enumerate(table.columns)}
    difference = difference_from(results.arms[0], "test_accuracy")
    index = {method.label: i for i, method in enumerate(results.arms)}
    shown = networks(number)
    groups = ["", *["These runs"] * 3, *(f"{d}, {net}" for d, net in shown for _ in range(2))]
    heads = ["Method", "accuracy / %", "difference", "images/s, ratio"]
    heads += ["accuracy / %", "images/s"] * len(shown)
    rows = []
    for label in dict.fromkeys(row.method for row in published_rows() if row.table == number):
        i = index.get(label)
        quantities = ("test_accuracy", difference, "relative_images_per_second")
        row = [label, *("—" if i is None else str(ours[name][i]) for name in quantities)]
        for network in shown:
            row += _published_texts(label, *network)
        rows.append(row)
    return Grid(heads, rows, groups, f"Table {number} of the study: {DATA_SETS[number]}")


def published_csv(number: int, results: VariantsResults) -> str:
    """Return the study's numbers in long form, with the ratio of these runs beside its own."""
    heads = (
        "table data_set network printed_name method accuracy accuracy_minus_sgd images_per_second "
        "relative_images_per_second these_runs_relative_images_per_second"
    ).split()
    lines: list[list[object]] = []
    ours = {method.label: speed(results, method).ratio for method in results.arms}
    for row in published_rows():
        if row.table == number:
            found = published(row.method, row.data_set, row.network)
            relative = ours.get(row.method, math.nan)
            names = [row.data_set, row.network, row.printed_name, row.method]
            lines.append([number, *names, *found, relative])
    return csv_text(pd.DataFrame(lines, columns=heads))


def _published_texts(label: str, data_set: str, network: str) -> tuple[str, str]:
    key = (label, data_set, network)
    row = next((r for r in published_rows() if (r.method, r.data_set, r.network) == key), None)
    if row is None:
        return "—", "—"
    found = published(label, data_set, network)
    accuracy, rate = "—", "—"
    if row.accuracy:
        accuracy = f"{row.accuracy} ({found.accuracy_difference:+.2f})".replace("-", "−")
    if row.images_per_second:
        rate = f"{row.images_per_second} ({found.speed:.2f})"
    return accuracy, rate
