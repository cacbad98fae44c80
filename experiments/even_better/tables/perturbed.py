"""Tables 2, 5, 6 and 7: losses at perturbed weights, and how far above the training loss."""

from typing import NamedTuple

from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.columns import columns_of, study_table
from experiments.study.table import Table


class Kind(NamedTuple):
    """Which measure a table of perturbed models shows."""

    measure: str
    quantity: str
    title: str


KINDS = {
    2: Kind("adversarial_sharpness", "perturbed_loss", "Loss at the adversarially perturbed point"),
    5: Kind("adversarial_sharpness", "sharpness", "Adversarial sharpness"),
    6: Kind("average_sharpness", "sharpness", "Average sharpness"),
    7: Kind("average_sharpness", "perturbed_loss", "Mean loss at randomly perturbed points"),
}


def perturbed_table(results: StudyResults, number: int, preset: str) -> Table:
    """Return Table 2, 5, 6 or 7; without columns where nothing was measured."""
    kind = KINDS[number]
    columns = columns_of(results, kind.measure, preset, kind.quantity)
    return study_table(results, number, preset, columns, results.models)
