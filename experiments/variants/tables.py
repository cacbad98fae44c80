"""The comparison as columns of cells, a row a method."""

import math
from collections.abc import Callable
from typing import NamedTuple

from numpy.typing import ArrayLike

from experiments.study.formats import NOT_MEASURED, cell_texts, number_text
from experiments.variants import results as read
from experiments.variants.methods import Method
from experiments.variants.results import Results
from sam_jax.metrics.statistics import MeanAndStderr, mean_and_stderr, mean_difference

OUTCOMES = (("test_accuracy", "accuracy / %", 100.0, "max"), ("test_loss", "loss", 1.0, "min"))
MEBIBYTE, KIBIBYTE = 2.0**20, 2.0**10


class Cell(NamedTuple):
    """A number with its standard error, or the quartiles of its rounds, over n of them."""

    value: float
    stderr: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 1


class Column(NamedTuple):
    """One quantity of every method: its two lines of heading, its cells and their texts."""

    group: str
    name: str
    quantity: str  # in the CSV file
    cells: tuple[Cell, ...]
    texts: tuple[str, ...]
    best: str = ""  # "max" or "min", where one is better


def columns(results: Results) -> tuple[Column, ...]:
    """Return all columns: outcomes, paired differences, speed, gradients and memory."""
    found = [_outcome(results, *outcome) for outcome in OUTCOMES]
    for reference in references(results):
        found += [_difference(results, reference, *outcome[:3]) for outcome in OUTCOMES]
    return (*found, *_costs(results))


def references(results: Results) -> list[Method]:
    """Return what is compared with: the reference, and itself trained for longer."""
    first = results.methods[0]
    longer = [
        m
        for m in results.methods[1:]
        if (m.function, m.overrides) == (first.function, first.overrides) and m.epochs_factor > 1
    ]
    return [first, *longer]


def best_rows(column: Column) -> set[int]:
    """Return the rows with the best finite value, several in a tie; none where none is better."""
    values = {i: cell.value for i, cell in enumerate(column.cells) if math.isfinite(cell.value)}
    if not column.best or not values:
        return set()
    best = (max if column.best == "max" else min)(values.values())
    return {i for i, value in values.items() if value == best}


def _outcome(results: Results, quantity: str, name: str, scale: float, best: str) -> Column:
    cells = [
        mean_and_stderr(scale * read.over_seeds(results, m, quantity)) for m in results.methods
    ]
    texts = cell_texts(cells, len(results.seeds))
    return Column("Test", name, quantity, _as_cells(cells), tuple(texts), best)


def _difference(
    results: Results, reference: Method, quantity: str, name: str, scale: float
) -> Column:
    """Return the paired differences from a reference, which has none from itself."""
    others = scale * read.over_seeds(results, reference, quantity)
    cells = [
        MeanAndStderr(math.nan, math.nan, 0)
        if method == reference
        else _paired(scale * read.over_seeds(results, method, quantity), others)
        for method in results.methods
    ]
    texts = cell_texts(cells, len(results.seeds), sign="+")
    texts = ["—" if m == reference else t for m, t in zip(results.methods, texts, strict=True)]
    return Column(
        f"Difference from {reference.label}",
        name,
        f"{quantity}_minus_{reference.folder}",
        _as_cells(cells),
        tuple(texts),
    )


def _costs(results: Results) -> list[Column]:
    reference = results.methods[0]
    relative = f"÷ {reference.label}"
    speeds = [read.speed(results, method) for method in results.methods]
    ratios = [Cell(s.ratio, math.nan, s.low, s.high, s.n) for s in speeds]
    rates = [Cell(s.images_per_second, n=s.n) for s in speeds]
    beside = [Cell(s.reference_images_per_second, n=s.n) for s in speeds]
    memory = [read.memory(results, method) for method in results.methods]
    state = [results.costs.get(m.label, {}).get("method_state_bytes") for m in results.methods]

    def plain(values: list[float], style: str) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
        return tuple(map(Cell, values)), tuple(_text(value, style) for value in values)

    def of(quantity: Callable[[Results, Method], float]) -> list[float]:
        return [quantity(results, method) for method in results.methods]

    return [
        Column("Images/s", "median", "images_per_second", tuple(rates),
               tuple(_text(cell.value, ".0f") for cell in rates)),
        Column("Images/s", f"{reference.label} in turns", "reference_images_per_second",
               tuple(beside), tuple(_text(cell.value, ".0f") for cell in beside)),
        Column("Images/s", relative, "relative_images_per_second", tuple(ratios),
               tuple(_ratio_text(cell) for cell in ratios)),
        Column("Gradients", "a step", "gradients_per_step",
               *plain(of(read.gradients_per_step), ".2f")),
        Column("Gradients", "compiled", "compiled_gradients_per_step",
               *plain(of(read.compiled_gradients_per_step), ".2f")),
        Column("Gradients", f"in all {relative}", "total_gradients",
               *plain(of(read.total_gradients), ".2f")),
        Column("Memory", "MiB", "memory_mib", *plain([m / MEBIBYTE for m in memory], ".2f")),
        Column("Memory", relative, "relative_memory",
               *plain([m / memory[0] for m in memory], ".2f")),
        Column("Memory", "method’s state, KiB", "method_state_kib",
               *plain([math.nan if s is None else s / KIBIBYTE for s in state], ".1f")),
    ]  # fmt: skip


def _paired(values: ArrayLike, others: ArrayLike) -> MeanAndStderr:
    found = mean_difference(values, others, paired=True)
    return MeanAndStderr(found.difference, found.stderr, found.n[0])


def _as_cells(cells: list[MeanAndStderr]) -> tuple[Cell, ...]:
    return tuple(Cell(cell.mean, stderr=cell.stderr, n=cell.n) for cell in cells)


def _ratio_text(cell: Cell) -> str:
    if not cell.n:
        return NOT_MEASURED
    return f"{cell.value:.2f} ({cell.low:.2f}–{cell.high:.2f})"


def _text(value: float, style: str) -> str:
    return number_text(value, style) if math.isfinite(value) else NOT_MEASURED
