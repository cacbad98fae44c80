"""Curves between models against other constructions of them, closed forms, and a toy valley."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from sam_jax.metrics.paths import curve_geometry, curve_losses, curves

KINDS = ["chain", "bezier"]


def controls_of(count, seed=0, dtype=np.float32, width=4):
    rng = np.random.default_rng(seed)
    return {
        "a": jnp.asarray(rng.normal(size=(count, width)), dtype),
        "b": {"c": jnp.asarray(rng.normal(size=(count, 2, 3)), dtype)},
    }


def row(controls, k):
    return jax.tree.map(lambda leaf: leaf[k], controls)


def flat(params):
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(params)])


def flat_rows(controls):
    return np.stack([flat(row(controls, k)) for k in range(curves.number_of_controls(controls))])


def other_construction(points, t, kind):
    """Interpolation between neighbours by NumPy; de Casteljau's repeated halving for Bezier."""
    if kind == "chain":
        nodes = np.linspace(0, 1, len(points))
        return np.array([np.interp(t, nodes, column) for column in points.T])
    while len(points) > 1:
        points = (1 - t) * points[:-1] + t * points[1:]
    return points[0]


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.integers(2, 9), st.sampled_from(KINDS))
def test_coefficients_sum_to_one_and_give_the_other_construction(t, count, kind):
    with jax.enable_x64(True):
        c = np.asarray(curves.curve_coefficients(jnp.float64(t), count, kind))
    assert c.shape == (count,) and np.all(c >= 0)
    # About ten roundings of numbers up to one.
    assert abs(c.sum() - 1) < 1e-14
    np.testing.assert_allclose(curves.host_coefficients(t, count, kind), c, atol=1e-14)
    points = np.random.default_rng(count).normal(size=(count, 3))
    np.testing.assert_allclose(c @ points, other_construction(points, t, kind), atol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_ends_of_a_curve_are_the_two_models(count, kind, dtype):
    """The second model is the last control point, however many bends there are."""
    start, end = row(controls_of(2, 1, dtype), 0), row(controls_of(2, 1, dtype), 1)
    controls = controls_of(count, 2, dtype)
    if count > 2:
        bad = jax.tree.map(lambda b: b.at[0].set(jnp.nan), curves.bends_of(controls))
        controls = curves.join_controls(start, bad, end)
    else:
        controls = jax.tree.map(lambda w, v: jnp.stack([w, v]), start, end)
    assert curves.number_of_controls(controls) == count
    for t, model in ((0.0, start), (1.0, end)):
        for point in (
            curves.curve_point(controls, t, kind),
            jax.jit(lambda c, t: curves.curve_point(c, t, kind))(controls, t),
        ):
            for x, y in zip(jax.tree.leaves(point), jax.tree.leaves(model), strict=True):
                assert x.dtype == dtype
                np.testing.assert_array_equal(x, y)
    if count > 2:  # the bend that is not finite does take part elsewhere
        assert np.isnan(flat(curves.curve_point(controls, 0.3 / (count - 1), kind))).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bends", [1, 2, 4])
def test_an_untrained_curve_is_the_straight_line(bends, kind):
    ends = controls_of(2, 3)
    controls = curves.initial_controls(row(ends, 0), row(ends, 1), bends)
    assert curves.number_of_controls(controls) == bends + 2
    for k, x in ((0, 0), (-1, 1)):
        np.testing.assert_array_equal(flat(row(controls, k)), flat(row(ends, x)))
    for t in (0.0, 0.13, 0.5, 0.9, 1.0):
        line = (1 - t) * flat(row(ends, 0)) + t * flat(row(ends, 1))
        point = flat(curves.curve_point(controls, t, kind))
        np.testing.assert_allclose(point, line, atol=1e-6)
    bent = jax.tree.map(lambda leaf: leaf.at[1].add(1.0), controls)
    assert np.abs(flat(curves.curve_point(bent, 0.4, kind)) - flat(row(ends, 0))).max() > 0.1
    other = flat(curves.curve_point(bent, 0.4, kind)) - flat(
        curves.curve_point(controls, 0.4, kind)
    )
    coefficient = curves.host_coefficients(0.4, bends + 2, kind)[1]
    np.testing.assert_allclose(other, coefficient, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.77])
