"""Lengths of curves between models, and planes through them, in float64 on the host.

Differences of nearby models are small beside the models themselves. In float32 an orthogonal
coordinate that should be zero comes out as about 0.01 for a network of two million parameters.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.metrics.checks import check_count, check_direction, check_finite, check_positive
from sam_jax.metrics.parameters import chosen_parameters, map_parameters
from sam_jax.metrics.paths.curves import check_positions, host_coefficients, number_of_controls
from sam_jax.pytree import is_parameter
from sam_jax.typing import AnyArray, Float, Num, Params, PyTree


class Plane(NamedTuple):
    """A plane through three models, with orthonormal axes."""

    origin: Params  # float64 NumPy arrays; leaves that are no parameters come from the first
    first_axis: PyTree  # unit length, from the origin towards the second model
    second_axis: PyTree  # unit length, orthogonal to the first, towards the third model's side
    coordinates: Float[
        np.ndarray, "3 2"
    ]  # [3, 2] float64, of the three models in the order they were given


def chord_lengths(
    controls: PyTree, positions: Num[AnyArray, " points"], kind: str = "chain"
) -> Float[np.ndarray, " points-1"]:
    r"""Return the distances between neighbouring points of a curve.

    .. math::
      \Delta_i = \|w(t_{i+1}) - w(t_i)\|_2

    They follow from the inner products of the sides w_{k+1} - w_k, which are added up leaf by
    leaf: no point of the curve is formed.

    Args:
      controls: the control points, leaves [K + 1, ...].
      positions: t, shape [n], in [0, 1].
      kind: "chain" or "bezier".

    Returns:
      float64 [n - 1], in units of distance between parameters. One pass over the control points
      serves any number of positions.

    Raises:
      ValueError: as `curve_coefficients`, `positions` is not a non-empty vector, or the leaves
        differ in their leading axis.

    >>> chord_lengths(jnp.array([[0.0], [4.0], [1.0]]), np.array([0.0, 0.5, 1.0])).tolist()
    [4.0, 3.0]
    """
    check_positions(positions)
    count = number_of_controls(controls)
    coefficients = host_coefficients(np.asarray(positions, np.float64), count, kind)
    # w(t) = w_0 + sum_k S_k(t) (w_{k+1} - w_k), where S_k is the sum of c_j over j > k.
    shares = np.cumsum(coefficients[::-1], axis=0)[-2::-1]
    steps = np.diff(shares, axis=1)
    gram = np.zeros((count - 1, count - 1))
    for leaf in jax.tree.leaves(_wide(controls)):
        sides = np.diff(leaf.reshape(count, -1), axis=0)
        gram += sides @ sides.T
    return np.sqrt(np.maximum(np.einsum("ki,kl,li->i", steps, gram, steps), 0))


def plane_through(first: Params, second: Params, third: Params) -> Plane:
    r"""Return the plane through three models by Gram-Schmidt orthogonalisation.

    .. math::
      u = \frac{w_2 - w_1}{\|w_2 - w_1\|_2}, \qquad
      v \propto (w_3 - w_1) - \langle w_3 - w_1, u \rangle \, u

    For a curve with one bend take the two ends first, then the bend.

    Args:
      first: w_1, the origin.
      second: w_2, at (|w_2 - w_1|, 0).
      third: w_3, at (x, y) with y > 0.

    Returns:
      A Plane; `origin + x * first_axis + y * second_axis` is the model at (x, y).

    Raises:
      ValueError: the models do not fit each other, hold no array, are not finite, or lie on one
        line to rounding.

    >>> plane = plane_through(jnp.array([0.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array([1.0, 3.0]))
    >>> plane.coordinates.tolist()
    [[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]]

    Source: Garipov et al. 2018, figure 1, with the orthogonalisation in float64.
    """
    chosen_parameters(first, name="first")
    models = {"first": first, "second": second, "third": third}
    for name, model in models.items():
        models[name] = check_direction(name, model, first)
        check_finite(name, models[name])
    origin = map_parameters(_float64, first)
    along, aside = (_subtract(models[name], origin) for name in ("second", "third"))
    resolution = (
        4 * _epsilon(models["first"]) * max(_norm(_wide(origin)), _norm(along), _norm(aside))
    )
    distance = _norm(along)
    if not distance > resolution:
        raise ValueError("The first two models are the same to rounding; a plane needs three.")
    u = jax.tree.map(lambda x: x / distance, along)
    x, v = 0.0, aside
    for _ in range(2):  # once more takes out what rounding left of the first axis
        component = _dot(v, u)
        x += component
        v = jax.tree.map(lambda a, b, c=component: a - c * b, v, u)
    y = _norm(v)
    if not y > resolution:
        raise ValueError(
            "The three models lie on one line to rounding, and no plane is theirs alone. An "
            "untrained curve is such a line; train it, or take another third model."
        )
    v = jax.tree.map(lambda a: a / y, v)
    return Plane(origin, u, v, np.array([[0.0, 0.0], [distance, 0.0], [x, y]]))


def plane_coordinates(plane: Plane, params: Params) -> Float[np.ndarray, "2"]:
    r"""Return the coordinates of the orthogonal projection of a model onto a plane.

    .. math::
      x = \langle w - o, u \rangle, \qquad y = \langle w - o, v \rangle

    Args:
      plane: its origin o and its axes u and v, from `plane_through` or `trajectory_plane`.
      params: w, a model of the same architecture, in the plane or not.

    Returns:
      (x, y), float64 [2], in units of distance between parameters.

    Raises:
      ValueError: the model does not fit the plane.

    >>> plane = plane_through(jnp.zeros(3), jnp.array([2.0, 0, 0]), jnp.array([1.0, 3, 0]))
    >>> plane_coordinates(plane, jnp.array([4.0, 5.0, 6.0])).tolist()
    [4.0, 5.0]

    Source: Garipov et al. 2018, figure 1, for models in the plane.
    """
    offset = _subtract(check_direction("params", params, plane.origin), plane.origin)
    return np.array([_dot(offset, plane.first_axis), _dot(offset, plane.second_axis)])


def curve_coordinates(
    plane: Plane, controls: PyTree, positions: Num[AnyArray, " points"], kind: str = "chain"
) -> Float[np.ndarray, "points 2"]:
    r"""Return the coordinates of points of a curve, projected onto a plane.

    .. math::
      (x, y)(t) = \sum_k c_k(t) \, (x_k, y_k)

    with the coordinates (x_k, y_k) of the control points and their weights of
    `curve_coefficients`: these sum to one, and a projection onto a plane keeps such sums.

    Args:
      plane: from `plane_through` or `trajectory_plane`.
      controls: the control points, leaves [K + 1, ...].
      positions: t, shape [n], in [0, 1].
      kind: "chain" or "bezier".

    Returns:
      float64 [n, 2], in units of distance between parameters.

    Raises:
      ValueError: as `plane_coordinates` and `chord_lengths`.

    >>> plane = plane_through(jnp.array([0.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array([1.0, 3.0]))
    >>> curve = jnp.array([[0.0, 0.0], [1.0, 3.0], [2.0, 0.0]])
    >>> curve_coordinates(plane, curve, np.array([0.25, 0.5])).tolist()
    [[0.5, 1.5], [1.0, 3.0]]
    """
    check_positions(positions)
    count = number_of_controls(controls)
    host = _wide(controls)
    rows = [jax.tree.map(lambda leaf, k=k: leaf[k], host) for k in range(count)]
    of_controls = np.stack([plane_coordinates(plane, row) for row in rows])
    return host_coefficients(np.asarray(positions), count, kind).T @ of_controls


def grid_around(
    coordinates: Num[AnyArray, "models 2"], points: int = 21, margin: float = 0.2
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " rows"]]:
    r"""Return the axes of a grid with all given points of a plane inside of it.

    .. math::
      \min_i x_i - m e \;\dots\; \max_i x_i + m e, \qquad
      e = \max(\max_i x_i - \min_i x_i, \; \max_i y_i - \min_i y_i)

    with the margin m, in equal steps, and likewise for y with the same e.

    Args:
      coordinates: shape [n, 2], as `plane_through` and `trajectory_plane` return them.
      points: how many points the grid has along each axis, at least two.
      margin: m, the width added at each side, as a share of the larger of the two extents.

    Returns:
      xs and ys, float64 [points] each.

    Raises:
      ValueError: the coordinates are not [n, 2], n >= 1, or are not finite, or all the same
        point; `points` is below two; `margin` is negative.

    >>> xs, ys = grid_around([[0.0, 0.0], [10.0, 5.0]], points=3)
    >>> xs.tolist(), ys.tolist()
    ([-2.0, 5.0, 12.0], [-2.0, 2.5, 7.0])
    """
    coordinates = np.asarray(coordinates, np.float64)
    shape = coordinates.shape
    if len(shape) != 2 or shape[1] != 2 or not shape[0] or not np.isfinite(coordinates).all():
        raise ValueError(
            f"coordinates must be finite, of shape [n, 2], n >= 1; got {coordinates!r}."
        )
    check_count("points", points)
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points}.")
    check_positive("margin", margin, or_zero=True)
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    extent = np.max(high - low)
    if not extent > 0:
        raise ValueError("coordinates are all the same point; choose the axes of the grid by hand.")
    low, high = low - margin * extent, high + margin * extent
    return np.linspace(low[0], high[0], points), np.linspace(low[1], high[1], points)


def _wide(params: Params) -> PyTree:
    """Return the parameters in float64 on the host, and None at all other leaves."""
    return jax.tree.map(lambda w: _float64(w) if is_parameter(w) else None, params)


def _float64(w: jax.Array) -> np.ndarray:
    return np.asarray(w).astype(np.float64, copy=False)


def _subtract(model: PyTree, origin: PyTree) -> PyTree:
    """Return the difference of two models, None at leaves that are no parameters."""
    return jax.tree.map(lambda w, o: w - o, _wide(model), _wide(origin))


def _dot(a: PyTree, b: PyTree) -> float:
    products = jax.tree.map(lambda x, y: float(np.vdot(x, y)), a, b)
    return sum(jax.tree.leaves(products))


def _norm(a: PyTree) -> float:
    return float(np.sqrt(_dot(a, a)))


def _epsilon(params: Params) -> float:
    return max(float(jnp.finfo(jnp.result_type(w)).eps) for w in jax.tree.leaves(params))
