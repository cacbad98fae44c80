import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.stats import kstest

from sam_jax.metrics.sharpness import balls
from sam_jax.metrics.sharpness.balls import Ball

KEY = jax.random.key(11)


def problem(seed, d=7, spread=2.0):
    """A point and the semi-axes of an ellipsoid, over `spread` decades."""
    rng = np.random.default_rng(seed)
    return 3 * rng.normal(size=d), 10 ** rng.uniform(-spread, 0, size=d)


def as_tree(x):
    return {"a": jnp.asarray(x[:4]).reshape(2, 2), "b": [jnp.asarray(x[4:])]}


def as_array(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@jax.jit
def NEAREST(delta, rho, c):  # noqa: N802
    return balls.nearest_in_ellipsoid(delta, rho, c)


@pytest.mark.parametrize("seed", range(4))
def test_nearest_point_of_an_ellipsoid_agrees_with_a_dense_solver(seed):
    delta, c = problem(seed, spread=1.0)
    rho = 0.7
    # In x / c, where the constraint is a round ball; the solver knows nothing of a multiplier.
    solved = minimize(
        lambda u: 0.5 * np.sum((c * u - delta) ** 2),
        np.full(7, 0.1),
        jac=lambda u: c * (c * u - delta),
        constraints={"type": "ineq", "fun": lambda u: rho**2 - u @ u, "jac": lambda u: -2 * u},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    with jax.enable_x64(True):
        nearest = as_array(NEAREST(as_tree(delta), rho, as_tree(c)))
    np.testing.assert_allclose(nearest, c * solved.x, atol=1e-6)  # the solver's own accuracy
    scaled = delta * rho / np.linalg.norm(delta / c)
    assert np.linalg.norm(nearest - delta) < np.linalg.norm(scaled - delta) - 1e-2


def nearest_by_brent(y, rho, axes):
    """The multiplier by another method and in float64."""
    excess = lambda shift: np.linalg.norm(axes * y / (axes**2 + shift)) - rho  # noqa: E731
    top = 2 * np.linalg.norm(axes * y) / rho
    return axes**2 * y / (axes**2 + brentq(excess, 0, top, xtol=1e-300, rtol=1e-15))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rho=st.floats(1e-4, 100), spread=st.floats(0, 7))
def test_nearest_point_of_an_ellipsoid_is_exact(seed, rho, spread):
    delta, c = problem(seed, spread=spread)
    for x64, precision in ((True, 1e-13), (False, 1e-5)):
        with jax.enable_x64(x64):
            given_delta, given_c = as_tree(delta), as_tree(c)  # rounded to the precision
            nearest = as_array(NEAREST(given_delta, rho, given_c))
        y, axes = as_array(given_delta).astype(np.float64), as_array(given_c).astype(np.float64)
        if np.linalg.norm(y / axes) <= rho:
            np.testing.assert_array_equal(nearest, y)
            continue
        exact = nearest_by_brent(y, rho, axes)
        # On the surface, to the rounding of one sum of seven squares.
        np.testing.assert_allclose(np.linalg.norm(nearest / axes), rho, rtol=precision)
        # Relative to the ball: where one axis fills the norm, the multiplier has few digits.
        np.testing.assert_allclose(
            nearest / axes / rho, exact / axes / rho, atol=1e2 * precision, rtol=0
        )


def test_nearest_point_leaves_the_inside_alone_and_fixes_zero_axes():
    delta, c = np.array([0.1, -0.2, 5.0, np.inf]), np.array([1.0, 1.0, 0.0, 0.0])
    inside = NEAREST(jnp.asarray(delta), 1.0, jnp.asarray(c))
    np.testing.assert_array_equal(inside, np.float32([0.1, -0.2, 0, 0]))
    np.testing.assert_allclose(
        NEAREST(jnp.asarray(delta), 0.1, jnp.asarray(c)), [0.1 / 5**0.5, -0.2 / 5**0.5, 0, 0], 1e-6
    )
    np.testing.assert_array_equal(NEAREST(jnp.ones(3), 0.0, jnp.ones(3)), 0)
    np.testing.assert_array_equal(NEAREST(jnp.zeros(3), 0.0, jnp.ones(3)), 0)


def test_equal_axes_make_the_ellipsoid_a_ball():
    delta, _ = problem(0)
    with jax.enable_x64(True):
        nearest = NEAREST(jnp.asarray(delta), 0.5, jnp.full(7, 3.0))
        np.testing.assert_allclose(nearest, 1.5 * delta / np.linalg.norm(delta), rtol=1e-14)


@pytest.mark.parametrize("metric", balls.METRICS)
@pytest.mark.parametrize("norm", balls.NORMS)
def test_projection_is_idempotent_and_keeps_the_inside(norm, metric):
    delta, c = problem(3)
    c[2] = 0
    size = {"l2": np.linalg.norm, "linf": lambda u: np.max(np.abs(u))}[norm]
    with jax.enable_x64(True):
        ball = Ball(0.6, norm, as_tree(c), metric)
        once = balls.project(ball, as_tree(delta))
        twice = as_array(balls.project(ball, once))
        once = as_array(once)
        inner = 0.3 * once
        np.testing.assert_array_equal(as_array(balls.project(ball, as_tree(inner))), inner)
    movable = c > 0
    np.testing.assert_allclose(size(once[movable] / c[movable]), 0.6, rtol=1e-12)
    assert once[2] == 0
    np.testing.assert_allclose(twice, once, rtol=1e-12)


def test_projections_in_closed_form():
    delta, c = problem(5)
    delta, c = jnp.asarray(delta), jnp.asarray(c)
    box = balls.project(Ball(0.4, "linf", c), delta)
    np.testing.assert_allclose(box, np.clip(delta, -0.4 * c, 0.4 * c), rtol=1e-6)
    np.testing.assert_allclose(
        balls.project(Ball(0.4, "linf"), delta), np.clip(delta, -0.4, 0.4), rtol=1e-6
    )
    # In the norm of the ball the nearest point is a scaling: no closer point is on the surface.
    nearest = balls.project(Ball(0.4, "l2", c), delta)
    np.testing.assert_allclose(nearest, 0.4 * delta / np.linalg.norm(delta / c), rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), norm=st.sampled_from(balls.NORMS), scaled=st.booleans())
