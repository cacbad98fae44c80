"""Tables 1, 2, 5, 6 and 7 of the study as means and standard errors over seeds."""

import math
from typing import Any, NamedTuple

import numpy as np

from experiments.even_better.arms import Model
from experiments.even_better.read.results import PRESETS, Results, number, select, settings_of
from sam_jax.metrics.statistics import MeanAndStderr, mean_and_stderr

TABLE_1_TITLE = "Losses, accuracy and asymmetry factor Ω"


class Column(NamedTuple):
    """One quantity: its heading on two lines, where it is found, and which extreme is best."""

    group: str
    name: str
    quantity: str
    where: dict[str, Any]
    best: str = "min"  # "max", or "none" where no end of the scale is better
    scale: float = 1.0
    floor: float = -math.inf  # a mean below it is out of the quantity's range and never the best


class Table(NamedTuple):
    """A table; `cells[i][j]` belongs to `models[i]` and `columns[j]`."""

    number: int | str  # "A" for what the study has no table of
    preset: str | None
    title: str
    models: tuple[Model, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[MeanAndStderr, ...], ...]

    @property
    def stem(self) -> str:
        """Name of the files of this table."""
        return f"table_{self.number}" + (f"_{self.preset}" if self.preset else "")


class Kind(NamedTuple):
    """Which measure a table of perturbed models shows."""

    measure: str
    quantity: str
    title: str


KINDS = {
    2: Kind("adversarial_sharpness", "perturbed_loss", "Loss at the adversarially perturbed point"),
    5: Kind("adversarial_sharpness", "sharpness", "Adversarial sharpness"),
    6: Kind("average_sharpness", "sharpness", "Average sharpness"),
    7: Kind("average_sharpness", "perturbed_loss", "Mean loss at randomly perturbed points"),
}
# What tells two columns of a measure apart.
SETTINGS = {
    "adversarial_sharpness": ("measured_batch", "m", "measured_rho"),
    "average_sharpness": ("distribution", "measured_batch", "m", "measured_rho"),
    "asymmetry_factor": ("distribution", "distance"),
    "loss_curve": ("distribution",),
    "asymmetry_index": ("distribution", "normalisation", "distance"),
    "level_set_widths": ("distribution", "normalisation", "rise"),
    "hessian": (),
}
BEYOND_TITLE = "Asymmetry relative to the weights, and curvature"


def _beyond(group: str, name: str, measure: str, quantity: str) -> Column:
    where = {"measure": measure, "preset": "sound"}
    return Column(group, name, quantity, where, best="none")


# What the study did not measure: asymmetry relative to the weights, and the Hessian.
BEYOND = (
    _beyond("Asymmetry index", "1 − mean |a|", "asymmetry_index", "index"),
    _beyond("Asymmetry index", "odd part", "asymmetry_index", "mean_absolute_odd"),
    _beyond("Asymmetry index", "even part", "asymmetry_index", "mean_even"),
    _beyond("Level sets", "min / max", "level_set_widths", "factor"),
    _beyond("Level sets", "width", "level_set_widths", "mean_width"),
    _beyond("Hessian", "top λ", "hessian", "top_eigenvalue"),
    _beyond("Hessian", "bottom λ", "hessian", "bottom_eigenvalue"),
    _beyond("Hessian", "trace", "hessian", "trace"),
)


def columns_of(results: Results, measure: str, preset: str, quantity: str) -> tuple[Column, ...]:
    """Return one column for every setting under which a measure was taken."""
    columns = []
    for setting in settings_of(results, measure, preset, SETTINGS[measure]):
        where = {"measure": measure, "preset": preset, **setting}
        if measure == "asymmetry_factor":
            group, name = f"Ω, {preset}", law(setting)
        elif "measured_rho" in setting:
            group, name = law(setting), radius(setting)
        else:
            group, name = measure.replace("_", " "), law(setting)
        floor = 0.0 if measure == "asymmetry_factor" else -math.inf
        columns.append(Column(group, name, quantity, where, floor=floor))
    return tuple(columns)


