"""The balls in which an adversary moves the weights: steps, projections, random points."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from sam_jax.draws import random_like
from sam_jax.pytree import in_safe_range, largest, norm, normalise, safe_divide, scale
from sam_jax.typing import Gradients, Key, Params, PyTree, Scalar

NORMS = ("l2", "linf")
METRICS = ("ball", "euclidean")


class Ball(NamedTuple):
    """All delta with ||delta / c|| <= rho, and delta_i = 0 wherever c_i = 0."""

    rho: Scalar  # radius
    norm: Literal["l2", "linf"] = "l2"
    semi_axes: PyTree | None = None  # c >= 0 with the shapes of the parameters; None for all one
    metric: Literal["ball", "euclidean"] = "ball"  # measures steps and distances of an "l2" ball


def semi_axes(params: Params, *, adaptive: bool) -> PyTree | None:
    """Return c, which is |w| or one.

    Args:
      params: parameters w.
      adaptive: whether c is |w| rather than one.

    Returns:
      A pytree like `params`, or None where c is one everywhere.

    >>> semi_axes({"kernel": jnp.array([-2.0, 0.0])}, adaptive=True)["kernel"].tolist()
    [2.0, 0.0]
    """
    return jax.tree.map(jnp.abs, params) if adaptive else None


def steepest_ascent(ball: Ball, gradient: Gradients) -> PyTree:
    r"""Return the step of unit length that ascends most.

    In the norm of the ball, from its centre a step of length rho is the maximum of a linear loss:

    .. math::
      \text{l2: } \frac{c^2 g}{\|c\, g\|_2}, \qquad \text{linf: } c\, \mathrm{sign}(g)

    In the Euclidean metric the direction of an "l2" ball is g itself (of the weights that can
    move), as long as the step above.

    Args:
      ball: the ball.
      gradient: g, a pytree like the parameters.

    Returns:
      A pytree like `gradient`; zero where the gradient is zero.

    >>> ball = Ball(rho=0.1, semi_axes=jnp.array([2.0, 1.0, 0.0]))
    >>> print(steepest_ascent(ball, jnp.array([1.5, 4.0, 9.0])))  # c g = (3, 4, 0)
    [1.2 0.8 0. ]
    """
    c = ball.semi_axes
    if c is not None:
        # Selected, not multiplied by zero: a weight that is fixed may have an infinite gradient.
        gradient = jax.tree.map(lambda c, g: jnp.where(c > 0, g, jnp.zeros_like(g)), c, gradient)
    if ball.norm == "linf":
        return _times(c, jax.tree.map(jnp.sign, gradient))
    if c is None:
        return normalise(gradient)
    # Brought into the middle of the range by exact powers of two, before they meet.
    step = _times(c, normalise(_times(in_safe_range(c)[0], in_safe_range(gradient)[0])))
    return step if ball.metric == "ball" else scale(normalise(gradient), norm(step))


def project(ball: Ball, delta: PyTree) -> PyTree:
    """Return the point of the ball that is closest to `delta`.

    For "l2" in the norm of the ball that is a scaling of `delta`, in the Euclidean metric the
    nearest point of the ellipsoid; the two agree for equal semi-axes. For "linf" both are a clamp.

    Args:
      ball: the ball.
      delta: a pytree like the parameters.

    Returns:
      A pytree like `delta`, in its dtypes.

    >>> print(project(Ball(rho=1.0), jnp.array([3.0, 4.0])))
    [0.6 0.8]
    >>> box = Ball(rho=0.5, norm="linf", semi_axes=jnp.array([2.0, 8.0]))
    >>> print(project(box, jnp.array([3.0, -4.0])))
    [ 1. -4.]
    """
    c = ball.semi_axes
    if ball.norm == "linf":
        bounds = jax.tree.map(lambda d: jnp.full_like(d, ball.rho), delta)
        bounds = _times(c, bounds)
        return jax.tree.map(
            lambda d, bound: jnp.clip(d, -bound, bound).astype(d.dtype), delta, bounds
        )
    if c is not None and ball.metric == "euclidean":
        return nearest_in_ellipsoid(delta, ball.rho, c)
    if c is not None:  # in the coordinates delta / c, where the ball is round
        delta = jax.tree.map(lambda d, c: jnp.where(c > 0, d, jnp.zeros_like(d)), delta, c)
        length = norm(jax.tree.map(safe_divide, delta, c))
    else:
        length = norm(delta)
    factor = jnp.where(length > ball.rho, safe_divide(ball.rho, length), 1)
    return jax.tree.map(lambda leaf: (factor * leaf).astype(leaf.dtype), delta)


def nearest_in_ellipsoid(delta: PyTree, rho: Scalar, semi_axes: PyTree) -> PyTree:
    r"""Return the point of an ellipsoid that is closest to `delta` in the Euclidean norm.

    .. math::
      \arg\min_{\|x / c\|_2 \le \rho} \|x - \delta\|_2
        = \frac{c^2 \delta}{c^2 + \lambda}, \qquad
      \lambda \ge 0: \ \Big\|\frac{c\, \delta}{c^2 + \lambda}\Big\|_2 = \rho

    The multiplier lambda is the root of a decreasing function, between ||c delta|| / rho - max c^2
    and ||c delta|| / rho. It is bisected until no number lies in between. Each halving costs one
    pass over `delta`; about 25 are needed in float32, 55 in float64, and more where lambda is far
    smaller than the largest c^2.

    Args:
      delta: a pytree of arrays.
      rho: radius.
      semi_axes: c >= 0, a pytree like `delta`; where c_i is zero the point is zero.

    Returns:
      A pytree like `delta`; `delta` itself where it lies inside.

    >>> print(nearest_in_ellipsoid(jnp.array([0.0, 9.0]), 1.0, jnp.array([5.0, 2.0])))
    [0. 2.]
    """
    # Exact powers of two, so that no square of an axis leaves the range.
    semi_axes, power = in_safe_range(semi_axes)
    scaled = jax.tree.map(
        lambda d, c: jnp.where(c > 0, power * d, jnp.zeros_like(d)), delta, semi_axes
    )

    def over_axes(multiplier: Scalar) -> PyTree:
        """Return x / c for the point x of a multiplier, without squares that could underflow."""
        return jax.tree.map(
            lambda d, c: safe_divide(d, c + safe_divide(multiplier, c)), scaled, semi_axes
        )

    bound = norm(_times(semi_axes, scaled)) / rho
    widest = largest(semi_axes)
    # A little wider than the bounds, which are rounded as well.
    slack = 4 * jnp.finfo(bound.dtype).eps
    upper = (1 + slack) * bound
    lower = jnp.maximum((1 - slack) * bound - (1 + slack) * widest**2, 0)

    def middle(bracket: tuple[jax.Array, jax.Array]) -> jax.Array:
        return bracket[0] + (bracket[1] - bracket[0]) / 2

    def halve(bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        centre = middle(bracket)
        too_long = norm(over_axes(centre)) > rho
        return jnp.where(too_long, centre, bracket[0]), jnp.where(too_long, bracket[1], centre)

    def unresolved(bracket: tuple[jax.Array, jax.Array]) -> jax.Array:
        return (bracket[0] < middle(bracket)) & (middle(bracket) < bracket[1])

    inside = norm(over_axes(0.0)) <= rho
    _, multiplier = jax.lax.while_loop(unresolved, halve, (jnp.where(inside, upper, lower), upper))
    return jax.tree.map(
        lambda d, x, c: jnp.where(inside & (c > 0), d, x / power).astype(d.dtype),
        delta,
        _times(semi_axes, over_axes(multiplier)),
        semi_axes,
    )


def random_point(ball: Ball, key: Key, params: Params) -> PyTree:
    """Return a point that is uniformly distributed over the ball.

    With d weights that can move, an "l2" point is rho * c * U^(1/d) * z / ||z|| with z ~ N(0, I)
    and U ~ U(0, 1): in many dimensions nearly all of the ball is close to its surface.

    Args:
      ball: the ball.
      key: a typed key.
      params: structure and shapes of the point.

    Returns:
      A pytree like `params`, in float32 or wider.

    >>> point = random_point(Ball(rho=2.0), jax.random.key(0), jnp.zeros(1000))
    >>> print(f"{jnp.linalg.norm(point):.2f}")
    1.99
    """
    c = ball.semi_axes
    if ball.norm == "linf":
        uniform = random_like(key, params, "uniform")
        return scale(_times(c, jax.tree.map(lambda u: 2 * u - 1, uniform)), ball.rho)
    z = random_like(jax.random.fold_in(key, 0), params)
    movable = jax.tree.map(jnp.ones_like, z)
    if c is not None:
        movable = jax.tree.map(lambda c, one: jnp.where(c > 0, one, 0), c, movable)
    direction = normalise(_times(movable, z))
    # The norm of ones is the square root of the number of weights.
    share = jax.random.uniform(jax.random.fold_in(key, 1)) ** safe_divide(1, norm(movable) ** 2)
    return scale(_times(c, direction), ball.rho * share)


def check_ball(norm: str, metric: str) -> None:
    """Raise a ValueError that lists the known values unless both are known."""
    for name, value, known in (("norm", norm, NORMS), ("metric", metric, METRICS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {list(known)}, got {value!r}.")


def _times(factors: PyTree | None, tree: PyTree) -> PyTree:
    """Return the product leaf by leaf; None stands for one."""
    return tree if factors is None else jax.tree.map(jnp.multiply, factors, tree)
