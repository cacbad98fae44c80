"""Curves between two models: a polygonal chain or a Bezier curve through parameter space.

A curve is a pytree of control points: like the parameters, with one more leading axis in every
leaf, [K + 1, ...]. Row 0 and row K are the two models, the ends; rows 1 to K - 1 are the bends.
"""

import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sam_jax.known import known
from sam_jax.metrics.checks import check_count, check_direction
from sam_jax.metrics.parameters import check_real, chosen_parameters, map_parameters
from sam_jax.pytree import is_parameter, widen
from sam_jax.typing import AnyArray, Array, Float, Gradients, Num, Params, PyTree, Scalar

KINDS = ("chain", "bezier")


def curve_coefficients(
    t: float | Num[AnyArray, "..."], count: int, kind: str
) -> Float[Array, "controls ..."]:
    r"""Return the weights c_k(t) of the control points; they are not negative and sum to one.

    .. math::
      c_k(t) = \max(0, 1 - |t K - k|) \;\text{(chain)}, \qquad
      c_k(t) = \binom{K}{k} t^k (1 - t)^{K - k} \;\text{(bezier)}

    Args:
      t: the position on the curve in [0, 1], a scalar or an array.
      count: K + 1, the number of control points, at least two.
      kind: "chain", straight from point to point; or "bezier".

    Returns:
      Shape [count, *t.shape], float32 or wider.

    Raises:
      ValueError: the kind is unknown, there are fewer than two points, or t is outside [0, 1].

    >>> curve_coefficients(0.25, 3, "chain").tolist()
    [0.5, 0.5, 0.0]
    >>> curve_coefficients(0.5, 3, "bezier").tolist()
    [0.25, 0.5, 0.25]

    Source: Garipov et al. 2018, Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs, for
    one bend; for more of them the authors' code, timgaripov/dnn-mode-connectivity.
    """
    check_curve(t, count, kind)
    return _coefficients(jnp, widen(jnp.asarray(t)), count - 1, kind)


def host_coefficients(t: np.ndarray, count: int, kind: str) -> np.ndarray:
    """Return `curve_coefficients` in float64, for concrete positions."""
    check_curve(t, count, kind)
    return _coefficients(np, np.asarray(t, np.float64), count - 1, kind)


def _coefficients(numpy: ModuleType, t: Any, segments: int, kind: str) -> Any:
    points = range(segments + 1)
    if kind == "chain":
        return numpy.stack([numpy.maximum(0.0, 1 - abs(t * segments - k)) for k in points])
    return numpy.stack([math.comb(segments, k) * t**k * (1 - t) ** (segments - k) for k in points])


def curve_point(controls: PyTree, t: Scalar, kind: str = "chain") -> Params:
    r"""Return the parameters at position t of a curve.

    .. math::
      w(t) = \sum_{k=0}^{K} c_k(t) \, w_k

    At t = 0 and t = 1 these are the ends themselves. A control point of weight zero takes no part,
    even where it is not finite.

    Args:
      controls: the control points w_0 ... w_K, leaves [K + 1, ...].
      t: in [0, 1]; it may be traced.
      kind: "chain" or "bezier", as in `curve_coefficients`.

    Returns:
      Parameters in the dtypes of `controls`, rounded once.

    Raises:
      ValueError: as `curve_coefficients`, or the leaves differ in their leading axis.

    >>> controls = {"w": jnp.array([[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]])}
    >>> curve_point(controls, 0.25, "chain")["w"].tolist()
    [0.5, 1.0]
    >>> curve_point(controls, 0.5, "bezier")["w"].tolist()
    [1.0, 1.0]

    Source: Garipov et al. 2018, as `curve_coefficients`.
    """
    coefficients = curve_coefficients(t, number_of_controls(controls), kind)

    def point(leaf: jax.Array) -> jax.Array:
        weights = coefficients.reshape(-1, *(1,) * (leaf.ndim - 1))
        terms = jnp.where(weights == 0, 0, weights * widen(leaf))
        return jnp.sum(terms, axis=0).astype(leaf.dtype)

    return map_parameters(lambda leaf: point(jnp.asarray(leaf)), controls)


