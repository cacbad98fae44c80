"""The comparison as a table, a row a method."""

import functools
import math
from collections.abc import Callable, Sequence

from experiments.study.formats import NOT_MEASURED, number_text
from experiments.study.table import (
    Cell,
    Column,
    Row,
    Table,
    Write,
    instrument_column,
    make_table,
    means_over_seeds,
    write_means,
)
from experiments.variants import results as read
from experiments.variants.methods import Method
from experiments.variants.results import VariantsResults
from sam_jax.statistics import mean_difference

OUTCOMES = (
    instrument_column(
        "evaluation", "test_accuracy", group="Test", name="accuracy / %", scale=100.0
    ),
    instrument_column("evaluation", "test_loss", group="Test", name="loss"),
)
MEBIBYTE, KIBIBYTE = 2.0**20, 2.0**10
CSV = {  # fields of a cell's line and their headings
    **{name: name for name in ("method", "function", "settings", "quantity")},
    **{"mean": "value", "stderr": "stderr", "low": "quartile_1", "high": "quartile_3"},
    "n": "n",
}
# What fits into a terminal.
TEXT_QUANTITIES = (
    *("test_accuracy", "test_loss", "relative_images_per_second", "gradients_per_step"),
    "total_gradients",
)


def methods_table(results: VariantsResults) -> Table:
    """Return outcomes, paired differences, speed, gradients and memory of every method."""
    columns = [(column, means_over_seeds(results, column)) for column in OUTCOMES]
    for reference in references(results):
        columns += [_difference(results, reference, column) for column in OUTCOMES]
    columns += _costs(results)
    rows = [
        Row(
            (m.label, m.settings),
            {"method": m.label, "function": m.function, "settings": _plain(m)},
        )
        for m in results.arms
    ]
    columns, cells = zip(*columns, strict=True)
    heads = ("Method", "Settings")
    return make_table("methods", heads, rows, columns, cells, seeds=len(results.seeds))


def methods_text(results: VariantsResults) -> str:
    """Return the main columns as plain text."""
    table = methods_table(results)
    shown = [i for i, c in enumerate(table.columns) if c.quantity in TEXT_QUANTITIES]
    return table.grid(shown, heads=1).text()


def references(results: VariantsResults) -> list[Method]:
    """Return the methods compared with: the reference, and itself trained for longer."""
    first = results.arms[0]
    longer = [
        m
        for m in results.arms[1:]
        if (m.function, m.overrides) == (first.function, first.overrides) and m.times_epochs > 1
    ]
    return [first, *longer]


def difference_from(reference: Method, quantity: str) -> str:
    """Return the name of a quantity's paired difference from a reference."""
    return f"{quantity}_minus_{reference.name}"


def _difference(
    results: VariantsResults, reference: Method, outcome: Column
) -> tuple[Column, list[Cell]]:
    """Return the paired differences from a reference, which has none from itself."""
    values = results.by_seed(outcome.quantity, outcome.where, scale=outcome.scale)
    others = values[results.arms.index(reference)]
    cells = []
    for method, own in zip(results.arms, values, strict=True):
        found = mean_difference(own, others, paired=True)
        itself = Cell(math.nan, n=0)
        cells.append(
            itself if method == reference else Cell(found.difference, found.stderr, found.n[0])
        )

    def write(cells: Sequence[Cell], seeds: int) -> list[str]:
        texts = write_means(cells, seeds, sign="+")
        return ["—" if m == reference else t for m, t in zip(results.arms, texts, strict=True)]

    group, name = f"Difference from {reference.label}", outcome.name
    return Column(group, name, difference_from(reference, outcome.quantity), write=write), cells


def _costs(results: VariantsResults) -> list[tuple[Column, list[Cell]]]:
    relative, in_turns = f"÷ {results.arms[0].label}", f"{results.arms[0].label} in turns"
    speeds = [read.speed(results, method) for method in results.arms]
    memory = [read.memory(results, method) for method in results.arms]
    state = [results.costs.get(m.name, {}).get("method_state_bytes") for m in results.arms]
    speed, gradients = "Images/s", "Gradients"

    def of(quantity: Callable[[VariantsResults, Method], float]) -> list[Cell]:
        return [Cell(quantity(results, method)) for method in results.arms]

    return [
        (
            Column(speed, "median", "images_per_second", write=_digits(".0f")),
            [Cell(s.images_per_second, n=s.n) for s in speeds],
        ),
        (
            Column(speed, in_turns, "reference_images_per_second", write=_digits(".0f")),
            [Cell(s.reference_images_per_second, n=s.n) for s in speeds],
        ),
        (
            Column(speed, relative, "relative_images_per_second", write=_write_ratios),
            [Cell(s.ratio, n=s.n, low=s.low, high=s.high) for s in speeds],
        ),
        (
            Column(gradients, "a step", "gradients_per_step", write=_digits(".2f")),
            of(read.gradients_per_step),
        ),
        (
            Column(gradients, "compiled", "compiled_gradients_per_step", write=_digits(".2f")),
            of(read.compiled_gradients_per_step),
        ),
        (
            Column(gradients, f"in all {relative}", "total_gradients", write=_digits(".2f")),
            of(read.total_gradients),
        ),
        (
            Column("Memory", "MiB", "memory_mib", write=_digits(".2f")),
            [Cell(m / MEBIBYTE) for m in memory],
        ),
        (
            Column("Memory", relative, "relative_memory", write=_digits(".2f")),
            [Cell(m / memory[0]) for m in memory],
        ),
        (
            Column("Memory", "method’s state, KiB", "method_state_kib", write=_digits(".1f")),
            [Cell(math.nan if s is None else s / KIBIBYTE) for s in state],
        ),
    ]


def _write_ratios(cells: Sequence[Cell], seeds: int) -> list[str]:
    return [
        f"{cell.mean:.2f} ({cell.low:.2f}–{cell.high:.2f})" if cell.n else NOT_MEASURED
        for cell in cells
    ]


def _digits(style: str) -> Write:
    return functools.partial(_write_digits, style)


def _write_digits(style: str, cells: Sequence[Cell], seeds: int) -> list[str]:
    return [
        number_text(cell.mean, style) if math.isfinite(cell.mean) else NOT_MEASURED
        for cell in cells
    ]


def _plain(method: Method) -> str:
    return " ".join(f"{name}={value}" for name, value in method.overrides)
