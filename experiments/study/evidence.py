"""The numbers that claims are tested on."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from experiments.study.results import Results
from experiments.study.table import Column
from sam_jax import statistics


class Values(Protocol):
    """What gives the numbers of a quantity."""

    def __call__(self, quantity: Any, /) -> np.ndarray:
        """Return [arms, seeds] or [arms, 1] numbers; NaN where it was not measured."""
        ...


class Evidence(Protocol):
    """Arms, and any quantity of them. What names a quantity is the study's own choice."""

    @property
    def name(self) -> str:
        """The name of the evidence."""
        ...

    @property
    def seeds(self) -> int:
        """How many seeds the arms have in common; 0 where each has one run of its own."""
        ...

    @property
    def outcome(self) -> Any:
        """The quantity that others are correlated with, such as the test loss."""
        ...

    @property
    def values(self) -> Values:
        """What gives the numbers of a quantity."""
        ...

    def all_runs(self, rows: Sequence[int], quantity: Any) -> np.ndarray:
        """Return the values of every run of some arms, for evidence without seeds."""
        ...


class RunEvidence(NamedTuple):
    """The runs of a study, whose quantities are columns of its tables; a row an arm."""

    results: Results
    outcome: Column
    name: str = "These runs"

    @property
    def seeds(self) -> int:
        """How many seeds the arms have in common."""
        return len(self.results.seeds)

    def values(self, quantity: Column) -> np.ndarray:
        """Return a column, shape [arms, seeds]; NaN where it was not measured."""
        return self.results.by_seed(quantity.quantity, quantity.where, scale=quantity.scale)

    def all_runs(self, rows: Sequence[int], quantity: Column) -> np.ndarray:
        """Return the values of every run of some arms."""
        return self.values(quantity)[list(rows)].ravel()


def compare(
    evidence: Evidence,
    group: Sequence[int],
    other: Sequence[int],
    quantity: Any,
    confidence: float = 0.95,
) -> statistics.MeanDifference:
    """Return the mean of a quantity over a group of arms minus that over another group.

    With seeds, the groups' means of every seed are paired, so that n counts seeds. Without, the
    runs of a group are all there is to tell how much it varies: Welch's test over runs. Its spread
    also holds the differences within a group, and it says nothing about a group of one run.
    """
    if evidence.seeds:
        values = evidence.values(quantity)
        means = [values[list(rows)].mean(axis=0) for rows in (group, other)]
        return statistics.mean_difference(*means, paired=True, confidence=confidence)
    runs = (evidence.all_runs(rows, quantity) for rows in (group, other))
    return statistics.mean_difference(*runs, confidence=confidence)


def arm_means(evidence: Evidence, quantity: Any) -> np.ndarray:
    """Return the mean over seeds of every arm, NaN where there is none."""
    return np.array([statistics.mean_and_stderr(row).mean for row in evidence.values(quantity)])
