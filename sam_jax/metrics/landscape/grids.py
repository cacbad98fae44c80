"""The loss on a grid of points along one direction or in a plane of parameters.

The points are independent of each other, so they can be shared out over the devices of a mesh.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sam_jax.metrics.checks import check_moves, check_vector, described, is_real_scalar
from sam_jax.metrics.directions.parallel import check_not_parallel
from sam_jax.metrics.evaluation import full_precision
from sam_jax.metrics.over_devices import over_devices
from sam_jax.metrics.parameters import loss_of_parameters
from sam_jax.pytree import widen
from sam_jax.typing import AnyArray, LossesFn, Num, Params, PyTree

BATCH_NORM_POLICIES = ("running", "batch", "recalibrated")


# Dataclasses and not tuples, so that the name of the policy can leave a function under jit.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossLine:
    """What `loss_fn` returns along one direction."""

    values: PyTree  # shape [k] a scalar of loss_fn; values not finite are kept
    distances: Num[AnyArray, " points"]  # shape [k], in lengths of the direction
    # "running", "batch", "recalibrated", or None for a network without batch norm
    batch_norm: str | None = dataclasses.field(default=None, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossPlane:
    """What `loss_fn` returns in a plane, row by row as contour plots take it."""

    values: PyTree  # shape [len(ys), len(xs)] a scalar of loss_fn; values not finite are kept
    xs: Num[AnyArray, " columns"]  # shape [len(xs)], in lengths of direction_x
    ys: Num[AnyArray, " rows"]  # shape [len(ys)], in lengths of direction_y
    # "running", "batch", "recalibrated", or None for a network without batch norm
    batch_norm: str | None = dataclasses.field(default=None, metadata={"static": True})


@full_precision
def loss_line(
    loss_fn: LossesFn,
    params: Params,
    direction: PyTree,
    distances: Num[AnyArray, " points"] | Sequence[float],
    *,
    mesh: Mesh | None = None,
    batch_norm: str | None = None,
) -> LossLine:
    r"""Return the losses along a line, as `loss_curve` does, with accuracy and over devices.

    .. math::
      L(w + t_j \, d)

    Args:
      loss_fn: `loss_fn(params)` -> the scalar loss over the whole set, or a pytree of scalars
        such as loss and accuracy.
      params: w. They are widened to float32 if narrower.
      direction: d, a pytree like `params`, used as given.
      distances: t, shape [k], of either sign.
      mesh: devices to share the points out over, see `loss_plane`; None evaluates all on one.
      batch_norm: where `loss_fn` takes the statistics of batch norm from, see `loss_plane`.

    Returns:
      A LossLine, at the cost of k evaluations.

    Raises:
      ValueError: as `loss_plane`.

    Source: Li et al. 2018, as `loss_plane`.

    >>> line = loss_line(lambda w: jnp.sum(w**2), jnp.ones(2), jnp.ones(2), [-1.0, 0.0, 1.0])
    >>> line.values.tolist()
    [0.0, 2.0, 8.0]
    """
    distances = widen(check_vector("distances", distances))
    check_batch_norm(batch_norm)
    values = values_at(
        _scalars(loss_fn), params, {"direction": direction}, distances[:, None], mesh
    )
    return LossLine(values, distances, batch_norm)


@full_precision
def loss_plane(
    loss_fn: LossesFn,
    params: Params,
    direction_x: PyTree,
    direction_y: PyTree,
    xs: Num[AnyArray, " columns"] | Sequence[float],
    ys: Num[AnyArray, " rows"] | Sequence[float],
    *,
    mesh: Mesh | None = None,
    batch_norm: str | None = None,
) -> LossPlane:
    r"""Return the losses on a grid in the plane that two directions span.

    .. math::
      L(w + x_j \, d_x + y_i \, d_y)

    The points are evaluated one after the other, never batched over weights, which would turn
    every convolution into a grouped one. With a mesh each device takes an equal part of them (the
    last point is repeated to fill the parts). Under `jax.jit` everything is compiled once for all
    models of one shape; `mesh` and `batch_norm` are constants of the compiled function.

    A pair of random directions comes from `random_directions(key, params, 2, "gaussian",
    "filter")`. The plane through three models comes from `plane_through`, the plane of a training
    run from `trajectory_plane`, each with the grid of `grid_around`.

    Args:
      loss_fn: `loss_fn(params)` -> the scalar loss over the whole set, or a pytree of scalars
        such as loss and accuracy.
      params: w. They are widened to float32 if narrower.
      direction_x: d_x, a pytree like `params`, used as given.
      direction_y: d_y, likewise. Right angles are the caller's choice and not checked.
      xs: shape [p], of either sign.
      ys: shape [q], of either sign.
      mesh: devices to share the points out over, along all axes of the mesh, explicit ones (as
        `jax.make_mesh` gives) or not; None evaluates all on one. Every device gets all parameters.
        Parameters and data must not be bound to a device outside of the mesh. `loss_fn` must not
        close over arrays that lie on its explicit axes: without `mesh` every evaluation is split as
        such data are.
      batch_norm: the statistics that `loss_fn` normalises with, for the record and the titles of
        plots: the "running" statistics of the model at w, the statistics of each "batch", or
        running statistics "recalibrated" at every point. It changes no number here, but the three
        give surfaces that cannot be compared. None where the network has no batch norm.

    Returns:
      A LossPlane, at the cost of p q evaluations.

    Raises:
      ValueError: a direction does not fit `params`, is zero or is not finite; the two are parallel
        to rounding, so that they span no plane; the grid is not two
        non-empty vectors of finite numbers; the policy is unknown; or `loss_fn` does not return
        scalars.

    References:
      Li et al., Visualizing the Loss Landscape of Neural Nets, 2018,
      https://arxiv.org/abs/1712.09913

    >>> bowl = lambda w: w[0] ** 2 + 10 * w[1]
    >>> x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> loss_plane(bowl, jnp.zeros(2), x, y, [0.0, 1.0, 2.0], [0.0, 1.0]).values.tolist()
    [[0.0, 1.0, 4.0], [10.0, 11.0, 14.0]]
    """
    xs, ys = widen(check_vector("xs", xs)), widen(check_vector("ys", ys))
    check_batch_norm(batch_norm)
    points = jnp.stack(jnp.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    directions = {"direction_x": direction_x, "direction_y": direction_y}
    values = values_at(_scalars(loss_fn), params, directions, points, mesh)
    shape = (ys.size, xs.size)
    return LossPlane(jax.tree.map(lambda v: v.reshape(shape), values), xs, ys, batch_norm)


def check_batch_norm(batch_norm: str | None) -> None:
    """Raise a ValueError that lists the known policies unless this is one of them, or None."""
    if batch_norm is not None and batch_norm not in BATCH_NORM_POLICIES:
        raise ValueError(
            f"batch_norm must be one of {list(BATCH_NORM_POLICIES)}, or None for a network "
            f"without batch norm; got {batch_norm!r}."
        )


def _scalars(loss_fn: LossesFn) -> Callable[[Params], PyTree]:
    def checked(params: Params) -> PyTree:
        values = loss_fn(params)
        leaves = jax.tree.leaves(values)
        if not leaves or not all(map(is_real_scalar, leaves)):
            raise ValueError(
                "loss_fn must return a real scalar or a pytree of them, such as the loss and the "
                f"accuracy; got {jax.tree.map(described, values, is_leaf=lambda x: x is None)}."
            )
        return jax.tree.map(lambda value: widen(jnp.asarray(value)), values)

    return checked


def values_at(
    fn: LossesFn,
    params: Params,
    directions: dict[str, PyTree],
    points: jax.Array,
    mesh: Mesh | None,
) -> PyTree:
    r"""Return `fn` at `params` moved by every row of `points`, in their order.

    .. math::
      \mathrm{fn}\Big(w + \sum_j t_{ij} \, d_j\Big), \quad i = 1, \dots, n

    Lines and planes are evaluated with it. So is a long grid, part by part, where measured points
    must not be lost.

    Args:
      fn: a function of parameters that returns a pytree of arrays of fixed shapes.
      params: w. They are widened to float32 if narrower.
      directions: name -> d_j, a pytree like `params`; the names serve the error messages.
      points: t, shape [n, number of directions].
      mesh: devices to share the points out over, along all axes of the mesh; None evaluates all
        on one.

    Returns:
      The result of `fn`, each array with a leading axis [n]; values that are not finite are kept.

    Raises:
      ValueError: a direction that does not fit `params`, is zero, not finite, or parallel to
        another.

    >>> x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> points = jnp.array([[0.0, 0.0], [1.0, 2.0], [3.0, 0.0]])
    >>> values_at(jnp.sum, jnp.ones(2), {"x": x, "y": y}, points, None).tolist()
    [2.0, 5.0, 5.0]
    """
    directions = {name: check_moves(name, d, params) for name, d in directions.items()}
    check_not_parallel(directions)
    fn, params = loss_of_parameters(fn, params)

    def evaluate(points: jax.Array, params: Params, directions: tuple[PyTree, ...]) -> PyTree:
        def moved(point: jax.Array) -> Params:
            def move(weights: jax.Array, *along: jax.Array) -> jax.Array:
                step = sum(x * widen(d) for x, d in zip(point, along, strict=True))
                return (weights + step).astype(weights.dtype)

            return jax.tree.map(move, params, *directions)

        return jax.lax.map(lambda point: fn(moved(point)), points)

    arguments = params, tuple(directions.values())
    if mesh is None:
        return evaluate(points, *arguments)
    return over_devices(evaluate, mesh)(points, *arguments)