def test_gradient_of_the_bends_by_the_chain_rule(kind, t):
    def loss(w):
        return jnp.sum(jnp.sin(w["a"])) + jnp.sum(w["b"]["c"] ** 3)

    with jax.enable_x64(True):
        controls = controls_of(5, 4, jnp.float64)
        start, bends, end = row(controls, 0), curves.bends_of(controls), row(controls, 4)

        def at(bends):
            return curves.curve_point(curves.join_controls(start, bends, end), t, kind)

        wanted = jax.grad(lambda bends: loss(at(bends)))(bends)
        gradient = jax.grad(loss)(at(bends))
        result = curves.bend_gradients(gradient, t, bends, kind)
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)
    # At the start no bend has a share; elsewhere the gradient at w(t) alone is not the answer.
    assert np.any(flat(result)) == (t > 0)
    assert np.abs(np.asarray(result["a"]) - np.asarray(gradient["a"])).max() > 1e-2


def valley(w):
    """Zero on the unit circle."""
    return (jnp.sum(w**2) - 1) ** 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_curve_follows_the_valley_around_the_barrier(kind):
    angle = np.deg2rad(150)
    start, end = jnp.array([1.0, 0.0]), jnp.array([np.cos(angle), np.sin(angle)], jnp.float32)
    controls = curves.initial_controls(start, end, bends=2)
    positions = np.linspace(0, 1, 61)

    @jax.jit
    def barrier(controls):
        losses = curve_losses.losses_on_curve(valley, controls, positions, kind)
        return curve_losses.loss_barrier(positions, losses)

    @jax.jit
    def train(bends):
        def step(bends, key):
            t = jax.random.uniform(key)
            w = curves.curve_point(curves.join_controls(start, bends, end), t, kind)
            return bends - 0.1 * curves.bend_gradients(jax.grad(valley)(w), t, bends, kind), None

        return jax.lax.scan(step, bends, jax.random.split(jax.random.key(0), 1500))[0]

    # The middle of the chord is at the distance cos(75 degrees) from the centre.
    untrained = barrier(controls)
    assert float(untrained.height) == pytest.approx((np.cos(angle / 2) ** 2 - 1) ** 2, rel=1e-4)
    assert float(untrained.position) == pytest.approx(0.5, abs=0.02)
    trained = curves.join_controls(start, train(curves.bends_of(controls)), end)
    # A chain of three sides over 150 degrees cuts off at least 1 - cos(25 degrees) of the radius.
    assert float(barrier(trained).height) < 0.06
    assert length_of(trained, kind) > 1.2 * 2 * np.sin(angle / 2)
    np.testing.assert_array_equal(trained[0], start)
    np.testing.assert_array_equal(trained[-1], end)


def test_losses_on_a_curve_are_compiled_once_and_keep_what_is_not_finite():
    traces = []

    def loss_fn(w):
        traces.append(1)
        return jnp.log(w["a"][0]) + jnp.sum(w["b"]["c"])

    positions = np.array([0.0, 0.25, 0.6, 1.0], np.float32)
    measure = jax.jit(lambda c, t: curve_losses.losses_on_curve(loss_fn, c, t, "bezier"))
    for seed in (5, 6, 7):
        controls = controls_of(3, seed)
        controls["a"] = controls["a"].at[:, 0].set(jnp.array([-0.1, 1.0, 2.0]))
        losses = measure(controls, positions)
        assert len(traces) == 1
        for t, loss in zip(positions[1:], losses[1:], strict=True):
            point = curves.curve_point(controls, t, "bezier")
            wanted = np.log(point["a"][0]) + np.sum(point["b"]["c"])
            np.testing.assert_allclose(loss, wanted, rtol=1e-5)
        assert np.isnan(losses[0])


@pytest.mark.parametrize(
    ("losses", "height", "position"),
    [
        ([1.0, 2.0, 3.0, 5.0], 0.0, None),  # convex: below the line
        ([1.0, 4.0, 3.0, 5.0], 2.0, 0.25),  # the line is at 2 there
        ([5.0, 4.5, 4.9, 1.0], 1.9, 0.5),  # the highest above the line is not the highest loss
        ([0.0, np.inf, 3.0, 5.0], np.inf, 0.25),
        ([0.0, np.nan, 3.0, 5.0], np.nan, 0.25),
        ([np.inf, 2.0, 3.0, 5.0], np.nan, None),  # no line, so nothing above it
        ([0.0, 2.0, 3.0, np.inf], np.nan, None),
        ([np.nan, 2.0, 3.0, 5.0], np.nan, None),
    ],
)
def test_barrier_above_the_line_between_the_ends(losses, height, position):
    barrier = curve_losses.loss_barrier(np.array([0.0, 0.25, 0.5, 1.0]), np.array(losses))
    np.testing.assert_allclose(barrier.height, height, rtol=1e-6)
    if position is not None:
        assert float(barrier.position) == position


