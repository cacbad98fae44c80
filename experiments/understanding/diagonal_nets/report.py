"""The report of the diagonal networks."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.study.pages import Opening, Section, write_report, write_table
from experiments.understanding.command import Results
from experiments.understanding.diagonal_nets import table
from experiments.understanding.diagonal_nets.arms import DIVERGED, ITERATIONS
from experiments.understanding.diagonal_nets.figures import figures
from experiments.understanding.diagonal_nets.run import Settings

TITLE = "Diagonal linear networks: GD, n-SAM and 1-SAM"
INTRODUCTION = (
    "A network f(x) = ⟨x, u ∘ v⟩ with squared loss learns a sparse teacher from 20 examples in 30 "
    "dimensions, from u = α, v = 0, by full-batch steps of size γ in float64. n-SAM perturbs "
    "all examples together by ρ times the gradient, 1-SAM each example on its own by 2ρ times its "
    "own gradient. Neither normalises.",
    "The recorded numbers are those printed in the released notebook of “Towards Understanding "
    "Sharpness-Aware Minimization” (2022). Its two runs of SGD depend on random numbers that were "
    "not kept, and are left out.",
)
NOTES = (
    "Cell 4 trains n-SAM with γ = 1/3, which cell 3 had left in a variable, and GD and 1-SAM with "
    "γ = 1/2. The networks “beyond” train n-SAM with γ = 1/2, too, and 1-SAM with only the "
    "derivative of the loss perturbed.",
    "In cell 5 every network has two phases. The notebook prints ρ = 0.9 for it; the code has "
    "ρ = 10 after GD and ρ = 0.175 before it.",
)


def report(
    results: Results, settings: Settings, folder: pathlib.Path, shown: Mapping[str, Any]
) -> tuple[pathlib.Path, str]:
    """Write the table, the figures and the page; return its path and the table as text."""
    found = table.lines(results)
    grid = table.grid(found)
    linked = write_table(folder, "recorded", table.csv(found), grid)
    sections = [
        Section("Recorded numbers", [_agreement(found, settings), *NOTES], [linked]),
        Section("Figures", figures=figures(results)),
    ]
    opening = Opening(_sentences(found, settings))
    page = write_report(folder, TITLE, INTRODUCTION, sections, shown, opening=opening)
    return page, grid.text()


def _sentences(found: list[table.Line], settings: Settings) -> list[str]:
    """Return what the networks came to, the agreement with the notebook first."""
    known = sorted(
        (line for line in found if math.isfinite(line.test_loss)), key=lambda line: line.test_loss
    )
    sentences = [_agreement(found, settings)]
    if known:
        best, worst = known[0], known[-1]
        median = float(np.median([line.test_loss for line in known]))
        sentences += [
            f"The lowest test loss is {best.test_loss:.3g}, of {_named(best)}.",
            f"The highest that is finite is {worst.test_loss:.3g}, of {_named(worst)}.",
            f"The median over {len(known)} networks and phases is {median:.3g}.",
        ]
    diverged = [line for line in found if not math.isfinite(line.test_loss)]
    named = "; ".join(_named(line) for line in diverged[:3])
    more = f": {named}" + (" and others" if len(diverged) > 3 else "") if diverged else ""
    return [*sentences, f"{len(diverged)} of {len(found)} diverged{more}."]


def _named(line: table.Line) -> str:
    rate = f"γ = {line.learning_rate:.3g}"
    return f"{line.network} (cell {line.cell}, α = {line.scale:g}, {rate})"


def _agreement(found: list[table.Line], settings: Settings) -> str:
    """Return in words how far the numbers are from the recorded ones."""
    if settings.iterations != ITERATIONS:
        return (
            f"These networks were trained for {settings.iterations:,} iterations a phase, not the "
            f"{ITERATIONS:,} of the recorded numbers, so that the two differ."
        )
    differences = np.abs([line.relative_difference for line in found])
    finite = differences[np.isfinite(differences)]
    diverged = [line for line in found if line.recorded == DIVERGED]
    same = sum(math.isnan(line.test_loss) for line in diverged)
    return (
        f"Of {finite.size} recorded numbers the largest relative difference is {finite.max():.1e}, "
        f"the median {np.median(finite):.1e}. Of {len(diverged)} networks that diverged in the "
        f"notebook {same} did here."
    )
