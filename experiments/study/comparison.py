"""Which arms the seeds separate, and how many seeds would separate the others."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from experiments.study.arms import Arm
from experiments.study.formats import decimals, number_text, p_text, span
from experiments.study.grid import Grid, csv_text
from experiments.study.results import Results
from experiments.study.table import Column, Table
from sam_jax import statistics
from sam_jax.statistics.sample_size import LEVEL, seeds_needed


class Pair(NamedTuple):
    """Two arms compared in one column, seed by seed."""

    arm: Arm
    other: Arm
    column: Column
    found: statistics.MeanDifference  # arm minus other

    @property
    def separated(self) -> bool:
        """Whether the t test of these seeds tells the two apart at the 5% level."""
        return self.found.p_value < LEVEL

    @property
    def needed(self) -> int | None:
        """The seeds that would separate them at 80% power, None where that is not known."""
        return None if self.separated else seeds_needed(self.found)

    @property
    def seeds(self) -> str:
        """The same in words."""
        return "separated" if self.separated else "—" if self.needed is None else str(self.needed)


def compare_arms(results: Results, columns: Sequence[Column], arms: Sequence[Arm]) -> list[Pair]:
    """Return every pair of some arms, in every column."""
    pairs = []
    for column in columns:
        values = results.by_seed(column.quantity, column.where, arms=arms, scale=column.scale)
        for i, j in itertools.combinations(range(len(arms)), 2):
            found = statistics.mean_difference(values[j], values[i], paired=True)
            pairs.append(Pair(arms[j], arms[i], column, found))
    return pairs


def comparison_csv(pairs: Sequence[Pair]) -> str:
    """Return all pairs as CSV."""
    heads = (
        "quantity preset setting model other difference stderr low high p_value cohens_d n "
        "separated seeds_needed"
    ).split()
    rows = []
    for pair in pairs:
        column, found = pair.column, pair.found
        rows.append(
            [column.quantity, column.where.get("preset", ""), column.name]
            + [pair.arm.name, pair.other.name, found.difference, found.stderr]
            + [*found.interval, found.p_value, found.cohens_d, found.n[0]]
            + [pair.separated, "" if pair.needed is None else pair.needed]
        )
    return csv_text(pd.DataFrame(rows, columns=heads))


def against_first(pairs: Sequence[Pair], table: Table, columns: Sequence[int]) -> Grid:
    """Return each arm minus the first one, with interval, p value and the seeds needed.

    Args:
      pairs: all pairs.
      table: the table with the columns that the pairs are of.
      columns: the numbers of those to show.
    """
    first = pairs[0].other
    heads, groups = ["Model"], [""]
    lines = {pair.arm: [pair.arm.label] for pair in pairs if pair.other == first}
    for index in columns:
        column, digits = table.columns[index], decimals(table.cells(index))
        heads += ["difference", "p", "seeds"]
        groups += [f"{column.group} {column.name}"] * 3
        for pair in pairs:
            if pair.other == first and pair.column == column:
                lines[pair.arm] += _texts(pair, digits)
    caption = (
        f"Each model minus {first.label}, with 95% intervals, and the seeds that would separate "
        "them"
    )
    return Grid(heads, list(lines.values()), groups, caption)


def seeds_of_all(pairs: Sequence[Pair], column: Column) -> Grid:
    """Return a triangle: the seeds that each pair needs in a column, and which are separated."""
    of_column = {(pair.arm, pair.other): pair for pair in pairs if pair.column == column}
    arms = list(dict.fromkeys(arm for ours, other in of_column for arm in (other, ours)))
    numbers = {arm: str(number) for number, arm in enumerate(arms, start=1)}
    rows = [
        [f"{numbers[arm]} {arm.label}"]
        + [of_column[arm, o].seeds if (arm, o) in of_column else "" for o in arms[:-1]]
        for arm in arms
    ]
    return Grid(["Model", *(numbers[arm] for arm in arms[:-1])], rows)


def summary(pairs: Sequence[Pair], column: Column, name: str) -> str:
    """Return in words how many pairs a column separates, and how many seeds the others would need.

    Args:
      pairs: all pairs.
      column: the column.
      name: of the column, such as "test loss".
    """
    found = [pair for pair in pairs if pair.column == column]
    separated = sum(pair.separated for pair in found)
    needed = sorted(pair.needed for pair in found if pair.needed is not None)
    p_values = statistics.adjust_p_values([pair.found.p_value for pair in found])
    corrected = int(np.sum(p_values < LEVEL))
    text = (
        f"By the {name}, these seeds separate {separated} of {len(found)} pairs of models, of "
        f"which {LEVEL * len(found):.1f} could be chance if no models differed; corrected for "
        f"the number of pairs (Holm), they separate {corrected}."
    )
    if needed:
        text += (
            f" For {len(needed)} others there is an estimate of the seeds that would: "
            f"{math.ceil(np.median(needed))} in the middle, {needed[-1]} at most."
        )
    return text


def uncertainty(pairs: Sequence[Pair]) -> str:
    """Return how many times the seeds needed may be, in words: what so few seeds leave open."""
    # 95% of the ratio of the true variance to a sample's, to which the seeds are in
    # proportion: the variance of a normal sample has a chi-squared law.
    seeds = max(2, *(pair.found.n[0] for pair in pairs))
    ends = (seeds - 1) / scipy.stats.chi2.ppf([0.975, 0.025], seeds - 1)
    return " and ".join(f"{value:.2g}" if value < 100 else f"{value:.0f}" for value in ends)


def _texts(pair: Pair, digits: int) -> list[str]:
    difference = number_text(pair.found.difference, f"+.{digits}f")
    if math.isfinite(pair.found.interval.low):
        difference += f" ({span(pair.found.interval, digits)})"
    p_value = "—" if math.isnan(pair.found.p_value) else p_text(pair.found.p_value)
    return [difference, p_value, pair.seeds]
