"""The numbers that a claim is tested on: the study's corrected tables, or these runs."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.even_better.arms import Model
from experiments.even_better.paper.published import (
    BATCH_SIZES,
    MEASURED_AS,
    published_cells,
    published_values,
)
from experiments.even_better.paper.second_runs import LONGER_SGD, SECOND_RUNS
from experiments.even_better.read.connections import low_shares, relative_rises
from experiments.even_better.read.planes import basin_share
from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.columns import columns_of
from experiments.study.evidence import Values
from experiments.study.results import number
from experiments.study.table import Column, instrument_column


class Quantity(NamedTuple):
    """A column of the study's tables, by the names of published.csv."""

    name: str
    measured_batch: str | None = None
    measured_rho: float | None = None


class ModelKey(NamedTuple):
    """A model as the study tells them apart."""

    optimiser: str
    batch: str
    rho: float


class Connected(NamedTuple):
    """A pair of models, and how much the test loss rises between them."""

    label: str
    curve: np.ndarray  # [seeds]: `relative_rises` along the trained curve
    line: np.ndarray  # the same along the straight line
    low_share: np.ndarray  # [seeds]: `low_shares` of the trained curve


class Evidence(NamedTuple):
    """Models, and any quantity of them as an array of shape [models, seeds]."""

    name: str
    models: tuple[ModelKey, ...]
    batch_sizes: dict[str, int]  # of "small" and "large"
    seeds: int  # 0 where the models have no common seeds
    values: Values  # of a Quantity; NaN where it was not measured
    # SGD for twice the epochs, [1, seeds]; without a row where there is none.
    longer: Values = lambda quantity: np.empty((0, 0))
    connections: tuple[Connected, ...] = ()
    second_runs: Mapping[ModelKey, Mapping[str, float]] = {}  # model -> quantity, without seeds
    average_radius: str = "σ"  # of average measures: the deviation σ, or the norm ρ of it all

    @property
    def outcome(self) -> Quantity:
        """The test loss, with which other quantities are correlated."""
        return Quantity("test_loss")

    def all_runs(self, rows: Sequence[int], quantity: Quantity) -> np.ndarray:
        """Return the values of every run of some models, second runs included."""
        first = self.values(quantity)[list(rows), 0]
        again = (self.second_runs.get(self.models[row], {}) for row in rows)
        more = [found[quantity.name] for found in again if quantity.name in found]
        return np.array([*first, *more])

    def group(self, optimiser: str, batch: str, rho: float | None = None) -> list[int]:
        """Return the rows of the models with this optimiser, batch and, if given, rho."""
        return [
            index
            for index, model in enumerate(self.models)
            if model[:2] == (optimiser, batch) and rho in (None, model.rho)
        ]


def study(printed: bool = False) -> Evidence:
    """Return the study's tables, corrected or as printed: ten models, a run each, and the rest."""
    models = tuple(ModelKey(*row) for row in dict.fromkeys(c.row for c in published_cells()))

    def values(quantity: Quantity) -> np.ndarray:
        found = published_values(*quantity, printed=printed)
        return (found if found.size else np.full(len(models), np.nan))[:, None]

    def longer(quantity: Quantity) -> np.ndarray:
        return np.array([[LONGER_SGD[quantity.name]]] if quantity.name in LONGER_SGD else [[]])

    second = {ModelKey(*model): values for model, values in SECOND_RUNS.items()}
    return Evidence(
        "Study", models, dict(BATCH_SIZES), 0, values, longer=longer, second_runs=second
    )


def runs(results: StudyResults, preset: str) -> Evidence:
    """Return these runs, measured with one preset ("sound" or "published").

    Args:
      results: the study's results.
      preset: the preset; losses, accuracies, planes and curves do not depend on it.
    """
    models = tuple(ModelKey(m.optimiser, m.batch, m.rho) for m in results.models)
    sizes = {model.batch: model.batch_size for model in results.models}
    longer = tuple(model for model in results.longer if model.optimiser == "sgd")[:1]
    connected = [
        Connected(
            label=found[0].label,
            curve=relative_rises(found, "curve"),
            line=relative_rises(found, "line"),
            low_share=low_shares(found),
        )
        for found in results.pairs
    ]
    return Evidence(
        f"These runs, {preset} preset",
        models,
        sizes,
        len(results.seeds),
        values=functools.partial(_run_values, results, results.models, preset),
        longer=functools.partial(_run_values, results, longer, preset),
        connections=tuple(connected),
        average_radius="ρ" if preset == "sound" else "σ",
    )


def run_column(results: StudyResults, preset: str, quantity: Quantity) -> Column | None:
    """Return the column of these runs' tables that shows a quantity of the study, or None.

    Of several settings, such as asymmetry factors at two distances, it is the first.
    """
    if quantity.name in ("test_loss", "train_loss", "test_accuracy"):
        scale = 100.0 if quantity.name == "test_accuracy" else 1.0
        return instrument_column("evaluation", quantity.name, scale=scale)
    measure, field = MEASURED_AS[quantity.name]
    for column in columns_of(results, measure, preset, field):
        setting = column.where.get("measured_batch"), column.where.get("measured_rho")
        if setting == quantity[1:]:
            return column
    return None


def _run_values(
    results: StudyResults, models: tuple[Model, ...], preset: str, quantity: Quantity
) -> np.ndarray:
    found = np.full((len(models), len(results.seeds)), np.nan)
    if quantity.name not in ("curve_rise", "basin_share"):
        column = run_column(results, preset, quantity)
        if column is None:
            return found
        return results.by_seed(column.quantity, column.where, arms=models, scale=column.scale)
    for row, model in enumerate(models):
        for place, seed in enumerate(results.seeds):
            if quantity.name == "basin_share" and (model.name, seed) in results.planes:
                found[row, place] = basin_share(results.planes[model.name, seed])
            elif quantity.name == "curve_rise":
                where = {"arm": model.name, "seed": seed, "preset": preset}
                for record in results.select(measure="loss_curve", **where):
                    found[row, place] = _rise(record)
    return found


def _rise(record: Mapping[str, Any]) -> float:
    # The mean loss at the curve's two ends minus the loss of the minimum.
    losses = [number(loss) for loss in record["losses"]]
    return (losses[0] + losses[-1]) / 2 - losses[record["distances"].index(0.0)]
