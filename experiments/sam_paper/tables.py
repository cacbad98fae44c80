"""The tables of the paper over these runs."""

import pathlib
from collections.abc import Sequence

from experiments.sam_paper.published import published_text
from experiments.sam_paper.results import PaperResults
from experiments.sam_paper.settings import Setting
from experiments.study.contrasts import Contrast, contrasts_csv, contrasts_grid
from experiments.study.grid import Grid
from experiments.study.outcomes import ERROR, LOSS
from experiments.study.pages import LinkedGrid, write_table
from experiments.study.results import number
from experiments.study.table import Cell, Column, Row, Table, make_table, means_over_seeds
from sam_jax.statistics import mean_and_stderr

DATA_SETS = ("CIFAR-10", "CIFAR-100")


def errors(results: PaperResults) -> list[Contrast]:
    """Return Table 1's rows: an augmentation and a length of training."""
    plan = results.plan
    longest = max(plan.config.lengths)
    rows = []
    for pair in plan.errors:
        epochs = plan.config.training.epochs * pair.sgd.times_epochs
        augmentation = pair.sgd.augmentation
        long = pair.sgd.times_epochs == longest and len(plan.config.lengths) > 1
        rows.append(
            Contrast(
                (augmentation, str(epochs)),
                {"augmentation": augmentation, "epochs": epochs},
                pair.sgd,
                pair.sam,
                tuple(published_text("errors", augmentation, name, long) for name in DATA_SETS),
            )
        )
    return rows


def noisy_labels(results: PaperResults) -> list[Contrast]:
    """Return the rows of the table of label noise: a share of wrong labels."""
    return [
        Contrast(
            (f"{pair.sgd.label_noise:.0%}",),
            {"label_noise": pair.sgd.label_noise, "rho": pair.sam.rho},
            pair.sgd,
            pair.sam,
            (published_text("noise", f"{pair.sgd.label_noise:g}", "CIFAR-10"),),
        )
        for pair in results.plan.noisy
    ]


def write_contrasts(
    folder: pathlib.Path,
    results: PaperResults,
    stem: str,
    rows: Sequence[Contrast],
    heads: Sequence[str],
    more: Sequence[str],
) -> LinkedGrid:
    """Write a table of SGD and SAM beside each other, by their errors."""
    grid = contrasts_grid(
        results, rows, ERROR, heads=heads, names=("SGD", "SAM"), more=more, caption="Test errors"
    )
    return write_table(folder, stem, contrasts_csv(results, rows, ERROR), grid)


def errors_text(results: PaperResults) -> str:
    """Return the first table as text."""
    grid = contrasts_grid(
        results, errors(results), ERROR, heads=("Augmentation", "Epochs"), names=("SGD", "SAM")
    )
    return grid.text()


def by_m(results: PaperResults) -> Table:
    """Return the errors and losses of SAM by m and rho."""
    arms = results.plan.by_m
    rows = [
        Row((str(arm.m), f"{arm.rho:g}"), {"arm": arm.name, "m": arm.m, "rho": arm.rho})
        for arm in arms
    ]
    return _table(results, "by_m", ("m", "ρ"), rows, arms)


def by_steps(results: PaperResults) -> tuple[Table, Grid]:
    """Return the errors and losses of SAM by the steps of its ascent, and the printed ones."""
    arms = results.plan.by_steps
    rows = [Row((str(arm.steps),), {"arm": arm.name, "steps": arm.steps}) for arm in arms]
    table = _table(results, "by_steps", ("ascent steps",), rows, arms)
    grid = table.grid()
    printed = [
        [*line, *(published_text("steps", str(arm.steps), name) for name in DATA_SETS)]
        for arm, line in zip(arms, grid.rows, strict=True)
    ]
    heads = [*grid.heads, *(f"{name} / %" for name in DATA_SETS)]
    groups = [*grid.groups, *["Published"] * len(DATA_SETS)]
    return table, grid._replace(heads=heads, rows=printed, groups=groups)


def spectra(results: PaperResults) -> Table:
    """Return the largest eigenvalue and its ratio to the last one, by arm and epoch."""
    columns = (
        Column("Top λ", "nats", "top_eigenvalue", best="min"),
        Column("Top λ", "÷ last λ", "ratio", best="min"),
    )
    rows: list[Row] = []
    cells: tuple[list[Cell], list[Cell]] = ([], [])
    for arm, label in zip(results.plan.spectra, ("SGD", "SAM"), strict=True):
        found = results.spectrum("top_eigenvalues", arm)
        for epoch in dict.fromkeys(record["epoch"] for record in found):
            of_epoch = [record for record in found if record["epoch"] == epoch]
            rows.append(Row((label, str(epoch)), {"arm": arm.name, "epoch": epoch}))
            for column, into in zip(columns, cells, strict=True):
                values = [number(record[column.quantity]) for record in of_epoch]
                into.append(Cell(*mean_and_stderr(values)))
    heads, seeds = ("Trained with", "epoch"), len(results.seeds)
    return make_table("spectra", heads, rows, columns, cells, seeds=seeds)


def _table(
    results: PaperResults,
    stem: str,
    heads: Sequence[str],
    rows: Sequence[Row],
    arms: Sequence[Setting],
) -> Table:
    columns = (ERROR, LOSS)
    cells = [means_over_seeds(results, column, arms) for column in columns]
    return make_table(stem, heads, rows, columns, cells, seeds=len(results.seeds))
