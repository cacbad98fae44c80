"""The comparison as CSV, Markdown, plain text and HTML."""

import math

from experiments.study.formats import csv_text, markdown, padded
from experiments.study.page import Markup, element, grid
from experiments.variants.methods import Method
from experiments.variants.published import networks, published, published_rows
from experiments.variants.results import Results, speed
from experiments.variants.tables import Column, best_rows

# What fits into a terminal.
TEXT_QUANTITIES = (
    *("test_accuracy", "test_loss", "relative_images_per_second", "gradients_per_step"),
    "total_gradients",
)


def to_csv(methods: tuple[Method, ...], columns: tuple[Column, ...]) -> str:
    """Return the table in long form, a line a cell, with the numbers in full precision."""
    heads = "method function settings quantity value standard_error quartile_1 quartile_3 n".split()
    lines: list[list[object]] = []
    for i, method in enumerate(methods):
        for column in columns:
            cell = column.cells[i]
            lines.append(
                [method.label, method.function, _plain_settings(method), column.quantity, *cell]
            )
    return csv_text(heads, lines)


def to_markdown(methods: tuple[Method, ...], columns: tuple[Column, ...]) -> str:
    """Return a Markdown table, the best of a column in bold where one value is better."""
    heads = ["Method", "Settings", *(f"{column.group}: {column.name}" for column in columns)]
    body = [[m.label, m.settings] for m in methods]
    for column in columns:
        best = best_rows(column)
        for i, text in enumerate(column.texts):
            body[i].append(f"**{text}**" if i in best else text)
    return markdown(heads, body, text_columns=2)


def to_text(methods: tuple[Method, ...], columns: tuple[Column, ...]) -> str:
    """Return the columns that fit into a terminal as plain text, the best marked "*"."""
    texts = [padded(["", "Method", *(m.label for m in methods)], str.ljust)]
    for column in columns:
        if column.quantity in TEXT_QUANTITIES:
            best = best_rows(column)
            cells = [t + ("*" if i in best else " ") for i, t in enumerate(column.texts)]
            heads = [column.group + " ", column.name + " "]
            texts.append(padded([*heads, *(c.replace(" ± ", "±") for c in cells)], str.rjust))
    return "\n".join(" ".join(line).rstrip() for line in zip(*texts, strict=True)) + "\n"


def to_html(methods: tuple[Method, ...], columns: tuple[Column, ...]) -> Markup:
    """Return the table as HTML, the best of a column in bold where one value is better."""
    body: list[list[object]] = [[m.label, m.settings] for m in methods]
    for column in columns:
        best = best_rows(column)
        for i, text in enumerate(column.texts):
            body[i].append(element("b", text) if i in best else text)
    groups = ["", "", *(column.group for column in columns)]
    heads = ["Method", "Settings", *(column.name for column in columns)]
    return grid("These runs", groups, heads, body, text_columns=2)


def beside_published(
    number: int, results: Results, columns: tuple[Column, ...]
) -> tuple[list[str], list[str], list[list[str]]]:
    """Return a table of the study with these runs in its first columns.

    Args:
      number: 3 or 4.
      results: what was read.
      columns: of these runs.

    Returns:
      Groups and heads of the columns, and a row a method of the study. Behind every published
      number is, in brackets, the difference from SGD's accuracy or the ratio to its images per
      second.
    """
    ours = {column.quantity: column for column in columns}
    difference = f"test_accuracy_minus_{results.methods[0].folder}"
    index = {method.label: i for i, method in enumerate(results.methods)}
    shown = networks(number)
    groups = ["", *["These runs"] * 3, *(f"{d}, {net}" for d, net in shown for _ in range(2))]
    heads = ["Method", "accuracy / %", "difference", "images/s, ratio"]
    heads += ["accuracy / %", "images/s"] * len(shown)
    rows = []
    for label in dict.fromkeys(row.method for row in published_rows() if row.table == number):
        i = index.get(label)
        quantities = ("test_accuracy", difference, "relative_images_per_second")
        row = [label, *("—" if i is None else ours[name].texts[i] for name in quantities)]
        for network in shown:
            row += _published_texts(label, *network)
        rows.append(row)
    return groups, heads, rows


def published_csv(number: int, results: Results) -> str:
    """Return the study's numbers in long form, with the ratio of these runs beside its own."""
    heads = (
        "table data_set network printed_name method accuracy accuracy_minus_sgd images_per_second "
        "relative_images_per_second these_runs_relative_images_per_second"
    ).split()
    lines: list[list[object]] = []
    ours = {method.label: speed(results, method).ratio for method in results.methods}
    for row in published_rows():
        if row.table == number:
            found = published(row.method, row.data_set, row.network)
            relative = ours.get(row.method, math.nan)
            names = [row.data_set, row.network, row.printed_name, row.method]
            lines.append([number, *names, *found, relative])
    return csv_text(heads, lines)


def published_markdown(groups: list[str], heads: list[str], rows: list[list[str]]) -> str:
    """Return a table of `beside_published` as Markdown."""
    names = [f"{g}: {h}" if g else h for g, h in zip(groups, heads, strict=True)]
    return markdown(names, rows)


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


def _plain_settings(method: Method) -> str:
    return " ".join(f"{name}={value}" for name, value in method.overrides)
