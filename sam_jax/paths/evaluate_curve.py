"""Losses and accuracies along a curve between two networks, exact at every point."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from sam_jax.measuring.batch_norm_policy import BatchNormPolicy, check_policy
from sam_jax.measuring.measured import as_measured
from sam_jax.measuring.measured_points import compile_over_points, header, measure_points
from sam_jax.measuring.set_losses import Sets, make_set_losses, number_of_examples
from sam_jax.metrics.paths import curve_geometry, curve_losses, curves
from sam_jax.paths.checks import check_path, check_stacked, check_trained
from sam_jax.runs import fields
from sam_jax.runs.fields import whole
from sam_jax.runs.records import Record
from sam_jax.training.device_data import everywhere
from sam_jax.training.evaluation import Inputs
from sam_jax.training.program import full_precision
from sam_jax.training.trained import Trained
from sam_jax.typing import PyTree

# Neither the running statistics of the ends nor their interpolation fit the points between.
RECALIBRATED = BatchNormPolicy("recalibrated", 128)
QUANTITIES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


class AlongCurve(NamedTuple):
    """Means over one set at every position, each of shape [n]."""

    loss: np.ndarray  # cross-entropy in nats
    accuracy: np.ndarray  # fraction in [0, 1]


class CurveEvaluation(NamedTuple):
    """A curve at n positions."""

    positions: np.ndarray  # t, [n]
    lengths: np.ndarray  # of the chords between neighbouring positions, float64 [n - 1]
    train: AlongCurve
    test: AlongCurve
    batch_norm: BatchNormPolicy


def evaluate_curve(
    trained: Trained,
    controls: PyTree,
    kind: str = "chain",
    *,
    points: int = 61,
    batch_norm: BatchNormPolicy = RECALIBRATED,
    batch_size: int = 1000,
    label: str = "curve",
    path: pathlib.Path | str | None = None,
) -> CurveEvaluation:
    """Evaluate a curve at evenly spaced positions, on the whole training and test sets.

    By default the running statistics of batch norm are computed again at every position: neither
    the statistics of the ends nor their interpolation fit. Images are not augmented. The positions
    run one after the other, one a device at a time. With a path they are written as they come, and
    the same call goes on after those that a cut run left: on CPU to the same bits.

    Args:
      trained: a model of the architecture, and the data set; its weights are not read.
      controls: the control points, leaves [K + 1, ...], from `find_curve` or `initial_controls`.
      kind: "chain" or "bezier".
      points: n, the number of positions, both ends included; 61 in the authors' code.
      batch_norm: where batch norm takes its statistics from.
      batch_size: images in one pass of the evaluation; it bounds the memory, not the result.
      label: the name of the curve in the progress.
      path: a file of JSON lines: a description of the curve, then the values. None keeps nothing.

    Returns:
      A CurveEvaluation.

    Raises:
      ValueError: there are fewer than two points, the control points are none or not of this
        architecture, or the file holds another measurement.

    Source: eval_curve.py of timgaripov/dnn-mode-connectivity. PyTorch averages unbiased batch
      variances, Flax biased ones.
    """
    check_policy(batch_norm)
    check_trained("trained", trained)
    fields.check_value("points", points, whole(2))  # the two ends
    fields.check_value("batch_size", batch_size, whole(1))
    if path is not None:
        check_path("path", path)
    check_stacked("controls", controls, trained)
    positions = np.linspace(0, 1, points)
    lengths = curve_geometry.chord_lengths(controls, positions, kind)
    evaluate = _compiled_evaluation(
        full_precision(trained.program.model), trained.program.inputs, kind, batch_norm, batch_size
    )
    # Wherever the curve comes from, it lies where the data does: one compilation for all curves.
    network = everywhere((controls, trained.state.batch_stats))
    # The running statistics that are given are not read.
    sets = as_measured(trained).sets
    sizes = list(map(number_of_examples, sets))
    about = header("curve", network[0], sizes, batch_norm, {"kind": kind})
    values = measure_points(
        path,
        about | {"positions": positions.tolist()},
        positions,
        jax.device_count(),
        lambda chunk: evaluate(chunk, *network, sets),
        label,
    )
    train, test = (
        AlongCurve(values[f"{name}_loss"], values[f"{name}_accuracy"]) for name in ("train", "test")
    )
    return CurveEvaluation(positions, lengths, train, test, batch_norm)


def curve_record(evaluation: CurveEvaluation) -> Record:
    """Return an evaluation as numbers and lists, with its extremes, means and barriers.

    Args:
      evaluation: from `evaluate_curve`.

    Returns:
      "batch_norm", the policy; "positions", "length", and for each of train_loss, train_accuracy,
      test_loss and test_accuracy the values, `_minimum`, `_maximum`, `_mean` over t and `_integral`
      over the length; `train_barrier` and `test_barrier` of the losses with their `_position`.

    Raises:
      ValueError: something else is given.
    """
    if not isinstance(evaluation, CurveEvaluation):
        raise ValueError(
            f"evaluation must come from evaluate_curve, got a {type(evaluation).__name__}."
        )
    record: Record = {
        "measure": "mode_connectivity",
        "batch_norm": evaluation.batch_norm.kind,
        "positions": evaluation.positions.tolist(),
        "length": float(evaluation.lengths.sum()),
    }
    for name in ("train", "test"):
        along: AlongCurve = getattr(evaluation, name)
        for field, values in along._asdict().items():
            summary = curve_losses.summarise_curve(values, evaluation.lengths)
            record[f"{name}_{field}"] = values.tolist()
            for statistic, value in summary._asdict().items():
                record[f"{name}_{field}_{statistic}"] = float(value)
        barrier = curve_losses.loss_barrier(evaluation.positions, along.loss)
        record[f"{name}_barrier"] = float(barrier.height)
        record[f"{name}_barrier_position"] = float(barrier.position)
    return record


@functools.lru_cache(maxsize=8)
def _compiled_evaluation(
    model: nn.Module, inputs: Inputs, kind: str, batch_norm: BatchNormPolicy, batch_size: int
) -> Callable[..., dict[str, np.ndarray]]:
    set_losses = make_set_losses(model, inputs, batch_norm, batch_size)

    def evaluate(
        positions: jax.Array, controls: PyTree, batch_stats: PyTree, sets: Sets
    ) -> dict[str, jax.Array]:
        def at(t: jax.Array) -> dict[str, jax.Array]:
            train, test = set_losses(curves.curve_point(controls, t, kind), batch_stats, sets)
            means = (train.loss, train.accuracy, test.loss, test.accuracy)
            return dict(zip(QUANTITIES, means, strict=True))

        return jax.lax.map(at, positions)  # one position on a device

    return compile_over_points(evaluate)
