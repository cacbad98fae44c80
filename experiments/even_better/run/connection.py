"""The curves of low loss between pairs of models: trained, and measured along and around them.

`workdir/curves/PAIR/seed_S/` holds `training/`, the run of the curve; `records.jsonl`, a record of
the curve and one of the straight line; and `plane.jsonl`, the losses on the plane through the two
models and the bend. `curve.jsonl` and `line.jsonl` hold the points measured so far, until the
record is written. Finished work is never run again, not even a point of a curve.
"""

import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from experiments.even_better.arms import Model
from experiments.even_better.run.plane import diverged
from sam_jax import metrics
from sam_jax.data import Source
from sam_jax.measuring.batch_norm_policy import BatchNormPolicy
from sam_jax.measuring.landscapes import is_whole, measure_plane
from sam_jax.metrics.paths import curves
from sam_jax.paths.evaluate_curve import curve_record, evaluate_curve
from sam_jax.paths.find_curve import CurveSettings, find_curve
from sam_jax.runs import records, workdirs
from sam_jax.runs.distributed import from_first
from sam_jax.training import build
from sam_jax.training.trained import load_trained

MARGIN = 0.2  # of the plane around its contents, as a share of their size (Garipov et al.)


def run_connection(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    ends: tuple[Model, Model],
    epochs: tuple[int, int],
    seed: int,
    label: str,
) -> None:
    """Train and measure the curve between two trained models of a seed.

    After an accepted change of the config, it measures again if a setting of the measurement
    changed. It trains again if an end or a setting of the training changed.

    Args:
      config: as in configs/even_better/digits.py.
      workdir: the folder of the study, with the trained models.
      ends: the two models.
      epochs: that they were trained for.
      seed: of the models and of the curve.
      label: the name of the curve in the progress.
    """
    folder = workdir / "curves" / "__".join(model.name for model in ends) / f"seed_{seed}"
    settings = _settings(config, seed)
    path, plane = folder / "records.jsonl", folder / "plane.jsonl"
    training = settings._asdict() | {"end_epochs": list(epochs)}
    # The images are prepared as for the first model, and checkpoints change nothing.
    for name in ("augmentation", "checkpoint_every_epochs"):
        del training[name]
    policy = BatchNormPolicy("recalibrated", config.curve.batch_norm_batch_size)
    measuring = {
        "points": config.curve.points,
        "plane_points": config.curve.plane_points,
        "batch_norm_batch_size": policy.batch_size,
    }
    identity = ml_collections.ConfigDict({"training": training, "measuring": measuring})
    partial = {shape: folder / f"{shape}.jsonl" for shape in ("curve", "line")}
    measured = (path, plane, *partial.values())
    from_first(lambda: _discard_outdated(folder, workdirs.plain(identity), measured))
    workdirs.claim(folder, identity, accept_config_changes=True)
    done = len(records.read(path))
    if done == 2 and is_whole(plane):
        return
    (start_config, start), (_, end) = (
        load_trained(workdir / "models" / model.name / f"seed_{seed}") for model in ends
    )
    if diverged(start) or diverged(end):
        logging.warning(
            "%s: a model has weights that are not finite, and there is no curve.", label
        )
        return
    settings = settings._replace(augmentation=_augmentation(start_config, start.source))
    controls = find_curve(
        start,
        end,
        folder / "training",
        settings,
        prepare_images=start.program.prepare_images,
        label=label,
    )
    line = curves.initial_controls(start.state.params, end.state.params)
    about = {"pair": [model._asdict() for model in ends], "seed": seed}
    through = metrics.plane_through(
        start.state.params, end.state.params, jax.tree.map(lambda w: w[1], controls)
    )
    for shape, points in (("curve", controls), ("line", line))[done:]:
        kind = settings.kind if shape == "curve" else "chain"
        found = evaluate_curve(
            start,
            points,
            kind,
            points=config.curve.points,
            batch_norm=policy,
            batch_size=config.training.instruments.batch_size,
            label=f"{label} {shape}",
            path=partial[shape],
        )
        positions = found.positions
        path_in_plane = metrics.curve_coordinates(through, points, positions, kind)
        record = {**about, "shape": shape, **curve_record(found), "coordinates": path_in_plane}
        more = {"landmarks": through.coordinates, "weight_decay": settings.weight_decay}
        records.append(path, record | more)
    for written in partial.values():
        written.unlink(missing_ok=True)  # the records have it all
    along = metrics.curve_coordinates(
        through, controls, np.linspace(0, 1, config.curve.points), settings.kind
    )
    xs, ys = metrics.grid_around(along, config.curve.plane_points, MARGIN)
    measure_plane(
        start,
        through.first_axis,
        through.second_axis,
        xs,
        ys,
        plane,
        origin=through.origin,
        batch_norm=policy,
        batch_size=config.training.instruments.batch_size,
        label=f"{label} plane",
    )


def _discard_outdated(
    folder: pathlib.Path, identity: dict[str, Any], measured: Sequence[pathlib.Path]
) -> None:
    """Remove measurements of other settings, and the training if its settings differ."""
    if not (folder / "config.json").exists():
        return
    before = workdirs.read_config(folder).to_dict()
    # The caller writes config.json after this: a run that is cut here comes back here.
    if before != identity:
        for path in measured:
            path.unlink(missing_ok=True)
    if before["training"] != identity["training"]:
        shutil.rmtree(folder / "training", ignore_errors=True)


def _settings(config: ml_collections.ConfigDict, seed: int) -> CurveSettings:
    c = config.curve
    return CurveSettings(
        kind=c.kind,
        bends=c.bends,
        epochs=c.epochs,
        batch_size=config.small_batch,
        learning_rate=c.learning_rate,
        weight_decay=c.weight_decay,
        label_smoothing=config.training.loss.label_smoothing,
        seed=seed,
    )


def _augmentation(config: ml_collections.ConfigDict, source: Source) -> str:
    """Return a name of how a training prepares its images."""
    c = build.augmentation_of(config, source)
    name = f"{', '.join(c.names) or 'none'}; pad {c.pad}, cutout {c.cutout_size}"
    if "randaugment" in c.names:
        name += f", layers {c.randaugment_layers}, magnitude {c.randaugment_magnitude}"
    return name
