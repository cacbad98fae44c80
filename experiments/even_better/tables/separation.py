"""Which models the seeds separate, and how many seeds would separate the others."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import scipy.stats

from experiments.even_better.arms import Model
from experiments.even_better.needed import LEVEL, seeds_needed
from experiments.even_better.read.results import PRESETS, Results
from experiments.even_better.tables.tables import Table, column_by_seed
from experiments.study.formats import csv_text, decimals, markdown, number_text, p_text, span
from experiments.study.page import Markup, element, grid, links
from sam_jax.metrics import statistics

STEM = "separation"


class Pair(NamedTuple):
    """Two models compared in one column of Table 1, seed by seed."""

    model: Model
    other: Model
    column: int
    found: statistics.MeanDifference  # model minus other

    @property
    def separated(self) -> bool:
        """Whether the t test of these seeds tells the two apart at the 5% level."""
        return self.found.p_value < LEVEL

    @property
    def needed(self) -> int | None:
        """The seeds that would separate them at 80% power, None where that is not known."""
        return None if self.separated else seeds_needed(self.found)


def pairs(results: Results, table: Table) -> list[Pair]:
    """Return every pair of the models that are compared, in every column of Table 1.

    Args:
      results: What was read.
      table: Table 1 of it.
    """
    models = results.models
    values = [column_by_seed(results, column, models) for column in table.columns]
    return [
        Pair(models[j], models[i], index, statistics.mean_difference(ours[j], ours[i], paired=True))
        for index, ours in enumerate(values)
        for i, j in itertools.combinations(range(len(models)), 2)
    ]


def separation_csv(found: list[Pair], table: Table) -> str:
    """Return all pairs as CSV."""
    heads = (
        "quantity preset setting model other difference stderr low high p_value cohens_d n "
        "separated seeds_needed"
    ).split()
    rows = []
    for pair in found:
        column, difference = table.columns[pair.column], pair.found
        rows.append(
            [column.quantity, column.where.get("preset", ""), column.name]
            + [pair.model.name, pair.other.name, difference.difference, difference.stderr]
            + [*difference.interval, difference.p_value, difference.cohens_d, difference.n[0]]
            + [pair.separated, "" if pair.needed is None else pair.needed]
        )
    return csv_text(heads, rows)


def separation_markdown(found: list[Pair], table: Table) -> str:
    """Return the first model against each other one, and the seeds of all pairs, as Markdown."""
    heads, rows = _against_first(found, table)
    first = markdown([f"{group} {name}".strip() for group, name in heads], rows)
    return "\n".join([first, markdown(*_seeds_of_all(found))])


def separation_html(found: list[Pair], table: Table) -> Markup:
    """Return what the seeds separate: in words, against the first model, and for all pairs."""
    heads, rows = _against_first(found, table)
    first = table.models[0].label
    most = max(2, *(pair.found.n[0] for pair in found))
    numbers, seeds = _seeds_of_all(found)
    return element(
        "div",
        element("h3", "What these seeds separate"),
        element("p", summary(found)),
        grid(
            f"Each model minus {first}, with 95% intervals, and the seeds that would separate them",
            [group for group, _ in heads],
            [name for _, name in heads],
            rows,
            text_columns=1,
        ),
        grid(
            "The seeds that would separate two models by the test loss",
            [""] * len(numbers),
            numbers,
            seeds,
            text_columns=1,
        ),
        element(
            "p",
            "Paired t tests over the seeds, not corrected for their number. The seeds are those of "
            "80% power at the 5% level if differences and spreads are as found; the spread alone "
            f"leaves the true number between {_times(most)} times that (95%). “—”: no difference "
            "was found, or no spread, or more than a million seeds. SGD for longer is in no "
            "comparison.",
            class_="note",
        ),
        links(STEM),
    )


def summary(found: list[Pair]) -> str:
    """Return how many pairs the test loss separates, and what the others would need, in words."""
    losses = [pair for pair in found if pair.column == 0]
    separated = sum(pair.separated for pair in losses)
    needed = sorted(pair.needed for pair in losses if pair.needed is not None)
    p_values = statistics.adjust_p_values([pair.found.p_value for pair in losses])
    corrected = int(np.sum(p_values < LEVEL))
    text = (
        f"By the test loss, these seeds separate {separated} of {len(losses)} pairs of models, of "
        f"which {LEVEL * len(losses):.1f} could be chance if no models differed; corrected for "
        f"the number of pairs (Holm), they separate {corrected}."
    )
    if needed:
        text += (
            f" For {len(needed)} others there is an estimate of the seeds that would: "
            f"{math.ceil(np.median(needed))} in the middle, {needed[-1]} at most."
        )
    return text


def _times(seeds: int) -> str:
    # 95% of the ratio of the true variance to that of a sample, to which the seeds are in
    # proportion: the variance of a normal sample has a chi-squared law.
    low, high = (seeds - 1) / scipy.stats.chi2.ppf([0.975, 0.025], seeds - 1)
    return " and ".join(f"{value:.2g}" if value < 100 else f"{value:.0f}" for value in (low, high))


def _against_first(found: list[Pair], table: Table) -> tuple[list[tuple[str, str]], list[list]]:
    # The test loss, the accuracy and the first factor of every preset.
    shown = [index for index, column in enumerate(table.columns) if column.name != "train"]
    factors = {
        preset: next((i for i in shown if table.columns[i].where.get("preset") == preset), None)
        for preset in PRESETS
    }
    shown = [i for i in shown if "preset" not in table.columns[i].where or i in factors.values()]
    heads = [("", "Model")]
    lines = {p.model: [p.model.label] for p in found if p.other == table.models[0]}
    for index in shown:
        column = table.columns[index]
        heads += [(f"{column.group} {column.name}", name) for name in ("difference", "p", "seeds")]
        digits = decimals([row[index] for row in table.cells])
        chosen = {p.model: p for p in found if p.other == table.models[0] and p.column == index}
        for model, line in lines.items():
            line += _texts(chosen[model], digits)
    return heads, list(lines.values())


def _seeds_of_all(found: list[Pair]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and rows of a triangle: the seeds that each pair needs by the test loss."""
    pairs = {(pair.model, pair.other): pair for pair in found if pair.column == 0}
    models = list(dict.fromkeys(model for ours, other in pairs for model in (other, ours)))
    numbers = {model: str(number) for number, model in enumerate(models, start=1)}
    heads = ["Model", *(numbers[model] for model in models[:-1])]
    rows = [
        [f"{numbers[model]} {model.label}"]
        + [_seeds(pairs[model, other]) if (model, other) in pairs else "" for other in models[:-1]]
        for model in models
    ]
    return heads, rows


def _seeds(pair: Pair) -> str:
    return "separated" if pair.separated else "—" if pair.needed is None else str(pair.needed)


def _texts(pair: Pair, digits: int) -> list[str]:
    difference = number_text(pair.found.difference, f"+.{digits}f")
    if math.isfinite(pair.found.interval.low):
        difference += f" ({span(pair.found.interval, digits)})"
    p_value = "—" if math.isnan(pair.found.p_value) else p_text(pair.found.p_value)
    return [difference, p_value, _seeds(pair)]
