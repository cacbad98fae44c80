import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest

from sam_jax import draws, metrics, pytree

KEY = jax.random.key(0)


def flat_directions(key, shapes, number, distribution):
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    directions = metrics.random_directions(key, params, number, distribution)
    for name, shape in shapes.items():
        assert directions[name].shape == (number, *shape)
    leaves = [np.reshape(leaf, (number, -1)) for leaf in jax.tree.leaves(directions)]
    return np.concatenate(leaves, axis=1)


LAWS = ("uniform", "gaussian", "rademacher")


@pytest.mark.parametrize("distribution", LAWS)
def test_directions_have_unit_norm_and_their_cosines(distribution):
    d = 100_000
    shapes = {"a": (100, 900), "b": (10_000,)}
    u = flat_directions(KEY, shapes, 6, distribution)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1.0, rtol=1e-5)
    with_ones = u.sum(axis=1) / np.sqrt(d)
    between = (u @ u.T)[np.triu_indices(6, 1)]
    # Deviations of a mean over d coordinates: a few times 1 / sqrt(d) = 0.003.
    along_ones, mutual = (np.sqrt(3) / 2, 0.75) if distribution == "uniform" else (0.0, 0.0)
    np.testing.assert_allclose(with_ones, along_ones, atol=5 / np.sqrt(d))
    np.testing.assert_allclose(between, mutual, atol=5 / np.sqrt(d))
    assert (u.min() >= 0) == (distribution == "uniform")


def test_directions_depend_on_key_and_index_only():
    shapes = {"a": (3, 4), "b": (5,)}
    five = flat_directions(KEY, shapes, 5, "gaussian")
    np.testing.assert_allclose(flat_directions(KEY, shapes, 3, "gaussian"), five[:3], rtol=1e-6)
    other = flat_directions(jax.random.key(1), shapes, 5, "gaussian")
    assert np.abs(other - five).max() > 0.1
    assert np.abs(five[0] - five[1]).max() > 0.1


def test_the_studys_law_names_where_it_comes_from():
    for function in (metrics.random_directions, metrics.asymmetry_factor):
        described = " ".join(function.__doc__.split())
        assert "R252_SAM" in described
        assert "code-for-Asymmetric-Valley, logistic_regression_2params.py" in described


