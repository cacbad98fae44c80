"""The report: errors and sharpness by m and radius, and the paper's Figure 1."""

import pathlib

from matplotlib.axes import Axes

from experiments.study import findings
from experiments.study.comparison import against_first, compare_arms
from experiments.study.figures import ReportFigure, draw_cells, draw_reference
from experiments.study.outcomes import ERROR, LOSS
from experiments.study.pages import Section, write_report, write_table
from experiments.study.results import Results
from experiments.study.study import Settings
from experiments.study.table import (
    Column,
    Row,
    Table,
    instrument_column,
    make_table,
    means_over_seeds,
)
from experiments.understanding.m_sharpness.arms import Perturbed
from sam_jax import plotting

TITLE = "m-sharpness: report of these runs"
INTRODUCTION = (
    "Training without perturbation (ERM), with random perturbations, and with SAM whose ascent is "
    "shared by m examples. n-SAM shares it over the whole training set.",
    "The paper, Figure 1: for ResNet-18 on CIFAR-10 n-SAM and random perturbations stay at ERM's "
    "error of about 5.15 %, and 128-SAM falls to about 4.3 % at ρ = 0.2. For ResNet-34 on "
    "CIFAR-100 128-SAM falls from about 22.8 % to about 20.2 % (read off the figure, ± 0.1).",
)
CAPTION = (
    "Left: test error against the radius ρ of the training. Right: adversarial sharpness at the "
    "m of the training, and of ERM and of random perturbations at the smallest m, at ρ = {rho:g}. "
    "Bars: standard errors over seeds. Dashed: ERM."
)


def sharpness_columns(results: Results) -> list[Column]:
    """Return the columns of the sharpness, one for each m and radius that was measured."""
    found = results.select(measure="adversarial_sharpness")
    settings = sorted({(record["m"], record["measured_rho"]) for record in found})
    return [
        instrument_column(
            "adversarial_sharpness",
            "sharpness",
            {"m": m, "measured_rho": rho},
            group="Sharpness / nats",
            name=f"m = {m}, ρ = {rho:g}",
        )
        for m, rho in settings
    ]


def errors_table(results: Results) -> Table:
    """Return errors, losses and the sharpness at every m, a row an arm."""
    columns = [ERROR, LOSS, *sharpness_columns(results)]
    return make_table(
        "m_sharpness",
        ("Trained with",),
        [Row((arm.label,), {"arm": arm.name, **arm._asdict()}) for arm in results.arms],
        columns,
        [means_over_seeds(results, column) for column in columns],
        seeds=len(results.seeds),
    )


def figure_1(results: Results) -> ReportFigure:
    """Return the test error and the sharpness at matching m, against the radius of the training."""
    figure, (left, right) = plotting.small_multiples(2, 2, panel=(4.4, 3.4))
    columns = sharpness_columns(results)
    measured = max(column.where["measured_rho"] for column in columns)
    matching = {
        column.where["m"]: column for column in columns if column.where["measured_rho"] == measured
    }
    series = list(dict.fromkeys(arm.series for arm in results.arms))
    looks = dict(zip(series, plotting.styles(series), strict=True))
    for name in series:
        arms = [arm for arm in results.arms if arm.series == name]
        _draw(left, results, ERROR, arms, looks[name])
        _draw(right, results, matching[arms[0].m or min(matching)], arms, looks[name])
    rhos = [arm.rho for arm in results.arms if arm.rho]
    for axes, words in ((left, "Test error / %"), (right, "Sharpness / nats")):
        plotting.set_scale(axes, "x", rhos)
        plotting.label_axes(axes, "", "ρ of the training", words)
    plotting.shared_legend(figure, width=1.3)
    return ReportFigure("Figure 1", "m_sharpness", CAPTION.format(rho=measured), figure, 1)


def report(results: Results, folder: pathlib.Path, settings: Settings) -> pathlib.Path:
    """Write the table, the figure and the page that shows them, and return its path."""
    table = errors_table(results)
    pairs = compare_arms(results, [ERROR], results.arms)
    erm, *others = results.arms
    tested = findings.better_than(results, ERROR, [(arm.label, arm, erm) for arm in others])
    opening = findings.opening(folder, findings.of_arms(results, ERROR), tested)
    sections = [
        Section(
            "Errors and sharpness",
            grids=[write_table(folder, table.stem, table.csv(), table.grid())],
            figures=[figure_1(results)],
        ),
        Section(
            "Against ERM",
            grids=[
                write_table(folder, "against_erm", table.csv(), against_first(pairs, table, [0]))
            ],
        ),
    ]
    return write_report(folder, TITLE, INTRODUCTION, sections, settings, opening=opening)


def _draw(
    axes: Axes,
    results: Results,
    column: Column,
    arms: list[Perturbed],
    look: plotting.Style,
) -> None:
    cells = means_over_seeds(results, column, arms)
    if arms[0].kind == "erm":
        draw_reference(axes, cells[0].mean, arms[0].series)
    else:
        draw_cells(axes, [arm.rho for arm in arms], cells, look, arms[0].series)
