"""Losses on the plane in which the checkpoints of a run move most, kept in a file."""

import pathlib
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from sam_jax import metrics, plotting
from sam_jax.measuring.batch_norm_policy import policy_of
from sam_jax.measuring.instrument import Column, Instrument, Subject, Take
from sam_jax.measuring.kept_files import folder_of
from sam_jax.measuring.landscapes import measure_plane
from sam_jax.measuring.measured import run_of
from sam_jax.metrics.landscape.grids import BATCH_NORM_POLICIES
from sam_jax.runs import checkpoints, workdirs
from sam_jax.runs.distributed import from_first
from sam_jax.runs.fields import number, one_of, whole
from sam_jax.runs.records import Record, as_read
from sam_jax.training.trained import Trained, restore_state
from sam_jax.typing import Params

AXES = ("first_share", "second_share")  # of the variance


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield the settings of the plane and what measures on it.

    The folder that the record names holds `plane.jsonl`, for `landscapes.read_plane`, and a picture
    with the way of the run, `train_loss.png`. The checkpoints are those that the run kept up to the
    measured one, with averaged weights where the run averages.

    Raises:
      ValueError: there are fewer than three checkpoints, the run has no folder, or it is no run.
    """
    measured, settings, _, _ = subject
    trained = run_of(measured, "trajectory_plane")
    c = settings.trajectory_plane
    folder = folder_of(subject, "trajectory_plane", c.to_dict())
    batch_norm = policy_of(c.batch_norm, c.batch_norm_batch_size)
    workdir = folder.parents[1]
    config = workdirs.read_config(workdir)
    with checkpoints.open_manager(workdir, keep=None) as manager:
        epochs = [epoch for epoch in checkpoints.epochs_of(manager) if epoch <= trained.epoch]
    if len(epochs) < 3:
        raise ValueError(
            f"trajectory_plane needs at least 3 checkpoints, and {workdir} has only the epochs "
            f"{epochs}. Train with a larger checkpoint.keep and smaller checkpoint.every_epochs."
        )

    def take() -> Record:
        plane = metrics.trajectory_plane(_trajectory(trained, workdir, config, epochs))
        xs, ys = metrics.grid_around(plane.coordinates, c.points, c.margin)
        measured = measure_plane(
            trained,
            plane.first_axis,
            plane.second_axis,
            xs,
            ys,
            folder / "plane.jsonl",
            origin=plane.origin,
            batch_norm=batch_norm,
            batch_size=settings.batch_size,
            label="trajectory plane",
        )
        from_first(lambda: _draw(folder, measured, plane))
        shares = dict(zip(AXES, plane.explained, strict=True))
        kept = {"folder": str(folder.relative_to(workdir)), "coordinates": plane.coordinates}
        return as_read({**kept, **shares})

    yield {**c.to_dict(), "checkpoints": epochs}, take


def _trajectory(
    trained: Trained, workdir: pathlib.Path, config: ml_collections.ConfigDict, epochs: list[int]
) -> list[Params]:
    """Return the weights that the run is for at the end of each of these epochs."""
    key, found = jax.random.key(config.seed), []
    with checkpoints.open_manager(workdir, keep=None) as manager:
        for epoch in epochs:
            state = restore_state(trained.program, key, manager, epoch)
            state = trained.program.evaluated_state(state, trained.data.train_images)
            found.append(jax.tree.map(np.asarray, state.params))
    return found


def _draw(
    folder: pathlib.Path, measured: metrics.LossPlane, plane: metrics.TrajectoryPlane
) -> None:
    figure, (axes,) = plotting.small_multiples(1, 1, panel=(5.0, 4.2))
    first, second = (f"Component {k + 1} ({share:.0%})" for k, share in enumerate(plane.explained))
    plotting.landscape_contours(
        axes,
        measured,
        path=plane.coordinates,
        quantity="train_loss",
        x_label=first,
        y_label=second,
        value_label="Training loss",
    )
    plotting.save(figure, folder / "train_loss")


INSTRUMENT = Instrument(
    name="trajectory_plane",
    title="Trajectory plane",
    plan=plan,
    settings={
        "points": 15,
        "margin": 0.2,
        "batch_norm": "recalibrated",
        "batch_norm_batch_size": 128,
    },
    ranges={
        "points": whole(2),
        "margin": number(0),
        "batch_norm": one_of(BATCH_NORM_POLICIES),
        "batch_norm_batch_size": whole(1),
    },
    smoke={"points": 3},
    identity=("batch_norm",),
    columns=tuple(Column(name, name.replace("_", " ")) for name in AXES),
    by_default=False,
)
