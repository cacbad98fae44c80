"""The report: errors before and after fine-tuning, and the lines between."""

import dataclasses
import pathlib

import numpy as np

from experiments.study import findings
from experiments.study.contrasts import Contrast, contrasts_csv, contrasts_grid
from experiments.study.figures import ReportFigure, curve_over_seeds
from experiments.study.grid import Grid
from experiments.study.outcomes import ERROR, read_measured
from experiments.study.pages import Section, write_report, write_table
from experiments.study.results import Results
from experiments.study.study import Settings
from experiments.understanding.fine_tuning.arms import Plan, Tuned, starts_from
from experiments.understanding.fine_tuning.lines import lines_of, positions
from sam_jax import plotting
from sam_jax.metrics.landscape.grids import LossLine

TITLE = "Fine-tuning between ERM and SAM: report of these runs"
INTRODUCTION = (
    "A model trained without perturbation (ERM) or with SAM is trained on for a few epochs with "
    "either method; the learning rate starts anew, at a lower value.",
    "The paper, Figure 9 (read off the figure, ± 0.1): after 100 epochs from ERM to SAM the test "
    "error of ResNet-18 on CIFAR-10 has fallen from 4.7 to 4.2 %, and that of ResNet-34 on "
    "CIFAR-100 from 20.8 to 19.8 %. SAM's own are 3.9 and 19.0 %, and from SAM to ERM they stay. "
    "Along the line from a SAM model to an ERM model its notebook recorded for three "
    "seeds test errors of 4.30, 3.71 and 4.59 % at the start, 5.27, 4.59 and 4.39 % at the end.",
)
CAPTION = (
    "Losses along the line from the start (0) to the end (1) of the fine-tuning, batch norm "
    "statistics computed again at every point; bands: standard error over seeds."
)


@dataclasses.dataclass(frozen=True)
class Tunings(Results[Tuned]):
    """The outcomes, and the lines of every fine-tuned arm, one a seed."""

    plan: Plan
    lines: dict[Tuned, list[LossLine]]


def read_results(workdir: pathlib.Path | str, plan: Plan) -> Tunings:
    """Return the outcomes and lines of a plan's arms.

    Raises:
      ValueError: there is no record at all.
    """
    found = read_measured(workdir, plan)
    lines = {arm: lines_of(workdir, plan, arm) for arm in plan.arms if arm.start}
    return Tunings(found.arms, found.seeds, found.records, plan, lines)


def rows(results: Tunings) -> list[Contrast]:
    """Return a row a fine-tuned arm: it beside its start."""
    return [
        Contrast((arm.label,), {"arm": arm.name, "start": start.name}, start, arm)
        for arm in results.arms
        if (start := starts_from(results.plan, arm))
    ]


def errors_grid(results: Tunings) -> Grid:
    """Return the test errors before and after fine-tuning."""
    heads, names = ("Fine-tuning",), ("start", "end")
    return contrasts_grid(results, rows(results), ERROR, heads=heads, names=names)


def lines_figure(results: Tunings) -> ReportFigure:
    """Return training and test losses along the lines, a panel a fine-tuned arm."""
    at = positions(results.plan)
    figure, panels = plotting.small_multiples(len(results.lines), 2, panel=(3.8, 2.8))
    looks = plotting.styles(["train", "test"])
    for axes, (arm, lines) in zip(panels, results.lines.items(), strict=True):
        curves = []
        for name, look in zip(("train", "test"), looks, strict=True):
            losses = np.array([line.values[f"{name}_loss"] for line in lines])
            words = {"train": "training loss", "test": "test loss"}[name]
            curves.append(curve_over_seeds(words, at, losses, look))
        plotting.curves_with_bands(axes, curves)
        for place in (0.0, 1.0):
            axes.axvline(place, color=plotting.GREY, linewidth=0.8, linestyle="--", zorder=1)
        plotting.label_axes(axes, arm.label, "Position", "Loss / nats")
    plotting.shared_legend(figure, width=1.4)
    return ReportFigure("Figure 1", "lines", CAPTION, figure, 1)


def report(results: Tunings, folder: pathlib.Path, settings: Settings) -> pathlib.Path:
    """Write the table, the figure and the page that shows them, and return its path."""
    csv = contrasts_csv(results, rows(results), ERROR)
    table = write_table(folder, "errors", csv, errors_grid(results))
    tested = findings.better_than(results, ERROR, findings.pairs_of(rows(results)))
    found = findings.of_contrasts(results, rows(results), ERROR, ("the start", "the end"))
    opening = findings.opening(folder, found, tested)
    sections = [
        Section("Test errors", grids=[table]),
        Section("Lines from start to end", figures=[lines_figure(results)]),
    ]
    return write_report(folder, TITLE, INTRODUCTION, sections, settings, opening=opening)
