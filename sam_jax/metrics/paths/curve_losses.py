"""Losses along a curve between two models: barriers, extremes and means."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sam_jax.known import known
from sam_jax.metrics.evaluation import full_precision, scalar_loss
from sam_jax.metrics.over_devices import map_rows
from sam_jax.metrics.parameters import loss_of_parameters
from sam_jax.metrics.paths.curves import (
    check_curve,
    check_positions,
    curve_point,
    number_of_controls,
)
from sam_jax.pytree import widen
from sam_jax.typing import AnyArray, Array, Float, LossFn, Num, PyTree


class Barrier(NamedTuple):
    """How high a curve of losses rises above the straight line between its two end values."""

    height: Float[
        Array, ""
    ]  # in the unit of the losses, >= 0; NaN where a loss is, or an end infinite
    position: Float[Array, ""]  # the t where it is reached


class CurveSummary(NamedTuple):
    """A quantity along a curve, in its own unit."""

    minimum: Float[Array, ""]  # over the points
    maximum: Float[Array, ""]  # over the points
    mean: Float[Array, ""]  # over the points, hence over t
    integral: Float[Array, ""]  # mean over the length of the curve


@full_precision
def losses_on_curve(
    loss_fn: LossFn,
    controls: PyTree,
    positions: Num[AnyArray, " points"],
    kind: str = "chain",
    *,
    mesh: Mesh | None = None,
) -> Float[Array, " points"]:
    r"""Return the losses at the given positions of a curve, one after the other.

    .. math::
      L(w(t_i)), \qquad i = 1, \dots, n

    with the points w(t) of `curve_point`, at the cost of n losses. Jit the call to compile it once
    for many curves and positions. For a network with batch norm `loss_fn` has to recalibrate the
    running statistics at every point, as `sam_jax.paths.evaluate_curve.evaluate_curve` does:
    the statistics of the ends do not fit.

    Args:
      loss_fn: `loss_fn(params)` -> scalar, the loss over the whole set.
      controls: the control points, leaves [K + 1, ...]. They are widened to float32 if narrower.
      positions: t, shape [n], in [0, 1].
      kind: "chain" or "bezier".
      mesh: devices to share the points out over, as in `loss_plane`; None for no sharing.

    Returns:
      The losses, shape [n], in float32 or wider; one that is not finite is kept.

    Raises:
      ValueError: as `curve_point`; `positions` is not a non-empty vector; `loss_fn` is not scalar.

    >>> from sam_jax.metrics.paths import curves
    >>> controls = curves.initial_controls(jnp.array([-1.0]), jnp.array([1.0]))
    >>> losses_on_curve(lambda w: jnp.sum(w**2), controls, jnp.array([0.0, 0.5, 1.0])).tolist()
    [1.0, 0.0, 1.0]

    Source: Garipov et al. 2018, Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs.
    """
    check_positions(positions)
    check_curve(positions, number_of_controls(controls), kind)
    loss_fn, controls = loss_of_parameters(scalar_loss(loss_fn), controls)
    at = jnp.asarray(positions)
    return map_rows(lambda t: loss_fn(curve_point(controls, t, kind)), at, mesh)


def loss_barrier(positions: Num[AnyArray, " points"], losses: Num[AnyArray, " points"]) -> Barrier:
    r"""Return the height of the barrier between the two ends of a curve of losses.

    .. math::
      B = \max_t \; L(t) - \big((1 - t) \, L(0) + t \, L(1)\big)

    Args:
      positions: t, shape [n], increasing from 0 to 1, both included.
      losses: L at the positions, shape [n].

    Returns:
      A Barrier. Its height is

      - zero where no loss lies above the line;
      - infinite where a loss between the ends is infinite;
      - NaN where a loss is NaN, or an infinite end leaves no line.

    Raises:
      ValueError: the shapes differ, or the positions do not run from 0 to 1.

    >>> barrier = loss_barrier(jnp.array([0.0, 0.5, 1.0]), jnp.array([1.0, 4.0, 3.0]))
    >>> float(barrier.height), float(barrier.position)
    (2.0, 0.5)

    Source: Entezari et al. 2022, The Role of Permutation Invariance in Linear Mode Connectivity,
    along any curve in the place of the straight line.
    """
    check_positions(positions)
    if np.shape(losses) != np.shape(positions):
        raise ValueError(
            "positions and losses must have the same shape, got "
            f"{np.shape(positions)} and {np.shape(losses)}."
        )
    at = known(positions)
    # Negated, so that NaN does not pass.
    if at is not None and not (at[0] == 0 and at[-1] == 1 and np.all(np.diff(at) >= 0)):
        raise ValueError(f"positions must increase from 0 to 1, both included; got {positions}.")
    t, losses = widen(jnp.asarray(positions)), widen(jnp.asarray(losses))
    # The two ends lie on the line by definition; rounding is not to say otherwise.
    above = losses - ((1 - t) * losses[0] + t * losses[-1])
    ends = jnp.array([0, -1])
    above = above.at[ends].set(jnp.where(jnp.isfinite(losses[ends]), 0, jnp.nan))
    highest = jnp.argmax(above)
    return Barrier(above[highest], t[highest])


def summarise_curve(
    values: Num[AnyArray, " points"], lengths: Num[AnyArray, " points-1"]
) -> CurveSummary:
    r"""Return the extremes and the means of a quantity at points of a curve.

    .. math::
      \text{integral} =
        \frac{\sum_i \tfrac{1}{2} (v_i + v_{i+1}) \, \Delta_i}{\sum_i \Delta_i}

    Args:
      values: v, shape [n].
      lengths: Delta_i, the lengths of curve between neighbouring points, shape [n - 1], from
        `chord_lengths`. Where all are zero the integral is NaN.

    Returns:
      A CurveSummary.

    Raises:
      ValueError: the shapes do not fit.

    >>> summarise_curve(jnp.array([0.0, 1.0, 1.0]), jnp.array([1.0, 3.0])).integral.item()
    0.875

    Source: Garipov et al. 2018, equation 1, as evaluated in the authors' code.
    """
    if np.ndim(values) != 1 or np.shape(lengths) != (len(values) - 1,) or len(values) < 2:
        raise ValueError(
            "values [n] and lengths [n - 1] must fit each other, with n >= 2; got the shapes "
            f"{np.shape(values)} and {np.shape(lengths)}."
        )
    values, lengths = widen(jnp.asarray(values)), widen(jnp.asarray(lengths))
    integral = jnp.sum((values[1:] + values[:-1]) / 2 * lengths) / jnp.sum(lengths)
    return CurveSummary(jnp.min(values), jnp.max(values), jnp.mean(values), integral)
