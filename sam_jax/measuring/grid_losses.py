"""Losses and accuracies of a network on a grid of one or two directions of its weights."""

import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from sam_jax.measuring.batch_norm_policy import BatchNormPolicy, check_policy
from sam_jax.measuring.measured import Measured, Network, as_measured, needs_test_set
from sam_jax.measuring.measured_points import compile_over_points, header, measure_points
from sam_jax.measuring.set_losses import Sets, number_of_examples
from sam_jax.metrics.checks import check_moves
from sam_jax.metrics.landscape.grids import values_at
from sam_jax.pytree import vdot
from sam_jax.runs import records
from sam_jax.training.device_data import everywhere
from sam_jax.training.trained import Trained
from sam_jax.typing import Params, PyTree

# The quantities measured at every point: means over the two sets, and ||w||^2 of the point itself.
# The penalty of any weight decay is proportional to ||w||^2.
QUANTITIES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "squared_norm")


def measure_grid(
    measure: str,
    model: Trained | Measured,
    directions: dict[str, PyTree],
    axes: dict[str, np.ndarray],
    *,
    chunk: int,
    path: pathlib.Path | str,
    origin: Params | None,
    batch_norm: BatchNormPolicy,
    batch_size: int,
    about: records.Record | None,
    label: str,
) -> None:
    """Write the measurements at all points of a grid that the file does not hold yet.

    Args:
      measure: its name in the header.
      model: with its running statistics and its sets.
      directions: name -> a pytree like the parameters, one an axis.
      axes: name -> a vector of finite numbers. The points run along the first one fastest.
      chunk: points in one compiled call and in one line of the file.
      path: a file of JSON lines.
      origin: where the grid has its zero; None for the parameters of the model.
      batch_norm: where batch norm takes its statistics from.
      batch_size: images in one pass; it bounds the memory, not the result.
      about: further fields of the header.
      label: its name in the progress.

    Raises:
      ValueError: a direction does not fit the parameters, is zero or not finite, or the file holds
        another measurement.
      TypeError: the policy is a name alone.
    """
    check_policy(batch_norm)
    measured = as_measured(model)
    needs_test_set(measured, measure)
    origin = measured.params if origin is None else origin
    for name, direction in directions.items():
        check_moves(name, direction, origin)
    weights = everywhere((origin, directions, measured.batch_stats))
    compiled = _compiled_measure(measured.network, batch_norm, batch_size)
    sizes = list(map(number_of_examples, measured.sets))
    about_it = header(measure, weights, sizes, batch_norm, about)
    about_it |= {name: axis.tolist() for name, axis in axes.items()}
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes.values())], axis=1)

    def measure_some(some: np.ndarray) -> dict[str, np.ndarray]:
        return compiled(some, *weights, measured.sets)

    measure_points(path, about_it, points, chunk, measure_some, label)


@functools.lru_cache(maxsize=8)
def _compiled_measure(
    network: Network, batch_norm: BatchNormPolicy, batch_size: int
) -> Callable[..., dict[str, np.ndarray]]:
    set_losses = network.set_losses(batch_norm, batch_size)

    def measure(
        points: jax.Array,
        origin: Params,
        directions: dict[str, PyTree],
        batch_stats: PyTree,
        sets: Sets,
    ) -> dict[str, jax.Array]:
        def at(params: Params) -> dict[str, jax.Array]:
            train, test = set_losses(params, batch_stats, sets)
            means = (train.loss, train.accuracy, test.loss, test.accuracy)
            return dict(zip(QUANTITIES, (*means, vdot(params, params)), strict=True))

        return values_at(at, origin, directions, points, mesh=None)

    return compile_over_points(measure)
