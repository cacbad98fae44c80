"""What the runs left in a work directory: models, records, per-epoch histories and planes.

`workdir/models/NAME/seed_S/` holds `records.jsonl`, `metrics.jsonl` and `plane.jsonl`, one JSON
object a line. Where a measurement was repeated, the last line holds.
"""

import math
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.even_better.arms import BATCHES, OPTIMISERS, Model
from sam_jax.metrics.landscape import LossPlane
from sam_jax.training.landscapes import is_whole, read_plane
from sam_jax.training.records import Record, read

PRESETS = ("sound", "published")
IDENTITY = (
    *("model", "seed", "measure", "preset"),
    *("measured_batch", "m", "measured_rho", "distribution", "distance"),
)


class Results(NamedTuple):
    """Everything that was read."""

    models: tuple[Model, ...]  # those that are compared, in the order of Table 1
    longer: tuple[Model, ...]  # those that were trained for more epochs
    seeds: tuple[int, ...]
    records: tuple[Record, ...]
    histories: dict[tuple[str, int], tuple[Record, ...]]  # by (model name, seed)
    planes: dict[tuple[str, int], LossPlane]  # likewise

    @property
    def all_models(self) -> tuple[Model, ...]:
        """All models, each optimiser and batch together."""
        return tuple(sorted(self.models + self.longer, key=_table_1_order))


def read_results(
    workdir: pathlib.Path | str, runs: Collection[tuple[str, int]] | None = None
) -> Results:
    """Read every `records.jsonl`, `metrics.jsonl` and finished `plane.jsonl` of the models.

    Args:
      workdir: The folder of a study, with `models/NAME/seed_S`.
      runs: The model and seed of the runs to read; None for all that are there.

    Raises:
      ValueError: Where there is no record at all.
    """
    folders = sorted(pathlib.Path(workdir).glob("models/*/seed_*"))
    found = {folder: read(folder / "records.jsonl") for folder in folders}
    names = {folder: (lines[0]["model"], lines[0]["seed"]) for folder, lines in found.items()
             if lines}  # fmt: skip
    if runs is not None:
        names = {folder: name for folder, name in names.items() if name in runs}
    latest = {
        tuple(record.get(name) for name in IDENTITY): record
        for folder in names
        for record in found[folder]
    }
    if not latest:
        raise ValueError(
            f"No records under {workdir}/models/NAME/seed_S/records.jsonl; train and measure "
            "some models first, or pass the directory that they were written to."
        )
    records = tuple(latest.values())
    models = {
        Model(
            *(r["model"], r["optimiser"], r["batch"], int(r["batch_size"]), float(r["rho"])),
            times_epochs=int(r["times_epochs"]),
        )
        for r in records
    }
    ordered = sorted(models, key=_table_1_order)
    histories = {name: _by_epoch(read(folder / "metrics.jsonl")) for folder, name in names.items()}
    return Results(
        models=tuple(model for model in ordered if model.times_epochs == 1),
        longer=tuple(model for model in ordered if model.times_epochs != 1),
        seeds=tuple(sorted({record["seed"] for record in records})),
        records=records,
        histories=histories,
        planes={
            name: read_plane(folder / "plane.jsonl")
            for folder, name in names.items()
            if is_whole(folder / "plane.jsonl")
        },
    )


def select(results: Results, **where: Any) -> list[Record]:
    """Return the records with these fields, by seed; a field that is absent counts as None."""
    chosen = [r for r in results.records if all(r.get(k) == v for k, v in where.items())]
    return sorted(chosen, key=lambda record: record["seed"])


def over_seeds(results: Results, quantity: str, **where: Any) -> np.ndarray:
    """Return a scalar quantity of the selected records, shape [seeds]; NaN for null.

    Args:
      results: What was read.
      quantity: A field of the records.
      **where: Fields that select the records, among them the model and the measure.
    """
    return np.array([number(record.get(quantity)) for record in select(results, **where)])


def settings_of(
    results: Results, measure: str, preset: str, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the distinct settings under which a measure was taken, small batches first.

    Args:
      results: What was read.
      measure: The measure.
      preset: "sound" or "published".
      names: Fields that make up a setting.
    """
    found = {
        tuple(record.get(name) for name in names)
        for record in select(results, measure=measure, preset=preset)
    }
    ordered = sorted(found, key=lambda values: tuple(_rank(value) for value in values))
    return [dict(zip(names, values, strict=True)) for values in ordered]


def number(value: Any) -> float:
    """Return a float; None, for what was not computed, is NaN."""
    return math.nan if value is None else float(value)


def _by_epoch(lines: list[Record]) -> tuple[Record, ...]:
    epochs = {line["epoch"]: line for line in lines if "epoch" in line}
    return tuple(epochs[epoch] for epoch in sorted(epochs))


def _table_1_order(model: Model) -> tuple[int, int, float, int, str]:
    optimiser = list(OPTIMISERS).index(model.optimiser)
    return optimiser, BATCHES.index(model.batch), model.rho, model.times_epochs, model.name


def _rank(value: Any) -> tuple[int, float, str]:
    """A key that sorts None, numbers, batches (small first) and other words together."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, str):
        return (1, BATCHES.index(value), "") if value in BATCHES else (2, 0.0, value)
    return 1, float(value), ""
