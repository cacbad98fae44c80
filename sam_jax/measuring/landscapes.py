"""Loss lines and planes of networks, kept as they come so that a cut run goes on."""

import math
import pathlib

import jax
import numpy as np

from sam_jax.measuring.batch_norm_policy import RUNNING, BatchNormPolicy
from sam_jax.measuring.grid_losses import QUANTITIES, measure_grid
from sam_jax.measuring.measured import Measured
from sam_jax.measuring.measured_points import read_points
from sam_jax.metrics.checks import check_finite
from sam_jax.metrics.landscape.grids import LossLine, LossPlane
from sam_jax.runs import records
from sam_jax.training.trained import Trained
from sam_jax.typing import Params, PyTree

PLANE, LINE = "loss_plane", "loss_line"  # the measure named in the first line of a file


def measure_line(
    trained: Trained | Measured,
    direction: PyTree,
    distances: np.ndarray,
    path: pathlib.Path | str,
    *,
    origin: Params | None = None,
    batch_norm: BatchNormPolicy = RUNNING,
    batch_size: int = 1000,
    about: records.Record | None = None,
    label: str = "line",
) -> LossLine:
    r"""Measure losses and accuracies of a network along one direction of its weights.

    .. math::
      L(w + t_j \, d)

    in everything like `measure_plane`, but that as many points are one compiled call, and one line
    of the file, as there are devices.

    Args:
      trained: a model, its running statistics and its data.
      direction: d, a pytree like the parameters, used as given.
      distances: t, shape [k], in lengths of `direction`, of either sign.
      path: a file of JSON lines: a description of the loss line, then the measurements.
      origin: w; None for the parameters of `trained`.
      batch_norm: where batch norm takes its statistics from.
      batch_size: images in one pass; it bounds the memory, not the result.
      about: further fields for the first line of the file, which tell this line from others.
      label: the name of the line in the progress.

    Returns:
      A LossLine whose values are a dict of [k] float64 arrays, with the names of `measure_plane`.

    Raises:
      ValueError, TypeError: as `measure_plane`.

    Source: Goodfellow et al. 2015, Qualitatively Characterizing Neural Network Optimization
      Problems, for lines between models; Li et al. 2018 along random directions.
    """
    distances = _axis("distances", distances)
    # As many points in one call as there are devices.
    measure_grid(
        LINE,
        trained,
        {"direction": direction},
        {"distances": distances},
        chunk=jax.device_count(),
        path=path,
        origin=origin,
        batch_norm=batch_norm,
        batch_size=batch_size,
        about=about,
        label=label,
    )
    return read_line(path)


def measure_plane(
    trained: Trained | Measured,
    direction_x: PyTree,
    direction_y: PyTree,
    xs: np.ndarray,
    ys: np.ndarray,
    path: pathlib.Path | str,
    *,
    origin: Params | None = None,
    batch_norm: BatchNormPolicy = RUNNING,
    batch_size: int = 1000,
    about: records.Record | None = None,
    label: str = "plane",
) -> LossPlane:
    r"""Measure losses and accuracies of a network on a grid in a plane of its weights.

    .. math::
      L(w + x_j \, d_x + y_i \, d_y)

    over the whole training set, without augmentation, and the whole test set. A row of the grid
    is one compiled call, the same for all rows, planes and checkpoints of an architecture; its
    points run one after the other, split over the devices. Every row is written as it comes, and
    the same call goes on after the last row that a cut run left. Values that are not finite are
    kept.

    Args:
      trained: a model, its running statistics and its data.
      direction_x: d_x, a pytree like the parameters, used as given; for example one of
        `random_directions(key, params, 2, "gaussian", "filter")`.
      direction_y: d_y, likewise.
      xs: x, shape [p], in lengths of `direction_x`.
      ys: y, shape [q], in lengths of `direction_y`.
      path: a file of JSON lines: a description of the plane, then a line a row.
      origin: w; None for the parameters of `trained`. A plane through other models has theirs.
      batch_norm: where batch norm takes its statistics from.
      batch_size: images in one pass; it bounds the memory, not the result.
      about: further fields for the first line of the file, which tell this plane from others.
      label: the name of the plane in the progress.

    Returns:
      A LossPlane whose values are a dict of [q, p] float64 arrays: train_loss and test_loss
      (cross-entropy in nats), train_accuracy and test_accuracy (fractions), and squared_norm, of
      all weights at the point.

    Raises:
      ValueError: a direction does not fit the parameters, is zero or is not finite; the grid is not
        two non-empty vectors; the policy is unknown; or the file holds another measurement.

    Source: Li et al. 2018, Visualizing the Loss Landscape of Neural Nets ("running"); Garipov et
      al. 2018 ("recalibrated").
    """
    xs, ys = (_axis(name, axis) for name, axis in (("xs", xs), ("ys", ys)))
    measure_grid(
        PLANE,
        trained,
        {"direction_x": direction_x, "direction_y": direction_y},
        {"xs": xs, "ys": ys},
        chunk=xs.size,
        path=path,
        origin=origin,
        batch_norm=batch_norm,
        batch_size=batch_size,
        about=about,
        label=label,
    )
    return read_plane(path)


def read_plane(path: pathlib.Path | str) -> LossPlane:
    """Return a plane that `measure_plane` has written.

    Args:
      path: the file of JSON lines.

    Returns:
      The LossPlane; rows that are not measured yet are NaN.

    Raises:
      FileNotFoundError: there is no such file, or nothing in it.
      ValueError: it holds something else.
    """
    header, values = read_points(path, PLANE)
    xs, ys = (np.array(header[name]) for name in ("xs", "ys"))
    return LossPlane(_on_grid(header, values), xs, ys, header["batch_norm"])


def read_line(path: pathlib.Path | str) -> LossLine:
    """Return a line that `measure_line` has written.

    Args:
      path: the file of JSON lines.

    Returns:
      The LossLine; points that are not measured yet are NaN.

    Raises:
      FileNotFoundError: there is no such file, or nothing in it.
      ValueError: it holds something else.
    """
    header, values = read_points(path, LINE)
    return LossLine(_on_grid(header, values), np.array(header["distances"]), header["batch_norm"])


def is_whole(path: pathlib.Path | str) -> bool:
    """Say whether a file holds all rows of its plane."""
    try:
        header, values = read_points(path, PLANE)
    except FileNotFoundError:
        return False
    return bool(values) and values[QUANTITIES[0]].size == math.prod(_shape(header))


def _axis(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name} must have the shape [k], k >= 1, got {values.shape}.")
    check_finite(name, values)
    return values


def _shape(header: records.Record) -> tuple[int, ...]:
    """Return the shape of the grid that a header describes."""
    names = ("ys", "xs") if header["measure"] == PLANE else ("distances",)
    return tuple(len(header[name]) for name in names)


def _on_grid(header: records.Record, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the measured values in the shape of their grid, NaN at points not yet measured."""
    shape = _shape(header)
    found = {}
    for name in QUANTITIES:
        done = values.get(name, np.empty(0))
        missing = np.full(math.prod(shape) - done.size, np.nan)
        found[name] = np.concatenate([done, missing]).reshape(shape)
    return found
