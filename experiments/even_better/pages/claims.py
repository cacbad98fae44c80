"""The page of the claims: each one's verdict on the study's numbers and on these runs."""

import pathlib

from experiments.even_better.claims.claims import CLAIMS
from experiments.even_better.claims.evidence import runs, study
from experiments.even_better.read.results import PRESETS, StudyResults
from experiments.study.pages import LinkedGrid, write_page, write_table
from experiments.study.verdicts import (
    Tested,
    claims_csv,
    claims_grids,
    claims_of,
    parts_grid,
    test_claims,
)

TITLE = "The study's claims, tested"


def write_claims(results: StudyResults, folder: pathlib.Path) -> tuple[list[Tested], LinkedGrid]:
    """Write the page, `claims.html`, and its table; return the tests and the verdicts."""
    bodies = [study(), *(runs(results, preset) for preset in PRESETS)]
    found = test_claims(bodies, CLAIMS)
    return found, write_tested(found, folder)


def write_tested(found: list[Tested], folder: pathlib.Path) -> LinkedGrid:
    """Write the page of claims that were tested, and return the verdicts."""
    verdicts = write_table(folder, "claims", claims_csv(found), *claims_grids(found))
    write_page(
        folder / "claims.html",
        "claims.html.j2",
        pathlib.Path(__file__).parent,
        title=TITLE,
        verdicts=verdicts,
        claims=[(claim, parts_grid(found, claim)) for claim in claims_of(found)],
    )
    return verdicts
