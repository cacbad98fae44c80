"""The report of the nets with one hidden layer."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.study.findings import of_claims
from experiments.study.pages import Opening, Section, write_report, write_table
from experiments.study.verdicts import claims_csv, test_claims, tests_grid
from experiments.understanding.command import Results
from experiments.understanding.relu_nets.figures import figures
from experiments.understanding.relu_nets.run import Settings
from experiments.understanding.relu_nets.table import CLAIMS, evidence, nets_table

TITLE = "One hidden layer of ReLUs: GD and SAM"
INTRODUCTION = (
    "A net with one input, 100 ReLUs and one output fits twelve points by full-batch steps of "
    "size 5e-5, from the initial weights of the released notebook. SAM perturbs all weights by "
    "ρ = 0.3 along the normalised gradient, and its step size falls linearly to zero. A net stops "
    "once its loss (SAM: at the perturbed weights) is at most 1e-5. The notebook recorded no "
    "numbers.",
)
DEFINITIONS = (
    "Activation regions: 1 + the places strictly between the least and the largest input where a "
    "neuron switches. Kinks: cells of width 0.01 across which the slope of the learned function "
    "changes by more than 1; neurons that switch in one cell add up. ℓ₁ norm: the sum of |w| over "
    "all weights and biases. Path norm: Σ |output| (|weight| + |bias|) over neurons.",
)


def report(
    results: Results, settings: Settings, folder: pathlib.Path, shown: Mapping[str, Any]
) -> tuple[pathlib.Path, str]:
    """Write the tables, the figures and the page; return its path and the table as text."""
    table = nets_table(results)
    found = test_claims([evidence(results)], CLAIMS)
    parts = tests_grid(found)
    opening = Opening(of_claims(found), [write_table(folder, "claims", claims_csv(found), parts)])
    sections = [
        Section(
            "Numbers", DEFINITIONS, [write_table(folder, table.stem, table.csv(), table.grid())]
        ),
        Section("Figures", figures=figures(results)),
    ]
    page = write_report(folder, TITLE, INTRODUCTION, sections, shown, opening=opening)
    return page, table.grid().text()
