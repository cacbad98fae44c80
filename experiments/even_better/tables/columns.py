"""The columns of the study's tables: one for every setting under which a measure was taken."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.even_better.arms import OPTIMISERS, Model, longer
from experiments.even_better.read.results import StudyResults, settings_of
from experiments.study.table import (
    Cell,
    Column,
    Row,
    Table,
    instrument_column,
    make_table,
    means_over_seeds,
)
from sam_jax.measuring import registry

TEST_LOSS = instrument_column("evaluation", "test_loss", group="Loss", name="test")
TRAIN_LOSS = instrument_column("evaluation", "train_loss", group="Loss", name="train")
_CSV = {  # fields of a cell's line and their headings
    **{name: name for name in ("table", "preset", "model", "optimiser", "batch", "batch_size")},
    **{name: name for name in ("rho", "times_epochs", "quantity", "distribution", "distance")},
    **{name: name for name in ("measured_batch", "m", "measured_rho")},
}
_CELL = {"mean": "value", "stderr": "stderr", "n": "n"}


def columns_of(
    results: StudyResults, measure: str, preset: str, quantity: str
) -> tuple[Column, ...]:
    """Return one column for every setting under which a measure was taken."""
    columns = []
    for setting in settings_of(results, measure, preset):
        if measure == "asymmetry_factor":
            group, name = f"Ω, {preset}", law(setting)
        elif "measured_rho" in setting:
            group, name = law(setting), radius(setting)
        else:
            group, name = registry.by_name()[measure].title, law(setting)
        where = {"preset": preset, **setting}
        columns.append(instrument_column(measure, quantity, where, group=group, name=name))
    return tuple(columns)


def law(setting: Mapping[str, Any]) -> str:
    """Describe a setting but for the radius of a table's column.

    >>> law({"distribution": "uniform", "distance": 5.0}), law({"m": 128, "rise": 0.1})
    ('uniform, μ = 5', 'm = 128, rise 0.1')
    >>> law({"norm": "linf", "adaptive": True, "m": 8}), law({"norm": "l2", "adaptive": False})
    ('m = 8, norm linf, adaptive', 'norm l2')
    """
    parts = [str(setting["distribution"]).replace("_", " ")] if setting.get("distribution") else []
    if setting.get("normalisation"):
        parts.append(f"by {setting['normalisation']}")
    if setting.get("distance") is not None:
        parts.append(f"μ = {setting['distance']:g}")
    if setting.get("m") is not None:
        parts.insert(0, f"m = {setting['m']}")
    parts += [_plain(name, value) for name, value in setting.items() if _shown(name, value)]
    return ", ".join(parts)


def radius(setting: Mapping[str, Any]) -> str:
    """Describe the size of a perturbation: σ of every weight, or ρ of all together.

    >>> radius({"distribution": "gaussian", "measured_rho": 0.5}), radius({"measured_rho": 0.1})
    ('σ = 0.5', 'ρ = 0.1')
    """
    symbol = "σ" if setting.get("distribution") == "gaussian" else "ρ"
    return f"{symbol} = {setting['measured_rho']:g}"


def column_setting(column: Column) -> str:
    """Describe the settings of a column's measurement, such as "m = 128, ρ = 0.1"."""
    has_radius = column.where.get("measured_rho") is not None
    return law(column.where) + (f", {radius(column.where)}" if has_radius else "")


def column_means(results: StudyResults, column: Column) -> list[Cell]:
    """Return mean and standard error over seeds of every model that is compared."""
    return means_over_seeds(results, column, results.models)


def study_table(
    results: StudyResults,
    number: int | str,
    preset: str | None,
    columns: Sequence[Column],
    models: Sequence[Model],
) -> Table:
    """Return a table of some columns and models, under the number that the study gives it."""
    cells = [means_over_seeds(results, column, models) for column in columns]
    rows = []
    for model in models:
        fields = model._asdict()
        about = {"table": number, "model": fields.pop("name"), **fields}
        rows.append(Row(_row_heads(model), about))
    return make_table(
        f"table_{number}" + (f"_{preset}" if preset else ""),
        ("Optimiser", "Batch", "ρ"),
        rows,
        columns,
        cells,
        seeds=max((cell.n for column in cells for cell in column), default=0),
        caption=f"These runs: {preset} preset" if preset else "These runs",
    )


def csv_text_of(table: Table) -> str:
    """Return a table in long form; what else tells two of its columns apart has fields too."""
    settings = {name: name for column in table.columns for name in column.where}
    more = {name: name for name in settings if name != "measure"}
    return table.csv(_CSV | more | _CELL)


def repeated_columns(table: Table) -> bool:
    """Return whether columns of one rho and different m hold the very same numbers."""
    measured = [
        (column.where["measured_rho"], repr(table.cells(index)))  # repr: NaN equals NaN
        for index, column in enumerate(table.columns)
        if "m" in column.where and any(cell.n for cell in table.cells(index))
    ]
    return len(set(measured)) < len(measured)


def _shown(name: str, value: Any) -> bool:
    """Say whether `law` names a field as it is: it has no word of its own, here or elsewhere."""
    own = ("distribution", "normalisation", "distance", "m")
    elsewhere = ("measure", "preset", "measured_batch", "measured_rho")
    return value is not None and value is not False and name not in own + elsewhere


def _plain(name: str, value: Any) -> str:
    if value is True:
        return name
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _row_heads(model: Model) -> tuple[str, str, str]:
    """Return optimiser, batch size and rho of a row as text."""
    rho = "—" if model.optimiser == "sgd" else f"{model.rho:g}"
    name = OPTIMISERS[model.optimiser] + longer(model.times_epochs)
    return name, str(model.batch_size), rho