def test_two_ends_have_no_barrier_unless_one_is_unknown():
    for losses, height in (([1.0, 3.0], 0.0), ([1.0, np.nan], np.nan)):
        barrier = curve_losses.loss_barrier(np.array([0.0, 1.0]), np.array(losses))
        np.testing.assert_array_equal(barrier.height, height)


def test_summary_weights_the_integral_by_length():
    values, lengths = np.array([1.0, 3.0, 0.0]), np.array([1.0, 9.0])
    summary = curve_losses.summarise_curve(values, lengths)
    assert [float(x) for x in summary[:2]] == [0.0, 3.0]
    assert float(summary.mean) == pytest.approx(4 / 3)
    assert float(summary.integral) == pytest.approx((2 * 1 + 1.5 * 9) / 10)


def length_of(controls, kind):
    """The length of a curve by 257 points a segment; a chain's segments are chords of it."""
    positions = np.linspace(0, 1, 1 + 256 * (len(jax.tree.leaves(controls)[0]) - 1))
    return np.sum(curve_geometry.chord_lengths(controls, positions, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_of_chords_and_curves(kind):
    with jax.enable_x64(True):
        controls = controls_of(4, 7, jnp.float64)
        positions = np.array([0.0, 0.1, 0.45, 0.5, 1.0])
        points = np.stack([flat(curves.curve_point(controls, t, kind)) for t in positions])
    wanted = np.linalg.norm(np.diff(points, axis=0), axis=1)
    lengths = curve_geometry.chord_lengths(controls, positions, kind)
    assert lengths.dtype == np.float64
    np.testing.assert_allclose(lengths, wanted, rtol=1e-12)
    rows = flat_rows(controls)
    if kind == "chain":
        whole = np.linalg.norm(np.diff(rows, axis=0), axis=1).sum()
        tolerance = 1e-12
    else:
        sides = 3 * np.diff(rows, axis=0)  # the derivative is a Bezier curve of the sides
        speed = lambda t: np.linalg.norm(other_construction(sides, t, "bezier"))  # noqa: E731
        whole, _ = integrate.quad(speed, 0, 1, epsabs=1e-12)
        tolerance = 1e-5  # chords are short of their arcs by (curvature * chord)^2 / 24
    assert length_of(controls, kind) == pytest.approx(whole, rel=tolerance)
    assert whole > 1.05 * np.linalg.norm(rows[-1] - rows[0])


def test_short_chords_of_a_long_way_from_zero_are_exact():
    """Norms of float32 parameters of the order of 1000 would lose these distances."""
    base = np.float32(1000) * np.ones((3, 50), np.float32)
    controls = jnp.asarray(base + np.arange(3, dtype=np.float32)[:, None] * np.float32(2**-10))
    lengths = curve_geometry.chord_lengths(controls, np.linspace(0, 1, 61))
    np.testing.assert_allclose(lengths, 2 * 2**-10 * np.sqrt(50) / 60, rtol=1e-9)


def test_plane_coordinates_reproduce_the_models():
    models = controls_of(3, 8)
    first, second, third = (row(models, k) for k in range(3))
    plane = curve_geometry.plane_through(first, second, third)
    u, v = flat(plane.first_axis), flat(plane.second_axis)
    np.testing.assert_allclose([u @ u, v @ v, u @ v], [1, 1, 0], atol=1e-14)
    for params, (x, y) in zip((first, second, third), plane.coordinates, strict=True):
        np.testing.assert_allclose(flat(plane.origin) + x * u + y * v, flat(params), atol=1e-12)
        np.testing.assert_allclose(
            curve_geometry.plane_coordinates(plane, params), [x, y], atol=1e-12
        )
    distances = [np.linalg.norm(flat(p) - flat(first)) for p in (second, third)]
    np.testing.assert_allclose(np.linalg.norm(plane.coordinates[1:], axis=1), distances)
    assert plane.coordinates[2, 1] > 0.1
    # The projection of a model that is not in the plane is the nearest point of it.
    outside = row(controls_of(3, 9), 0)
    basis = np.stack([u, v], axis=1)
    nearest, *_ = np.linalg.lstsq(basis, flat(outside) - flat(first), rcond=None)
    np.testing.assert_allclose(curve_geometry.plane_coordinates(plane, outside), nearest)


@pytest.mark.parametrize("kind", KINDS)
def test_curve_coordinates_pass_through_the_ends_and_a_chain_through_its_bend(kind):
    controls = controls_of(3, 10)
    start, bend, end = (row(controls, k) for k in range(3))
    plane = curve_geometry.plane_through(start, end, bend)
    positions = np.linspace(0, 1, 61)
    path = curve_geometry.curve_coordinates(plane, controls, positions, kind)
    np.testing.assert_allclose(path[[0, -1]], plane.coordinates[:2], atol=1e-12)
    middle = plane.coordinates[2] if kind == "chain" else None
    if kind == "bezier":
        middle = np.array([0.25, 0.25, 0.5]) @ plane.coordinates
    np.testing.assert_allclose(path[30], middle, atol=1e-12)
    # The whole curve lies in the plane: lengths in it are lengths in parameter space.
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(path, axis=0), axis=1),
        curve_geometry.chord_lengths(controls, positions, kind),
    )


