"""Lines and planes of losses, over devices or not, and the plane of a run of checkpoints."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from sam_jax.metrics.directions import random as directions
from sam_jax.metrics.directions import trajectory
from sam_jax.metrics.landscape import curve
from sam_jax.metrics.landscape import grids as landscape
from sam_jax.metrics.paths import curve_geometry

XS, YS = np.linspace(-1.0, 2.0, 4), np.linspace(0.5, 1.5, 3)


class Scores(NamedTuple):
    loss: jax.Array
    accuracy: jax.Array


def meshes():
    devices = np.array(jax.devices()[:8])
    return {
        "eight": Mesh(devices, ("devices",)),
        "five": Mesh(devices[:5], ("devices",)),
        "two by four": Mesh(devices.reshape(2, 4), ("rows", "columns")),
    }


def mlp_directions(params):
    stacked = directions.random_directions(jax.random.key(0), params, 2, "gaussian", "filter")
    return [jax.tree.map(lambda leaf, k=k: leaf[k], stacked) for k in (0, 1)]


def mlp_loss_fn():
    batches = minima.mlp_batches()
    return lambda params: minima.mean_mlp_loss(params, batches)


# ------------------------------------------------------------------------ lines and planes


def test_a_quadratic_in_a_plane_is_its_closed_form():
    """L = w'Aw / 2 + b'w in the coordinates of two directions that are not at right angles."""
    rng = np.random.default_rng(0)
    a, b = minima.spd_matrix(5), rng.normal(size=5)
    w, dx, dy = rng.normal(size=(3, 5))
    with jax.enable_x64(True):
        plane = landscape.loss_plane(minima.quadratic(a, b), w, dx, dy, XS, YS)
    assert plane.values.shape == (3, 4) and plane.values.dtype == np.float64
    for i, y in enumerate(YS):
        for j, x in enumerate(XS):
            # Expanded in x and y, so that no moved weights are formed.
            g = a @ w + b
            expected = (
                *(0.5 * w @ a @ w + b @ w, x * g @ dx, y * g @ dy, x * y * dx @ a @ dy),
                *(0.5 * x**2 * dx @ a @ dx, 0.5 * y**2 * dy @ a @ dy),
            )
            np.testing.assert_allclose(plane.values[i, j], sum(expected), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(plane.xs, XS)
    np.testing.assert_array_equal(plane.ys, YS)


def test_a_line_is_the_curve_of_losses_and_a_row_of_the_plane():
    params, loss_fn = minima.mlp_params(), mlp_loss_fn()
    dx, dy = mlp_directions(params)
    line = landscape.loss_line(loss_fn, params, dx, XS)
    np.testing.assert_array_equal(line.values, curve.loss_curve(loss_fn, params, dx, XS))
    plane = landscape.loss_plane(loss_fn, params, dx, dy, XS, [0.0, 1.0])
    # Both round the moved weights once, the plane after one more sum: a few units of float32.
    np.testing.assert_allclose(plane.values[0], line.values, rtol=1e-6)
    assert np.max(np.abs(plane.values[1] - line.values)) > 1e-3


@pytest.mark.devices
@pytest.mark.parametrize("name", ["eight", "five", "two by four"])
def test_over_devices_the_values_are_the_same(name):
    """Twelve points are padded to 16 on eight devices, to 15 on five."""
    mesh = meshes()[name]
    params, loss_fn = minima.mlp_params(), mlp_loss_fn()
    dx, dy = mlp_directions(params)
    alone = landscape.loss_plane(loss_fn, params, dx, dy, XS, YS)
    shared = landscape.loss_plane(loss_fn, params, dx, dy, XS, YS, mesh=mesh)
    np.testing.assert_allclose(shared.values, alone.values, rtol=1e-6)
    assert np.unique(alone.values).size == 12  # no two points could be exchanged unseen


@pytest.mark.devices
def test_a_line_over_devices():
    params, loss_fn = minima.mlp_params(), mlp_loss_fn()
    direction, _ = mlp_directions(params)
    for distances in (np.linspace(-1, 1, 9), np.array([0.5])):  # more and fewer than devices
        alone = landscape.loss_line(loss_fn, params, direction, distances)
        shared = landscape.loss_line(
            loss_fn, params, direction, distances, mesh=meshes()["eight"], batch_norm="batch"
        )
        np.testing.assert_allclose(shared.values, alone.values, rtol=1e-6)
        assert shared.batch_norm == "batch" and alone.batch_norm is None


@pytest.mark.devices
@pytest.mark.parametrize("name", [None, "eight"])
def test_one_trace_serves_all_models_and_grids_of_one_size(name):
    traces = []
    mesh = None if name is None else meshes()[name]
    batches = minima.mlp_batches()

    @jax.jit
    def measure(params, batches, dx, dy, xs, ys):
        def loss_fn(params):
            traces.append(1)
            return minima.mean_mlp_loss(params, batches)

        return landscape.loss_plane(
            loss_fn, params, dx, dy, xs, ys, mesh=mesh, batch_norm="running"
        )

    results = []
    for seed in (0, 1):
        params = minima.mlp_params(seed=seed)
        results.append(measure(params, batches, *mlp_directions(params), XS + seed, YS))
        assert len(traces) == 1
    assert np.all(results[0].values != results[1].values)
    assert [result.batch_norm for result in results] == ["running"] * 2
    direct = minima.mean_mlp_loss(
        jax.tree.map(lambda w, x, y: w + XS[1] * x + YS[2] * y, *_at_seed_zero()), batches
    )
    np.testing.assert_allclose(results[0].values[2, 1], direct, rtol=1e-5)


def _at_seed_zero():
    params = minima.mlp_params(seed=0)
    return params, *mlp_directions(params)


@pytest.mark.devices
@pytest.mark.parametrize(
    ("name", "expected"), [(None, 12), ("eight", 16), ("five", 15), ("two by four", 16)]
)
def test_the_points_are_shared_out_and_evaluated_once_each(name, expected):
    calls = []
    mesh = None if name is None else meshes()[name]

    def loss_fn(params):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sum(params**2)

    x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    plane = landscape.loss_plane(loss_fn, jnp.zeros(2), x, y, XS, YS, mesh=mesh)
    jax.block_until_ready(plane)
    jax.effects_barrier()
    assert len(calls) == expected


@pytest.mark.devices
@pytest.mark.parametrize("name", [None, "eight"])
def test_what_is_not_finite_is_kept_and_spoils_nothing_else(name):
    def loss_fn(w):
        return jnp.where(w[0] < -0.5, jnp.nan, jnp.where(w[0] > 1.5, jnp.inf, w[0] + 10 * w[1]))

    mesh = None if name is None else meshes()[name]
    x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    values = landscape.loss_plane(loss_fn, jnp.zeros(2), x, y, XS, YS, mesh=mesh).values
    assert np.isnan(values[:, 0]).all() and np.isposinf(values[:, 3]).all()
    np.testing.assert_allclose(values[:, 1:3], XS[1:3] + 10 * YS[:, None], rtol=1e-6)


@pytest.mark.devices
@pytest.mark.parametrize("name", [None, "five"])
def test_a_plane_row_by_row_is_the_plane_of_one_trace(name):
    """Of arrays too, as a long grid is evaluated that must not lose what it has measured."""
    mesh = None if name is None else meshes()[name]
    traces, params, loss_fn = [], minima.mlp_params(), mlp_loss_fn()
    dx, dy = mlp_directions(params)

    def loss_and_bias(w):
        traces.append(1)
        return {"loss": loss_fn(w), "bias": w["first"]["bias"]}

    measure = jax.jit(
        lambda p, x, y, points: landscape.values_at(
            loss_and_bias, p, {"x": x, "y": y}, points, mesh
        )
    )
    rows = [measure(params, dx, dy, jnp.stack([XS, np.full_like(XS, y)], axis=1)) for y in YS]
    assert len(traces) == 1
    plane = landscape.loss_plane(loss_fn, params, dx, dy, XS, YS)
    np.testing.assert_allclose([row["loss"] for row in rows], plane.values, rtol=1e-6)
    assert rows[0]["bias"].shape == (4, 6)  # filter normalisation leaves the biases where they are
    np.testing.assert_array_equal(rows[2]["bias"], [params["first"]["bias"]] * 4)


@pytest.mark.devices
@pytest.mark.parametrize("name", [None, "eight"])
def test_products_have_full_precision(name):
    mesh = None if name is None else meshes()[name]
    params, loss_fn = minima.mlp_params(), mlp_loss_fn()
    measure = lambda p: landscape.loss_line(  # noqa: E731
        loss_fn, p, mlp_directions(minima.mlp_params())[0], XS, mesh=mesh
    )
    traced = str(jax.make_jaxpr(measure)(params))
    precisions = re.findall(r"precision=(\(.*?\)|\S+)", traced)
    assert len(precisions) >= 2
    assert all("HIGHEST" in precision for precision in precisions)


@pytest.mark.devices
@pytest.mark.parametrize("name", [None, "five"])
def test_several_scalars_at_once(name):
    mesh = None if name is None else meshes()[name]
    x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    scores = lambda w: Scores(jnp.sum(w), jnp.sum(w > 1) / 2)  # noqa: E731
    values = landscape.loss_plane(scores, jnp.zeros(2), x, y, XS, YS, mesh=mesh).values
    np.testing.assert_allclose(values.loss, XS + YS[:, None], rtol=1e-6)
    np.testing.assert_array_equal(values.accuracy, ((XS > 1) * 1.0 + (YS > 1)[:, None]) / 2)


def test_narrow_parameters_are_moved_in_float32():
    """A step of 1e-3 vanishes next to one in bfloat16, whose spacing is 2^-7 there."""
    ones = jnp.ones(3, jnp.bfloat16)
    line = landscape.loss_line(jnp.sum, ones, ones, [0.0, 1e-3])
    assert line.values.dtype == jnp.float32
    np.testing.assert_allclose(line.values[1] - line.values[0], 3e-3, rtol=1e-3)


def test_the_plane_through_three_models_reproduces_them():
    models = [minima.mlp_params(seed=seed) for seed in (0, 1, 2)]
    plane = curve_geometry.plane_through(*models)
    loss_fn = mlp_loss_fn()
    (_, _), (x1, _), (x2, y2) = plane.coordinates
    found = landscape.loss_plane(
        loss_fn, plane.origin, plane.first_axis, plane.second_axis, [0.0, x1, x2], [0.0, y2]
    )
    at_models = [found.values[0, 0], found.values[0, 1], found.values[1, 2]]
    # The weights come back to rounding of float32.
    np.testing.assert_allclose(at_models, [loss_fn(model) for model in models], rtol=1e-5)
    assert abs(found.values[1, 1] - at_models[1]) > 1e-2


def test_the_grid_around_models():
    xs, ys = curve_geometry.grid_around([[0.0, 1.0], [4.0, 1.0], [1.0, 3.0]], points=5, margin=0.25)
    np.testing.assert_allclose(xs, [-1.0, 0.5, 2.0, 3.5, 5.0])
    np.testing.assert_allclose(ys, [0.0, 1.0, 2.0, 3.0, 4.0])


# ------------------------------------------------------------------------ trajectories


def checkpoints_of(n=6, dtype=jnp.float32):
    """A run that moves ever less, with noise."""
    rng = np.random.default_rng(4)
    start, end = minima.mlp_params(dtype, seed=0), minima.mlp_params(dtype, seed=1)

    def at(t):
        noisy = lambda a, b: b + (a - b) * t + 0.2 * rng.normal(size=a.shape)  # noqa: E731
        return jax.tree.map(lambda a, b: jnp.asarray(noisy(a, b), dtype), start, end)

    return [at(0.6**k) for k in range(n)]


def flat64(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def test_the_plane_of_a_run_is_that_of_the_singular_value_decomposition():
    run = checkpoints_of()
    rows = np.stack([flat64(checkpoint) for checkpoint in run])
    centred = rows - rows.mean(axis=0)
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    plane = trajectory.trajectory_plane(run)
    np.testing.assert_allclose(plane.explained, singular[:2] ** 2 / np.sum(singular**2), rtol=1e-10)
    axes = np.stack([flat64(plane.first_axis), flat64(plane.second_axis)])
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-10)
    signs = np.sign(np.sum(axes * components[:2], axis=1))
    np.testing.assert_allclose(axes, signs[:, None] * components[:2], atol=1e-10)
    offsets = rows - rows[-1]
    np.testing.assert_allclose(plane.coordinates, offsets @ axes.T, atol=1e-10)
    assert np.all(plane.coordinates[np.argmax(np.abs(plane.coordinates), axis=0), [0, 1]] > 0)
    np.testing.assert_array_equal(flat64(plane.origin), rows[-1])
    # Not the components of the offsets, which are not centred.
    _, _, uncentred = np.linalg.svd(offsets, full_matrices=False)
    assert abs(uncentred[1] @ axes[1]) < 0.999


def test_three_checkpoints_lie_in_their_plane():
    run = checkpoints_of(3)
    plane = trajectory.trajectory_plane(run)
    assert np.sum(plane.explained) == pytest.approx(1, abs=1e-12)
    for checkpoint, (x, y) in zip(run, plane.coordinates, strict=True):
        back = jax.tree.map(
            lambda o, u, v, x=x, y=y: o + x * u + y * v,
            plane.origin,
            plane.first_axis,
            plane.second_axis,
        )
        np.testing.assert_allclose(flat64(back), flat64(checkpoint), atol=1e-10)
        np.testing.assert_allclose(
            curve_geometry.plane_coordinates(plane, checkpoint), (x, y), atol=1e-10
        )


def test_runs_without_a_plane():
    start, end = minima.mlp_params(seed=0), minima.mlp_params(seed=1)
    line = [jax.tree.map(lambda a, b, t=t: a + t * (b - a), start, end) for t in (0, 0.3, 0.7, 1)]
    with pytest.raises(ValueError, match="lie on one line to rounding"):
        trajectory.trajectory_plane(line)
    with pytest.raises(ValueError, match="lie on one line"):
        trajectory.trajectory_plane([start] * 4)
    with pytest.raises(ValueError, match="at least 3 checkpoints, got 2"):
        trajectory.trajectory_plane(line[:2])
    with pytest.raises(ValueError, match="must be finite"):
        trajectory.trajectory_plane([*line, jax.tree.map(lambda x: x * jnp.nan, start)])
    with pytest.raises(ValueError, match="checkpoint 1 must have the same pytree structure"):
        trajectory.trajectory_plane([start, ravel_pytree(start)[0], end])


ONE, X, Y = jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: landscape.loss_plane(jnp.sum, ONE, X, jnp.zeros(3), XS, YS), "direction_y must"),
        (lambda: landscape.loss_plane(jnp.sum, ONE, jnp.zeros(2), Y, XS, YS), "direction_x is ze"),
        (lambda: landscape.loss_plane(jnp.sum, ONE, X, Y, XS, 1.0), r"ys must have the shape \[k"),
        (lambda: landscape.loss_plane(jnp.sum, ONE, X, Y, [], YS), "xs must have the shape"),
        (lambda: landscape.loss_plane(jnp.sum, ONE, X, Y, XS, [np.inf]), "ys must be finite"),
        (lambda: landscape.loss_line(jnp.sum, ONE, X * np.nan, XS), "direction must be finite"),
        (
            lambda: landscape.values_at(jnp.sum, ONE, {"u": X, "v": 0 * Y}, jnp.ones((1, 2)), None),
            "v is zero, so all points",
        ),
        (
            lambda: landscape.loss_plane(lambda w: w, ONE, X, Y, XS, YS),
            "loss_fn must return a real sc",
        ),
        (lambda: landscape.loss_line(jnp.sum, ONE, X, XS, batch_norm="eval"), "batch_norm must be"),
        (lambda: landscape.loss_line(jnp.sum, ONE, X, 0.5), "distances must have the shape"),
        (lambda: curve_geometry.grid_around([[1.0, 2.0]]), "all the same point"),
        (lambda: curve_geometry.grid_around([1.0, 2.0]), r"of shape \[n, 2\]"),
        (lambda: curve_geometry.grid_around(np.zeros((0, 2))), r"of shape \[n, 2\], n >= 1"),
        (lambda: curve_geometry.grid_around(np.eye(2), points=0), "points must be an integer"),
        (lambda: curve_geometry.grid_around(np.eye(2), points=2.5), "points must be an integer"),
        (lambda: curve_geometry.grid_around(np.eye(2), points=1), "points must be at least 2"),
        (lambda: trajectory.trajectory_plane([{}] * 3), "checkpoint must hold at least one array"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("factor", [2.0, -0.3, 1e3])
def test_a_plane_of_parallel_axes_is_refused(dtype, factor):
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        numbers = random.normal(size=40)
        x = {"w": jnp.asarray(numbers, dtype), "n": 3}
        y = {"w": jnp.asarray(factor * numbers, dtype), "n": None}
        params = {"w": jnp.zeros(40, dtype), "n": 3}
        grid = jnp.array([0.0, 1.0])

        def plane(y):
            return landscape.loss_plane(lambda p: jnp.sum(p["w"] ** 2), params, x, y, grid, grid)

        with pytest.raises(ValueError, match="direction_x and direction_y are parallel.*loss_line"):
            plane(y)
        # Five times the bound away from parallel it is a plane.
        unit = float(jnp.finfo(dtype).eps)
        aside = random.normal(size=40)
        aside *= 20 * unit * np.linalg.norm(numbers) / np.linalg.norm(aside)
        assert plane({"w": jnp.asarray(numbers + aside, dtype), "n": None}).values.shape == (2, 2)
