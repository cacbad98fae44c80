"""The report: errors at the end and at the best epoch, and the curves of both sets."""

import dataclasses
import pathlib

import numpy as np

from experiments.study import findings
from experiments.study.arms import seed_folder
from experiments.study.contrasts import Contrast, contrasts_csv, contrasts_grid
from experiments.study.figures import ReportFigure, curve_over_seeds
from experiments.study.grid import Grid
from experiments.study.outcomes import ERROR, TRAINING, read_measured
from experiments.study.pages import LinkedGrid, Section, write_report, write_table
from experiments.study.results import Results, number
from experiments.study.study import Settings
from experiments.study.table import Column
from experiments.understanding.label_noise.arms import Noisy, Plan
from sam_jax import plotting
from sam_jax.runs import records

TITLE = "Wrong labels: report of these runs"
INTRODUCTION = (
    "ERM and SAM on the same training set, with right labels and with a share of wrong ones. The "
    "test labels are right. Training errors are against the labels that were trained on.",
    "The paper, Figure 12 (read off the figure, ± 1): with 60 % wrong labels on CIFAR-10 SAM fits "
    "all but 9 % of them in the end, and ERM all; their test errors rise to 43 and 49 %. Stopped "
    "early, they are 10 and 20 %.",
)
BEST = Column(
    "Best test error", "%", "best_test_error", {"measure": TRAINING}, best="min", scale=100.0
)
CAPTION = (
    "Test error (above) and training error (below) by epoch; bands: standard error over seeds. "
    "The best epoch is chosen on the test set and is a bound for early stopping: what a validation "
    "set chooses does no better on average."
)


@dataclasses.dataclass(frozen=True)
class Curves(Results[Noisy]):
    """The outcomes, and the errors of every epoch: (arm, quantity) -> [seeds, epochs] in %."""

    history: dict[tuple[Noisy, str], np.ndarray]


def read_results(workdir: pathlib.Path | str, plan: Plan) -> Curves:
    """Return the outcomes and curves of a plan's arms.

    Raises:
      ValueError: there is no record at all.
    """
    found = read_measured(workdir, plan)
    history = {}
    for arm in plan.arms:
        lines = [
            records.read(seed_folder(workdir, arm, seed) / "metrics.jsonl") for seed in plan.seeds
        ]
        epochs = min(map(len, lines))
        for name in ("train", "test"):
            history[arm, name] = np.array(
                [[100 * (1 - number(r[f"{name}_accuracy"])) for r in run[:epochs]] for run in lines]
            )
    return Curves(found.arms, found.seeds, found.records, history)


def rows(results: Curves) -> list[Contrast]:
    """Return a row a share of wrong labels and radius: SAM beside ERM."""
    erm = {arm.label_noise: arm for arm in results.arms if not arm.rho}
    return [
        Contrast(
            (f"{arm.label_noise:.0%}", f"{arm.rho:g}"),
            {"label_noise": arm.label_noise, "rho": arm.rho},
            erm[arm.label_noise],
            arm,
        )
        for arm in results.arms
        if arm.rho
    ]


def errors_text(results: Curves) -> str:
    """Return the errors at the end as text."""
    return _grid(results, ERROR).text()


def curves_figure(results: Curves) -> ReportFigure:
    """Return the errors by epoch, a column of panels a share of wrong labels."""
    shares = list(dict.fromkeys(arm.label_noise for arm in results.arms))
    methods = list(dict.fromkeys(arm.method for arm in results.arms))
    looks = dict(zip(methods, plotting.styles(methods), strict=True))
    figure, panels = plotting.small_multiples(2 * len(shares), len(shares), panel=(3.8, 2.6))
    shown = [(name, share) for name in ("test", "train") for share in shares]
    for axes, (name, share) in zip(panels, shown, strict=True):
        curves = []
        for arm in results.arms:
            if arm.label_noise == share:
                errors = results.history[arm, name]
                epochs = np.arange(1, errors.shape[1] + 1)
                look = looks[arm.method]
                curves.append(curve_over_seeds(arm.method, epochs, errors, look))
        plotting.curves_with_bands(axes, curves, markers=0, scale="linear")
        words = {"test": "Test error / %", "train": "Training error / %"}[name]
        plotting.label_axes(axes, f"{share:.0%} wrong labels", "Epoch", words)
    plotting.shared_legend(figure, width=1.4)
    return ReportFigure("Figure 1", "label_noise", CAPTION, figure, 1)


def _words(row: Contrast) -> str:
    """Return what tells a comparison from others, in words."""
    return f"{row.heads[0]} wrong labels, ρ = {row.heads[1]}"


def report(results: Curves, folder: pathlib.Path, settings: Settings) -> pathlib.Path:
    """Write the tables, the figure and the page that shows them, and return its path."""
    tested = findings.better_than(results, ERROR, findings.pairs_of(rows(results)))
    found = findings.of_contrasts(results, rows(results), ERROR, ("ERM", "SAM"), _words)
    opening = findings.opening(folder, found, tested)
    sections = [
        Section("At the end of training", grids=[_write(folder, results, "errors", ERROR)]),
        Section("At the best epoch", grids=[_write(folder, results, "best_errors", BEST)]),
        Section("Curves", figures=[curves_figure(results)]),
    ]
    return write_report(folder, TITLE, INTRODUCTION, sections, settings, opening=opening)


def _grid(results: Curves, column: Column) -> Grid:
    heads, names = ("Wrong labels", "ρ"), ("ERM", "SAM")
    return contrasts_grid(results, rows(results), column, heads=heads, names=names)


def _write(folder: pathlib.Path, results: Curves, stem: str, column: Column) -> LinkedGrid:
    csv = contrasts_csv(results, rows(results), column)
    return write_table(folder, stem, csv, _grid(results, column))