@pytest.mark.parametrize("law", ["uniform", "gaussian"])
def test_only_the_uniform_law_draws_two_parameters_from_one_quadrant(law):
    # Of two parameters, as in the code that the law comes from: u = z / ||z||, z ~ U(0, 1)^2.
    u = flat_directions(KEY, {"w": (2,)}, 2000, law)
    angle = np.arctan2(u[:, 1], u[:, 0])
    # tan of the angle is the quotient of two U(0, 1): below t with probability t / 2 for t <= 1.
    below = np.mean((angle > 0) & (angle < np.arctan(0.5)))
    inside = np.all((angle >= 0) & (angle <= np.pi / 2))
    assert inside == (law == "uniform")
    if law == "uniform":
        assert abs(below - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_direction_errors():
    with pytest.raises(ValueError, match=r"\['gaussian', 'uniform', 'rademacher'\], got 'normal'"):
        metrics.random_directions(KEY, jnp.ones(3), 2, "normal")
    with pytest.raises(ValueError, match="num_directions must be an integer of at least 1, got 0"):
        metrics.random_directions(KEY, jnp.ones(3), 0, "uniform")


def test_entries_of_rademacher_directions_differ_in_sign_only():
    u = flat_directions(KEY, {"a": (30, 30), "b": (100,)}, 3, "rademacher")
    np.testing.assert_allclose(np.abs(u), 1 / np.sqrt(1000), rtol=1e-6)


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_directions_are_the_draws_of_their_keys_bit_for_bit(distribution):
    # Published records depend on these numbers: the key, folded with the law and the index.
    params = {"a": jnp.zeros((3, 4)), "b": jnp.zeros(5)}
    key = jax.random.fold_in(KEY, ["gaussian", "uniform"].index(distribution))

    def draw(index):
        return pytree.normalise(
            draws.random_like(jax.random.fold_in(key, index), params, distribution)
        )

    expected = jax.lax.map(draw, jnp.arange(4))
    found = metrics.random_directions(KEY, params, 4, distribution)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("distribution", LAWS)
def test_laws_draw_their_own_numbers(distribution):
    found = {law: flat_directions(KEY, {"a": (1000,)}, 1, law)[0] for law in LAWS}
    for other in set(LAWS) - {distribution}:
        first, second = (u - u.mean() for u in (found[distribution], found[other]))
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert abs(cosine) < 5 / np.sqrt(1000)


def test_gradient_direction_is_the_steepest():
    matrix, w = minima.spd_matrix(6), np.arange(6.0)
    with jax.enable_x64(True):
        loss_fn = minima.quadratic(matrix, np.ones(6))
        u = metrics.gradient_direction(loss_fn, jnp.asarray(w))
        others = metrics.random_directions(KEY, jnp.asarray(w), 50, "gaussian")
        slope = lambda u: (loss_fn(w + 1e-6 * u) - loss_fn(w)) / 1e-6  # noqa: E731
        slopes, steepest = jax.vmap(slope)(others), slope(u)
        narrow = metrics.gradient_direction(loss_fn, jnp.asarray(w, jnp.bfloat16))
        steepest, slopes = np.asarray(steepest), np.asarray(slopes)
    gradient = matrix @ w + 1
    np.testing.assert_allclose(u, gradient / np.linalg.norm(gradient), rtol=1e-12)
    assert steepest > np.max(slopes)
    assert narrow.dtype == jnp.float32


def test_zero_gradient_has_no_direction():
    loss_fn = lambda w: w @ w  # noqa: E731
    with pytest.raises(ValueError, match="gradient of the loss is zero"):
        metrics.gradient_direction(loss_fn, jnp.zeros(3))
    traced = jax.jit(lambda w: metrics.gradient_direction(loss_fn, w))(jnp.zeros(3))
    np.testing.assert_array_equal(traced, 0)


def test_direction_towards_another_model_ends_there():
    start, end = minima.mlp_params(seed=0), minima.mlp_params(jnp.bfloat16, seed=1)
    batches = minima.mlp_batches()
    loss_fn = lambda p: minima.mean_mlp_loss(p, batches)  # noqa: E731
    towards = metrics.direction_towards(start, end)
    unit = metrics.direction_towards(start, end, unit_norm=True)
    length = pytree.norm(towards)
    np.testing.assert_allclose(pytree.norm(unit), 1.0, rtol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(towards)} == {jnp.dtype("float32")}
    losses = metrics.loss_curve(loss_fn, start, towards, jnp.array([0.0, 0.3, 1.0]))
    again = metrics.loss_curve(loss_fn, start, unit, length * jnp.array([0.0, 0.3, 1.0]))
    end = jax.tree.map(pytree.widen, end)
    between = jax.tree.map(lambda a, b: 0.7 * a + 0.3 * b, start, end)
    expected = [loss_fn(p) for p in (start, between, end)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(again, expected, rtol=1e-5)
    assert len(set(np.round(expected, 3))) == 3


def test_direction_towards_errors():
    with pytest.raises(ValueError, match="other equals params"):
        metrics.direction_towards(jnp.ones(3), jnp.ones(3))
    with pytest.raises(
        ValueError, match=r"other must have the shapes.*expected \(3,\), got \(4,\)"
    ):
        metrics.direction_towards(jnp.ones(3), jnp.ones(4))


def test_single_directions_are_stacked():
    trees = [{"a": jnp.full((2, 3), i), "b": jnp.full((), -i)} for i in (1.0, 2.0)]
    stacked = metrics.stack_directions(*trees)
    for i, tree in enumerate(trees):
        jax.tree.map(lambda s, t, i=i: np.testing.assert_array_equal(s[i], t), stacked, tree)
    with pytest.raises(ValueError, match="at least one direction, got none"):
        metrics.stack_directions()
    with pytest.raises(ValueError, match="direction 1 must have the same pytree structure"):
        metrics.stack_directions(trees[0], {"a": jnp.ones((2, 3))})


def test_top_eigenvector_of_the_hessian_is_a_direction():
    matrix = minima.spd_matrix(5)
    values, vectors = np.linalg.eigh(matrix)
    loss_fn = minima.quadratic(matrix, np.zeros(5))
    with jax.enable_x64(True):
        w = jnp.zeros(5)
        top = metrics.stack_directions(jnp.asarray(vectors[:, -1]))
        result = metrics.asymmetry_index(loss_fn, w, 2.0, directions=top)
        widths = metrics.level_set_widths(
            loss_fn, w, 0.5, 4.0, directions=jnp.asarray(vectors.T), bisections=30
        )
    np.testing.assert_allclose(result.even, 2.0 * values[-1:], rtol=1e-12)
    # Along an eigenvector the loss is mu^2 value / 2.
    np.testing.assert_allclose(widths.plus, 1 / np.sqrt(values), rtol=1e-8)


def test_curve_of_a_cubic():
    distances = np.array([-2.0, 0.0, 0.5, 3.0])
    params = {"a": jnp.array([1.0, 0.0]), "b": jnp.array(2.0)}
    direction = {"a": np.array([2.0, 0.0]), "b": np.array(-1.0)}  # not of unit norm
    with jax.enable_x64(True):
        losses = metrics.loss_curve(lambda p: p["a"][0] ** 3 + p["b"], params, direction, distances)
    np.testing.assert_allclose(losses, (1 + 2 * distances) ** 3 + 2 - distances, rtol=1e-6)
    assert losses.shape == (4,)


def test_curve_agrees_with_the_sides_of_the_asymmetry():
    params, batches = minima.mlp_params(), minima.mlp_batches()
    loss_fn = lambda p: minima.mean_mlp_loss(p, batches)  # noqa: E731
    directions = metrics.random_directions(KEY, params, 2, "uniform")
    result = metrics.asymmetry_factor(loss_fn, params, 1.5, directions=directions)
    second = jax.tree.map(lambda leaf: leaf[1], directions)
    low, centre, high = metrics.loss_curve(loss_fn, params, second, [-1.5, 0, 1.5])
    np.testing.assert_allclose(high - centre, result.plus[1], rtol=1e-4)
    np.testing.assert_allclose(low - centre, result.minus[1], rtol=1e-4)
    np.testing.assert_allclose(centre, result.loss, rtol=1e-6)
    assert abs(high - low) > 1e-2


# name -> instrument(loss_fn, params, one direction, distances)
ALONG = {
    "curve": metrics.loss_curve,
    "factor": lambda f, p, d, t: metrics.asymmetry_factor(
        f, p, t[-1], directions=metrics.stack_directions(d, d)
    ),
    "index": lambda f, p, d, t: metrics.asymmetry_index(
        f, p, t[-1], directions=metrics.stack_directions(d, d)
    ),
    "widths": lambda f, p, d, t: metrics.level_set_widths(
        f, p, 0.1, t[-1], directions=metrics.stack_directions(d, d)
    ),
    "gradient": lambda f, p, d, t: metrics.gradient_direction(f, p),
}


@pytest.mark.parametrize("name", ALONG)
def test_one_compilation_serves_all_models_directions_and_distances(name):
    traces, found = [], []
    batches = minima.mlp_batches()

    def loss_fn(params):
        traces.append(1)
        return minima.mean_mlp_loss(params, batches)

    measure = jax.jit(lambda p, d, t: ALONG[name](loss_fn, p, d, t))
    for seed in range(3):
        params, other = minima.mlp_params(seed=seed), minima.mlp_params(seed=seed + 10)
        distances = (1 + seed) * jnp.array([-0.1, 0.5, 1.0])
        result = measure(params, metrics.direction_towards(params, other), distances)
        found.append(np.asarray(jax.tree.leaves(result)[0]).ravel()[0])
        # The widths have the loss at the parameters beside the loop of their search.
        assert len(traces) == (2 if name == "widths" else 1)
    assert len(set(found)) == 3


def test_directions_that_are_not_finite():
    bad, loss_fn = np.array([1.0, np.nan]), lambda w: w @ w
    for instrument in (metrics.asymmetry_factor, metrics.asymmetry_index):
        with pytest.raises(ValueError, match="directions must be finite, but number 1 of 2 is not"):
            instrument(loss_fn, jnp.ones(2), 1.0, directions=np.stack([np.ones(2), bad]))
    with pytest.raises(ValueError, match="gradient of the loss must be finite, got infinity or N"):
        metrics.gradient_direction(lambda p: jnp.sqrt(p["a"]) + p["b"], {"a": 0.0, "b": 1.0})
    with pytest.raises(ValueError, match=r"between other and params must be finite.*at \['b'\]"):
        metrics.direction_towards({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": np.inf})
    towards = jax.jit(metrics.direction_towards)(jnp.ones(2), bad)
    np.testing.assert_array_equal(towards, [0, np.nan])


@pytest.mark.parametrize(
    ("direction", "distances", "message"),
    [
        ({"w": np.ones(3)}, [1.0], "direction must have the same pytree structure as params"),
        (np.ones(4), [1.0], r"expected \(3,\), got \(4,\)"),
        (np.ones(3), [], r"distances must have the shape \[k\], k >= 1, got \(0,\)"),
        (np.ones(3), 1.0, r"distances must have the shape \[k\], k >= 1, got \(\)"),
        (np.ones(3), [0.0, np.nan], "distances must be finite, got infinity or NaN"),
        (np.zeros(3), [1.0], "direction is zero, so all points along it are one"),
        (np.array([0, np.inf, 0]), [1.0], "direction must be finite, got infinity or NaN"),
    ],
)
def test_curve_errors(direction, distances, message):
    with pytest.raises(ValueError, match=message):
        metrics.loss_curve(jnp.sum, jnp.ones(3), direction, distances)


def test_a_traced_direction_of_zero_leaves_the_curve_flat():
    measure = jax.jit(lambda d: metrics.loss_curve(jnp.sum, jnp.ones(3), d, [-1.0, 0.0, 2.0]))
    np.testing.assert_array_equal(measure(jnp.zeros(3)), 3)
    np.testing.assert_array_equal(measure(jnp.ones(3)), [0, 3, 9])
