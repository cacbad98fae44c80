"""The learned functions of GD and SAM in numbers, and the claims on them."""

from collections.abc import Sequence

import numpy as np

from experiments.study import claims
from experiments.study.formats import number_text
from experiments.study.table import Cell, Column, Row, Table, make_table
from experiments.study.verdicts import Claim
from experiments.understanding.command import Results
from experiments.understanding.evidence import SeedEvidence
from experiments.understanding.relu_nets.run import ARMS, QUANTITIES
from sam_jax.statistics import mean_and_stderr, mean_difference

GD, SAM = range(len(ARMS))
NAMES = {
    "loss": "training loss",
    "iterations": "iterations",
    "activation_regions": "activation regions",
    "kinks": "kinks",
    "l1_norm": "ℓ₁ norm",
    "path_norm": "path norm",
}


def last(results: Results, quantity: str) -> np.ndarray:
    """Return a quantity of the nets at their end, shape [arms, seeds]."""
    return results[quantity][..., -1].astype(float)


def nets_table(results: Results) -> Table:
    """Return mean and standard error over seeds, and the paired differences."""
    rows = [Row((name,), {"arm": name}) for name in (*ARMS, "SAM − GD")]
    columns = [Column("", NAMES[quantity], quantity) for quantity in QUANTITIES]
    whole = QUANTITIES.index("iterations")
    columns[whole] = columns[whole]._replace(write=_write_whole)
    cells = [_cells(last(results, quantity)) for quantity in QUANTITIES]
    seeds = results["loss"].shape[1]
    return make_table("nets", ("Method",), rows, columns, cells, seeds=seeds)


def evidence(results: Results) -> SeedEvidence:
    """Return the numbers of the nets at their end as evidence."""
    return SeedEvidence({quantity: last(results, quantity) for quantity in QUANTITIES}, "loss")


def _lower(quantity: str, statement: str) -> Claim:
    return Claim(
        quantity,
        statement,
        "These runs",
        f"The {NAMES[quantity]} of SAM's nets at their end minus that of GD's, over paired seeds.",
        lambda found: claims.difference(
            found, f"{NAMES[quantity]}, SAM − GD", [SAM], [GD], quantity, "negative"
        ),
    )


CLAIMS = (
    _lower("kinks", "SAM learns a function with fewer kinks."),
    _lower("activation_regions", "SAM's function has fewer activation regions."),
    _lower("l1_norm", "SAM's weights have a smaller ℓ₁ norm."),
    _lower("path_norm", "SAM's nets have a smaller path norm."),
)


def _write_whole(cells: Sequence[Cell], seeds: int) -> list[str]:
    return [f"{number_text(c.mean, ',.0f')} ± {number_text(c.stderr, ',.0f')}" for c in cells]


def _cells(values: np.ndarray) -> list[Cell]:
    found = mean_difference(values[SAM], values[GD], paired=True)
    means = [Cell(*mean_and_stderr(row)) for row in values]
    return [*means, Cell(found.difference, found.stderr, found.n[0])]