def initial_controls(start: Params, end: Params, bends: int = 1) -> PyTree:
    r"""Return control points with the bends evenly spaced on the straight line between two models.

    .. math::
      w_k = (1 - k / K) \, w_0 + (k / K) \, w_K, \qquad K = \text{bends} + 1

    Args:
      start: w_0, the model at t = 0; it becomes row 0 as it is.
      end: w_K, the model at t = 1, of the same architecture; it becomes the last row as it is.
      bends: the number of control points between them, at least one.

    Returns:
      Leaves [bends + 2, ...] in the dtypes of `start`.

    Raises:
      ValueError: the models do not fit each other, or `bends` is not positive.

    >>> initial_controls(jnp.array([0.0]), jnp.array([3.0]), bends=2).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0]

    Source: timgaripov/dnn-mode-connectivity, how its curves start.
    """
    end = check_direction("end", end, start)
    check_count("bends", bends)
    chosen_parameters(start, name="start")

    def between(w: jax.Array, v: jax.Array) -> jax.Array:
        shares = [j / (bends + 1) for j in range(1, bends + 1)]
        rows = [((1 - a) * widen(w) + a * widen(v)).astype(jnp.result_type(w)) for a in shares]
        return jnp.stack(rows)

    return join_controls(start, map_parameters(between, start, end), end)


def join_controls(start: Params, bends: PyTree, end: Params) -> PyTree:
    """Return control points from the first end, the bends [K - 1, ...] and the last end.

    >>> join_controls(jnp.zeros(2), jnp.ones((3, 2)), jnp.zeros(2)).shape
    (5, 2)
    """
    return map_parameters(
        lambda w, b, v: jnp.concatenate([jnp.asarray(w)[None], b, jnp.asarray(v)[None]]),
        start,
        bends,
        end,
    )


def bends_of(controls: PyTree) -> PyTree:
    """Return the control points between the ends, leaves [K - 1, ...]."""
    return map_parameters(lambda leaf: leaf[1:-1], controls)


def bend_gradients(gradient: Gradients, t: Scalar, bends: PyTree, kind: str = "chain") -> PyTree:
    r"""Return the gradient with respect to the bends from that with respect to w(t).

    .. math::
      \frac{\partial L(w(t))}{\partial w_k} = c_k(t) \, \nabla L(w(t)), \qquad 0 < k < K

    Args:
      gradient: the gradient of the loss at `curve_point(controls, t, kind)`.
      t: the position that it was taken at.
      bends: the bends, leaves [K - 1, ...]; only their number and dtypes are read.
      kind: "chain" or "bezier".

    Returns:
      Gradients like `bends`.

    >>> bend_gradients(jnp.array([2.0]), 0.25, jnp.zeros((1, 1)), "chain").tolist()
    [[1.0]]
    """
    inner = curve_coefficients(t, number_of_controls(bends) + 2, kind)[1:-1]
    return map_parameters(
        lambda b, g: (inner.reshape(-1, *(1,) * jnp.ndim(g)) * widen(g)).astype(b.dtype),
        bends,
        gradient,
    )


def number_of_controls(controls: PyTree) -> int:
    """Return the length of the leading axis that all parameters share.

    Raises:
      ValueError: they do not share one, or one is complex.
    """
    check_real(controls)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(controls) if is_parameter(leaf)]
    counts = {shape[:1] for shape in shapes}
    if len(counts) != 1 or () in counts:
        raise ValueError(
            "Every leaf of the control points must have the same leading axis, one row a point; "
            f"got the shapes {shapes}. initial_controls makes them from two models."
        )
    return counts.pop()[0]


def check_positions(positions: ArrayLike) -> None:
    """Raise a ValueError unless `positions` is a vector of at least one number."""
    shape = np.shape(positions)
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(f"positions must have the shape [n], n >= 1, got {shape}.")


def check_curve(t: ArrayLike, count: int, kind: str) -> None:
    """Raise a ValueError for an unknown kind, fewer than two points, or a t outside [0, 1]."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {list(KINDS)}, got {kind!r}.")
    if count < 2:
        raise ValueError(f"A curve needs at least its two ends, got {count} control points.")
    at = known(t)
    if at is not None and not np.all((at >= 0) & (at <= 1)):
        raise ValueError(f"The position t on a curve must lie in [0, 1], got {t}.")