def test_the_second_model_lies_on_the_first_axis_where_float32_leaves_it_off():
    """Models that are near each other beside their own length, as trained ones are."""
    rng = np.random.default_rng(11)
    base = rng.normal(size=300_000)
    models = [np.float32(base + 0.05 * rng.normal(size=base.size)) for _ in range(3)]
    plane = curve_geometry.plane_through(*models)
    x, y = curve_geometry.plane_coordinates(plane, models[1])
    assert abs(y) < 1e-10 and x == pytest.approx(plane.coordinates[1, 0], rel=1e-12)
    u = models[1] - models[0]
    u /= np.sqrt(np.cumsum(u * u, dtype=np.float32)[-1])
    v = models[2] - models[0]
    v -= np.cumsum(u * v, dtype=np.float32)[-1] * u
    v /= np.sqrt(np.cumsum(v * v, dtype=np.float32)[-1])
    assert abs(float(np.float64(v) @ (np.float64(models[1]) - models[0]))) > 1e-4


def test_planes_that_do_not_exist():
    ends = controls_of(2, 12, width=4000)
    start, end = row(ends, 0), row(ends, 1)
    line = curves.initial_controls(start, end)
    with pytest.raises(ValueError, match="lie on one line to rounding"):
        curve_geometry.plane_through(start, end, row(line, 1))
    with pytest.raises(ValueError, match="first two models are the same"):
        curve_geometry.plane_through(start, start, end)
    with pytest.raises(ValueError, match="third must have the shapes of params"):
        curve_geometry.plane_through(jnp.ones(2), jnp.zeros(2), jnp.ones(3))
    for number, name in enumerate(("first", "second", "third")):
        models = [start, end, row(controls_of(3, 1, width=4000), 1)]
        curve_geometry.plane_through(*models)
        models[number] = jax.tree.map(lambda leaf: leaf * np.nan, models[number])
        with pytest.raises(ValueError, match=f"{name} must be finite, got infinity or NaN at"):
            curve_geometry.plane_through(*models)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curves.curve_point(jnp.ones((3, 1)), 0.5, "polychain"), "kind must be one of"),
        (lambda: curves.curve_point(jnp.ones((3, 1)), 1.5), r"must lie in \[0, 1\], got 1.5"),
        (lambda: curves.curve_point(jnp.ones((3, 1)), np.nan), r"must lie in \[0, 1\], got nan"),
        (lambda: curves.curve_point(jnp.ones((1, 1)), 0.5), "at least its two ends, got 1"),
        (lambda: curves.curve_point((jnp.ones(3), jnp.ones(2)), 0.5), "same leading axis"),
        (lambda: curves.initial_controls(jnp.ones(2), jnp.ones(2), 0), "bends must be an integer"),
        (lambda: curves.initial_controls(jnp.ones(2), jnp.ones(3)), "end must have the shapes"),
        (
            lambda: curve_losses.losses_on_curve(jnp.sum, jnp.ones((3, 1)), 0.5),
            r"positions must have the shape \[n\], n >= 1, got \(\)",
        ),
        (
            lambda: curve_losses.losses_on_curve(lambda w: w, jnp.ones((3, 2)), [0.5]),
            "loss_fn must return one real scalar",
        ),
        (lambda: curve_losses.loss_barrier(np.arange(2) / 2, np.ones(2)), "increase from 0 to 1"),
        (
            lambda: curve_losses.loss_barrier(np.array([0, np.nan, 1]), np.ones(3)),
            "increase from 0 to 1",
        ),
        (lambda: curve_losses.loss_barrier(np.arange(2), np.ones(3)), "the same shape"),
        (
            lambda: curve_geometry.chord_lengths(jnp.ones((3, 1)), 0.5),
            r"positions must have the shape \[n\], n >= 1, got \(\)",
        ),
        (
            lambda: curve_geometry.curve_coordinates(None, jnp.ones((3, 1)), 0.5),
            r"positions must have the shape \[n\], n >= 1, got \(\)",
        ),
        (lambda: curve_geometry.plane_through({}, {}, {}), "first must hold at least one array"),
        (lambda: curve_losses.summarise_curve(np.ones(3), np.ones(3)), "must fit each other"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