def test_steepest_ascent_reaches_the_dual_norm(seed, norm, scaled):
    gradient, c = problem(seed)
    c[1] = 0
    gradient[1] = np.nan  # of a weight that cannot move
    with jax.enable_x64(True):
        axes = as_tree(c) if scaled else None
        if not scaled:
            gradient[1], c = 0.5, np.ones(7)
        step = as_array(balls.steepest_ascent(Ball(1.0, norm, axes), as_tree(gradient)))
    product = np.where(c > 0, c * gradient, 0)
    dual = np.linalg.norm(product) if norm == "l2" else np.sum(np.abs(product))
    unit = np.linalg.norm if norm == "l2" else lambda u: np.max(np.abs(u))
    assert np.all(step[c == 0] == 0)
    np.testing.assert_allclose(unit(step[c > 0] / c[c > 0]), 1, rtol=1e-12)
    np.testing.assert_allclose(step[c > 0] @ gradient[c > 0], dual, rtol=1e-12)


def test_euclidean_step_points_along_the_gradient_and_is_as_long():
    gradient, c = problem(2)
    with jax.enable_x64(True):
        steps = [
            np.asarray(
                balls.steepest_ascent(
                    Ball(1.0, "l2", jnp.asarray(c), metric), jnp.asarray(gradient)
                )
            )
            for metric in balls.METRICS
        ]
    np.testing.assert_allclose(np.linalg.norm(steps[1]), np.linalg.norm(steps[0]), rtol=1e-12)
    np.testing.assert_allclose(steps[1] / steps[1][0], gradient / gradient[0], rtol=1e-12)


def points(ball, params, number=4000):
    keys = jax.random.split(KEY, number)
    return jax.jit(jax.vmap(lambda key: balls.random_point(ball, key, params)))(keys)


def test_random_points_are_uniform_on_the_ball():
    c, rho = np.array([2.0, 0.0, 0.5, 1.0]), 0.3
    x = np.asarray(points(Ball(rho, "l2", jnp.asarray(c)), jnp.zeros(4)))
    assert np.all(x[:, 1] == 0)
    u = x[:, c > 0] / c[c > 0] / rho
    radius = np.linalg.norm(u, axis=1)
    assert radius.max() <= 1 + 1e-5
    # In d dimensions radius^d is uniform; d counts the three weights that move, not four.
    assert kstest(radius**3, "uniform").pvalue > 1e-3
    assert kstest(radius**4, "uniform").pvalue < 1e-6
    # The covariance of a ball in d = 3 dimensions is 1 / (d + 2); its entries have a standard
    # deviation of at most E[u^4]^(1/2) = (3 / 35)^(1/2).
    np.testing.assert_allclose(u.T @ u / len(u), np.eye(3) / 5, atol=5 * (3 / 35 / 4000) ** 0.5)


def test_random_points_are_uniform_on_the_box():
    c, rho = np.array([2.0, 0.0, 0.5]), 0.3
    x = np.asarray(points(Ball(rho, "linf", jnp.asarray(c)), jnp.zeros(3)))
    assert np.all(x[:, 1] == 0)
    for i in (0, 2):
        assert kstest(x[:, i] / (c[i] * rho), "uniform", (-1, 2)).pvalue > 1e-3
    assert abs(np.corrcoef(x[:, 0], x[:, 2])[0, 1]) < 5 / 4000**0.5


def test_semi_axes_follow_the_weights():
    params = {"a": jnp.array([-2.0, 0.0]), "b": None}
    assert balls.semi_axes(params, adaptive=False) is None
    assert balls.semi_axes(params, adaptive=True)["a"].tolist() == [2, 0]