def law(setting: dict[str, Any]) -> str:
    """Describe a setting but for the radius of a table's column.

    >>> law({"distribution": "uniform", "distance": 5.0}), law({"m": 128})
    ('uniform, μ = 5', 'm = 128')
    """
    parts = [str(setting["distribution"]).replace("_", " ")] if setting.get("distribution") else []
    if setting.get("normalisation"):
        parts.append(f"by {setting['normalisation']}")
    if setting.get("distance") is not None:
        parts.append(f"μ = {setting['distance']:g}")
    if setting.get("rise") is not None:
        parts.append(f"rise {setting['rise']:g}")
    if setting.get("m") is not None:
        parts.insert(0, f"m = {setting['m']}")
    return ", ".join(parts)


def radius(setting: dict[str, Any]) -> str:
    """Describe the size of a perturbation: σ of every weight, or ρ of all together.

    >>> radius({"distribution": "gaussian", "measured_rho": 0.5}), radius({"measured_rho": 0.1})
    ('σ = 0.5', 'ρ = 0.1')
    """
    symbol = "σ" if setting.get("distribution") == "gaussian" else "ρ"
    return f"{symbol} = {setting['measured_rho']:g}"


def table_1(results: Results) -> Table:
    """Return losses, accuracy (per cent) and asymmetry factors, those of the sound preset first."""
    evaluation = {"measure": "evaluation"}
    columns = (
        Column("Loss", "test", "test_loss", evaluation),
        Column("Loss", "train", "train_loss", evaluation),
        Column("Accuracy", "test / %", "test_accuracy", evaluation, best="max", scale=100.0),
    )
    for preset in PRESETS:
        columns += columns_of(results, "asymmetry_factor", preset, "factor")
    return _filled(results, Table(1, None, TABLE_1_TITLE, results.all_models, columns, ()))


def sharpness_table(results: Results, number: int, preset: str) -> Table:
    """Return Table 2, 5, 6 or 7; without columns where nothing was measured."""
    kind = KINDS[number]
    columns = columns_of(results, kind.measure, preset, kind.quantity)
    return _filled(results, Table(number, preset, kind.title, results.models, columns, ()))


def beyond_table(results: Results) -> Table:
    """Return what the study did not measure; without columns where nothing was measured."""
    columns = tuple(column for column in BEYOND if select(results, **column.where))
    return _filled(results, Table("A", "sound", BEYOND_TITLE, results.all_models, columns, ()))


def all_tables(results: Results) -> list[Table]:
    """Return every table that has something to show, the sound preset before the published."""
    tables = [sharpness_table(results, n, preset) for n in sorted(KINDS) for preset in PRESETS]
    tables.append(beyond_table(results))
    return [table_1(results), *(table for table in tables if table.columns)]


def column_means(
    results: Results, column: Column, models: tuple[Model, ...] | None = None
) -> list[MeanAndStderr]:
    """Return mean and standard error over seeds for every model; None: those compared."""
    return [mean_and_stderr(row) for row in column_by_seed(results, column, models)]


def column_by_seed(
    results: Results, column: Column, models: tuple[Model, ...] | None = None
) -> np.ndarray:
    """Return a column's values, shape [models, seeds]; NaN where it was not measured."""
    models = results.models if models is None else models
    values = np.full((len(models), len(results.seeds)), np.nan)
    rows = {model.name: row for row, model in enumerate(models)}
    for record in select(results, **column.where):
        if record["model"] in rows:
            place = rows[record["model"]], results.seeds.index(record["seed"])
            values[place] = column.scale * number(record.get(column.quantity))
    return values


def best_rows(table: Table, column: int) -> set[int]:
    """Return the rows with the best mean that is finite and in range, several in a tie."""
    means = {i: row[column].mean for i, row in enumerate(table.cells)}
    floor = table.columns[column].floor
    means = {i: mean for i, mean in means.items() if math.isfinite(mean) and mean >= floor}
    if not means or table.columns[column].best == "none":
        return set()
    best = (max if table.columns[column].best == "max" else min)(means.values())
    return {i for i, mean in means.items() if mean == best}


def repeated_columns(table: Table) -> bool:
    """Return whether columns of one rho and different m hold the very same numbers."""
    measured = [
        (column.where["measured_rho"], repr(cells))  # repr: NaN equals NaN
        for column, cells in zip(table.columns, zip(*table.cells, strict=True), strict=True)
        if "m" in column.where and any(cell.n for cell in cells)
    ]
    return len(set(measured)) < len(measured)


def _filled(results: Results, table: Table) -> Table:
    columns = [column_means(results, column, table.models) for column in table.columns]
    return table._replace(cells=tuple(zip(*columns, strict=True)))
