"""Loss planes of networks, row by row, kept as they come so that a cut run goes on."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import PartitionSpec

from sam_jax.metrics.checks import check_finite, check_moves
from sam_jax.metrics.landscape import LossPlane, values_at
from sam_jax.pytree import vdot
from sam_jax.training import build, records
from sam_jax.training.evaluation import Inputs
from sam_jax.training.loop import Trained
from sam_jax.training.progress import each
from sam_jax.training.set_losses import make_set_losses
from sam_jax.training.step import DEVICES
from sam_jax.training.workdirs import checksum
from sam_jax.typing import Params, PyTree

# What is measured at every point: means over the two sets, and ||w||^2 of the point itself, to
# which a weight decay of any size is in proportion.
QUANTITIES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "squared_norm")


def measure_plane(
    trained: Trained,
    direction_x: PyTree,
    direction_y: PyTree,
    xs: np.ndarray,
    ys: np.ndarray,
    path: pathlib.Path | str,
    *,
    origin: Params | None = None,
    batch_norm: str = "running",
    batch_size: int = 1000,
    recalibration_batch_size: int = 128,
    about: records.Record | None = None,
    label: str = "plane",
) -> LossPlane:
    r"""Measure losses and accuracies of a network on a grid in a plane of its weights.

    .. math::
      L(w + x_j \, d_x + y_i \, d_y)

    over the whole training set, without augmentation, and the whole test set. A row of the grid
    is one compiled call, the same for all rows, planes and checkpoints of an architecture; its
    points run one after the other, split over the devices. Every row is written as it comes, and
    the same call goes on after the last row that a cut run left. What is not finite is kept.

    Args:
      trained: a model, its running statistics and its data.
      direction_x: d_x, a pytree like the parameters, used as given; for example one of
        `random_directions(key, params, 2, "gaussian", "filter")`.
      direction_y: d_y, likewise.
      xs: x, shape [p], in lengths of `direction_x`.
      ys: y, shape [q], in lengths of `direction_y`.
      path: a file of JSON lines: what the plane is, then a line a row.
      origin: w; None for the parameters of `trained`. A plane through other models has theirs.
      batch_norm: where batch norm takes its statistics from: "running", "batch" or
        "recalibrated", see `make_set_losses`.
      batch_size: images in one pass.
      recalibration_batch_size: images that batch norm sees at once for "recalibrated".
      about: further fields for the first line of the file, which tell this plane from others.
      label: what the progress calls the plane.

    Returns:
      A LossPlane whose values are a dict of [q, p] float64 arrays: train_loss and test_loss
      (cross-entropy in nats), train_accuracy and test_accuracy (fractions), and squared_norm,
      that of all weights at the point.

    Raises:
      ValueError: a direction does not fit the parameters, is zero or not finite, the grid is not
        two non-empty vectors, the policy is unknown, or the file holds another plane.

    Source: Li et al. 2018, Visualizing the Loss Landscape of Neural Nets ("running"); Garipov et
      al. 2018 ("recalibrated").
    """
    origin = trained.state.params if origin is None else origin
    directions = {"direction_x": direction_x, "direction_y": direction_y}
    for name, direction in directions.items():
        check_moves(name, direction, origin)
    xs, ys = (np.asarray(axis, np.float64) for axis in (xs, ys))
    for name, axis in (("xs", xs), ("ys", ys)):
        if axis.ndim != 1 or not axis.size:
            raise ValueError(f"{name} must have the shape [k], k >= 1, got {axis.shape}.")
        check_finite(name, axis)
    network = jax.device_put((origin, directions, trained.state.batch_stats), build.replicated())
    measure_row = _compiled_row(
        build.full_precision(trained.program.model),
        trained.program.inputs,
        *(batch_norm, batch_size, recalibration_batch_size),
    )
    path = pathlib.Path(path)
    header = {
        "measure": "loss_plane",
        **(about or {}),
        "batch_norm": batch_norm,
        # Only where it changes the losses: memory that runs out is no reason to start anew.
        "batch_size": {"batch": batch_size, "recalibrated": recalibration_batch_size}.get(
            batch_norm
        ),
        "examples": [len(trained.data.train_labels), len(trained.data.test_labels)],
        "checksum": checksum(network),
        "xs": xs.tolist(),
        "ys": ys.tolist(),
    }
    done = _begin(path, header)
    for row in each(label, range(done, ys.size)):
        points = np.stack([xs, np.full_like(xs, ys[row])], axis=1).astype(np.float32)
        # Every device has as many points; those that fill up are dropped again.
        points = np.pad(points, ((0, -xs.size % jax.device_count()), (0, 0)), mode="edge")
        values = measure_row(*network, points, trained.data)
        kept = {name: np.asarray(value)[: xs.size].tolist() for name, value in values.items()}
        records.append(path, {"row": row, **kept})
    return read_plane(path)


def read_plane(path: pathlib.Path | str) -> LossPlane:
    """Return a plane that `measure_plane` has written.

    Args:
      path: the file of JSON lines.

    Returns:
      The LossPlane; rows that are not measured yet are NaN.

    Raises:
      FileNotFoundError: there is no such file, or nothing in it.
    """
    header, *rows = records.read(pathlib.Path(path)) or [None]
    if header is None:
        raise FileNotFoundError(f"{path} holds no plane; measure_plane writes one.")
    shape = len(header["ys"]), len(header["xs"])
    values = {name: np.full(shape, np.nan) for name in QUANTITIES}
    for row in rows:
        for name in QUANTITIES:
            values[name][row["row"]] = row[name]
    return LossPlane(values, np.array(header["xs"]), np.array(header["ys"]), header["batch_norm"])


def is_whole(path: pathlib.Path | str) -> bool:
    """Say whether a file holds all rows of its plane."""
    found = records.read(pathlib.Path(path))
    return bool(found) and len(found) == 1 + len(found[0]["ys"])


def _begin(path: pathlib.Path, header: records.Record) -> int:
    """Return the rows that are measured; write what the plane is where there is no file yet."""
    found = records.read(path)
    if not found:
        records.append(path, header)
        return 0
    if found[0] != header:
        differing = sorted(k for k in header if found[0].get(k) != header[k])
        raise ValueError(
            f"{path} holds another plane; {', '.join(differing)} differ. Choose another path, or "
            "delete the file."
        )
    return len(found) - 1


@functools.lru_cache(maxsize=8)
def _compiled_row(
    model: nn.Module,
    inputs: Inputs,
    batch_norm: str,
    batch_size: int,
    recalibration_batch_size: int,
) -> Callable[..., dict[str, jax.Array]]:
    set_losses = make_set_losses(model, inputs, batch_norm, batch_size, recalibration_batch_size)

    @jax.default_matmul_precision("highest")
    def measure_row(
        origin: Params,
        directions: dict[str, PyTree],
        batch_stats: PyTree,
        points: jax.Array,
        data: build.DeviceData,
    ) -> dict[str, Any]:
        def at(params: Params) -> dict[str, jax.Array]:
            train, test = set_losses(params, batch_stats, data)
            return dict(zip(QUANTITIES, (*train, *test, vdot(params, params)), strict=True))

        return values_at(at, origin, directions, points, mesh=None)

    sharded = jax.shard_map(
        measure_row,
        mesh=build.replicated().mesh,
        in_specs=(*(PartitionSpec(),) * 3, PartitionSpec(DEVICES), PartitionSpec()),
        out_specs=PartitionSpec(DEVICES),
        check_vma=False,
    )
    return jax.jit(sharded)
