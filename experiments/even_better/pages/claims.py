"""The page of the claims: each one's verdict on the study's numbers and on these runs."""

import pathlib

from experiments.even_better.claims.claims import CLAIMS
from experiments.even_better.claims.evidence import runs, study
from experiments.even_better.read.results import PRESETS, StudyResults
from experiments.study.pages import write_page, write_table
from experiments.study.verdicts import (
    Tested,
    claims_csv,
    claims_grids,
    claims_of,
    parts_grid,
    test_claims,
)

TITLE = "The study's claims, tested"


def write_claims(results: StudyResults, folder: pathlib.Path) -> None:
    """Write the page, `claims.html`, and its table."""
    bodies = [study(), *(runs(results, preset) for preset in PRESETS)]
    write_tested(test_claims(bodies, CLAIMS), folder)


def write_tested(found: list[Tested], folder: pathlib.Path) -> None:
    """Write the page of claims that were tested."""
    write_page(
        folder / "claims.html",
        "claims.html.j2",
        pathlib.Path(__file__).parent,
        title=TITLE,
        verdicts=write_table(folder, "claims", claims_csv(found), *claims_grids(found)),
        claims=[(claim, parts_grid(found, claim)) for claim in claims_of(found)],
    )
