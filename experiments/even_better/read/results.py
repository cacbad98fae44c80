"""The results in a work directory: models, records, per-epoch histories, planes, curves.

`workdir/models/NAME/seed_S/` holds `records.jsonl`, `metrics.jsonl` and `plane.jsonl`, one JSON
object a line. Where a measurement was repeated, the last line holds. `workdir/curves/PAIR/seed_S/`
holds what connects two models.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.even_better.arms import BATCHES, OPTIMISERS, Model, Plan
from experiments.even_better.read.connections import Connection, read_connections
from experiments.study.arms import seed_folder
from experiments.study.results import FromFiles, Results, read_records
from sam_jax.measuring import registry
from sam_jax.measuring.landscapes import is_whole, read_plane
from sam_jax.metrics.landscape.grids import LossPlane
from sam_jax.runs.records import Record, read

PRESETS = ("sound", "published")


@dataclasses.dataclass(frozen=True)
class StudyResults(Results[Model]):
    """Everything that was read; the arms are all models in the order of Table 1."""

    histories: Mapping[tuple[str, int], tuple[Record, ...]]  # by (model name, seed)
    planes: Mapping[tuple[str, int], LossPlane]  # likewise
    pairs: tuple[tuple[Connection, ...], ...] = ()  # the connections of every pair of models

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that are compared."""
        return tuple(model for model in self.arms if model.times_epochs == 1)

    @property
    def longer(self) -> tuple[Model, ...]:
        """The models that were trained for more epochs."""
        return tuple(model for model in self.arms if model.times_epochs != 1)


def read_results(workdir: pathlib.Path | str, plan: Plan | None = None) -> StudyResults:
    """Read every `records.jsonl`, `metrics.jsonl` and finished `plane.jsonl`, and the curves.

    Args:
      workdir: the folder of a study.
      plan: of its config; runs that it does not list, which an earlier config may have left, are
        not read. None reads all.

    Raises:
      ValueError: there is no record at all.
    """
    models = _trained_models(pathlib.Path(workdir))
    if plan is not None:
        wanted = set(itertools.product((arm.name for arm in plan.arms), plan.seeds))
        models = {run: model for run, model in models.items() if run in wanted}
    seeds = sorted({seed for _, seed in models})
    arms = sorted(set(models.values()), key=_table_1_order)
    records = read_records(workdir, arms, seeds)
    folders = {run: seed_folder(workdir, model, run[1]) for run, model in models.items()}
    planes = {run: folder / "plane.jsonl" for run, folder in folders.items()}
    return StudyResults(
        tuple(arms),
        tuple(seeds),
        records,
        FromFiles({run: folder / "metrics.jsonl" for run, folder in folders.items()}, _by_epoch),
        FromFiles({run: path for run, path in planes.items() if is_whole(path)}, read_plane),
        read_connections(workdir, plan.pairs if plan else None, plan.seeds if plan else None),
    )


def settings_of(results: Results, measure: str, preset: str) -> list[dict[str, Any]]:
    """Return the distinct settings under which a measure was taken, small batches first.

    A setting is what tells two records of the instrument apart, with the study's name of a batch
    before its size.

    Args:
      results: The study's results.
      measure: The name of the instrument.
      preset: "sound" or "published".
    """
    names = []
    for name in registry.by_name()[measure].identity:
        names += ["measured_batch", name] if name == "m" else [name]
    found = {
        tuple(record.get(name) for name in names)
        for record in results.select(measure=measure, preset=preset)
    }
    ordered = sorted(found, key=lambda values: tuple(_rank(value) for value in values))
    return [dict(zip(names, values, strict=True)) for values in ordered]


def _trained_models(workdir: pathlib.Path) -> dict[tuple[str, int], Model]:
    """Return the model of every run that has records, by (name, seed)."""
    found = {}
    for path in sorted(workdir.glob("models/*/seed_*/records.jsonl")):
        for first in read(path)[:1]:
            fields = (first[name] for name in ("model", "optimiser", "batch", "batch_size", "rho"))
            model = Model(*fields, times_epochs=int(first["times_epochs"]))
            found[model.name, first["seed"]] = model._replace(rho=float(model.rho))
    return found


def _by_epoch(path: pathlib.Path) -> tuple[Record, ...]:
    epochs = {line["epoch"]: line for line in read(path) if "epoch" in line}
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
