"""The report of the convergence experiment."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.study.findings import of_claims
from experiments.study.pages import Opening, Section, write_report, write_table
from experiments.study.table import Cell, Column, Row, Table, make_table
from experiments.study.verdicts import (
    Tested,
    claims_csv,
    parts_grid,
    test_claims,
    verdicts_grid,
)
from experiments.understanding.command import Results
from experiments.understanding.convergence.claims import CLAIMS
from experiments.understanding.convergence.figures import figures
from experiments.understanding.convergence.quantities import quantities
from experiments.understanding.convergence.run import ARMS, BATCH_SIZE, Settings
from experiments.understanding.evidence import SeedEvidence
from sam_jax.statistics import mean_and_stderr

TITLE = "Where m-SAM converges"
INTRODUCTION = (
    "Stochastic gradient descent with m-SAM on three small regressions: a linear model with more "
    "parameters than examples, one with fewer, and a net with one hidden layer and more parameters "
    f"than examples. Labels are random. A step draws {BATCH_SIZE} examples with replacement; m of "
    "them share a perturbation. Everything is in float64.",
    "USAM perturbs by ρ times the gradient, SAM by ρ along the normalised gradient. Step size γ "
    "and ρ are constant, or γ falls as 1 / (1 + t / decay) and ρ as √γ.",
    "The paper's theorems say where USAM converges; these runs show whether it does, and whether "
    "SAM as it is used differs.",
)
COLUMNS = (
    Column("Excess loss", "late, log10", "late_loss"),
    Column("Excess loss", "fall / orders", "fall"),
    Column("Excess loss", "late ÷ middle, log10", "change"),
    Column("Excess loss", "exponent a of t^-a", "exponent"),
    Column("Squared gradient", "exponent a of t^-a", "gradient_exponent"),
)


def report(
    results: Results, settings: Settings, folder: pathlib.Path, shown: Mapping[str, Any]
) -> tuple[pathlib.Path, str]:
    """Write the tables, the figures and the page; return its path and the verdicts as text."""
    numbers = quantities(results)
    found = test_claims([SeedEvidence(numbers, "late_loss")], CLAIMS)
    verdicts, table = verdicts_grid(found), convergence_table(numbers, settings.seeds)
    opening = Opening(
        of_claims(found), [write_table(folder, "claims", claims_csv(found), verdicts)]
    )
    sections = [
        Section("Figures", figures=figures(results, settings)),
        *(_tests(folder, tested) for tested in found),
        Section("Numbers", grids=[write_table(folder, table.stem, table.csv(), table.grid())]),
    ]
    page = write_report(folder, TITLE, INTRODUCTION, sections, shown, opening=opening)
    return page, verdicts.text()


def _tests(folder: pathlib.Path, tested: Tested) -> Section:
    """Return the section of a claim: its test and all its parts."""
    claim = tested.claim
    grid = parts_grid([tested], claim)
    linked = write_table(folder, f"claim_{claim.key}", claims_csv([tested]), grid)
    return Section(claim.statement, [f"Source: {claim.source}. Test: {claim.test}"], [linked])


def convergence_table(numbers: Mapping[str, Any], seeds: int) -> Table:
    """Return the quantities of every arm, mean and standard error over seeds."""
    rows = [
        Row(
            (arm.kind.name, arm.label),
            {
                "problem": arm.kind.name,
                "method": arm.method,
                "m": arm.m,
                "schedule": arm.schedule,
            },
        )
        for arm in ARMS
    ]
    cells = [[Cell(*mean_and_stderr(row)) for row in numbers[c.quantity]] for c in COLUMNS]
    return make_table("arms", ("Problem", "Arm"), rows, COLUMNS, cells, seeds=seeds)
