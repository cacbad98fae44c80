"""Numbers of arms over seeds, as evidence for the tests of experiments.study.claims."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class SeedEvidence(NamedTuple):
    """Quantities of arms over seeds.

    Attributes:
      numbers: of every quantity by its name, shape [arms, seeds].
      outcome: the quantity that others would be correlated with.
      name: of the evidence.
    """

    numbers: Mapping[str, np.ndarray]
    outcome: str
    name: str = "These runs"

    @property
    def seeds(self) -> int:
        """How many seeds the arms have in common."""
        return self.numbers[self.outcome].shape[1]

    def values(self, quantity: str, /) -> np.ndarray:
        """Return a quantity, shape [arms, seeds]."""
        return self.numbers[quantity]

    def all_runs(self, rows: Sequence[int], quantity: str) -> np.ndarray:
        """Return the values of every run of some arms."""
        return self.values(quantity)[list(rows)].ravel()
