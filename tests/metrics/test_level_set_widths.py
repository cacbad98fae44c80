import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import metrics

KEY = jax.random.key(9)


def widths_on_axis(loss_fn, rise, max_distance, w=0.0, **options):
    """Along the only axis of one weight."""
    return metrics.level_set_widths(
        lambda w: loss_fn(w[0]),
        jnp.full(1, w),
        rise,
        max_distance,
        directions=jnp.ones((1, 1)),
        **options,
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 50.0), st.floats(0.1, 50.0), st.floats(0.01, 5.0))
def test_piecewise_quadratic(a, b, rise):
    with jax.enable_x64(True):
        result = jax.tree.map(np.asarray, PIECEWISE(a, b, rise))
    # The first grid point, 64 / 2^10, is left of sqrt(.01 / 50) = .014: an absolute error there.
    first = 64 / 2**12
    for width, c in ((result.plus[0], a), (result.minus[0], b)):
        exact = np.sqrt(rise / c)
        assert abs(width - exact) <= max(exact, first) * 2.0**-13
    if min(rise / a, rise / b) > first**2:
        exact = np.sqrt(min(a, b) / max(a, b))
        assert abs(result.factor - exact) <= 2.1 * exact * 2.0**-13
        assert result.factor == result.lower == result.upper


@jax.jit
def PIECEWISE(a, b, rise):  # noqa: N802
    loss_fn = lambda w: jnp.where(w > 0, a, b) * w**2 + 3.0  # noqa: E731
    return widths_on_axis(loss_fn, rise, 64.0, doublings=12, bisections=12)


def test_exponential_sides():
    # exp(w) + exp(-2 w) falls at w = 0, so the plus side goes down before it comes up.
    with jax.enable_x64(True):
        one_sided = widths_on_axis(jnp.exp, 0.5, 10.0, w=1.0, bisections=40)
        bowl = widths_on_axis(lambda w: jnp.exp(w) - w, 2.0, 10.0, bisections=40)
        dip = widths_on_axis(lambda w: jnp.exp(w) + jnp.exp(-2 * w), 0.5, 10.0, bisections=40)
    np.testing.assert_allclose(one_sided.plus, np.log(np.e + 0.5) - 1, rtol=1e-10)
    assert one_sided.minus_censored[0] and not one_sided.plus_censored[0]
    # exp(x) - x = 3 on both sides, by Newton's method.
    roots = []
    for x in (1.5, -3.0):
        for _ in range(50):
            x -= (np.exp(x) - x - 3) / (np.exp(x) - 1)
        roots.append(abs(x))
    np.testing.assert_allclose([bowl.plus[0], bowl.minus[0]], roots, rtol=1e-10)
    np.testing.assert_allclose(bowl.factor, min(roots) / max(roots), rtol=1e-10)
    for sign, width in ((1, dip.plus[0]), (-1, dip.minus[0])):
        x = sign * np.asarray(width)
        np.testing.assert_allclose(np.exp(x) + np.exp(-2 * x), 2.5, rtol=1e-9)


def test_random_directions_of_a_quadratic():
    """mu^2 u'Au / 2 +- mu u'Aw = rise has one positive root on each side."""
    matrix, w, rise = minima.spd_matrix(6), 0.2 * np.ones(6), 0.3
    loss_fn = minima.quadratic(matrix, np.zeros(6))
    with jax.enable_x64(True):
        u = np.asarray(metrics.random_directions(KEY, jnp.asarray(w), 8, "gaussian"))
        result = metrics.level_set_widths(
            loss_fn, jnp.asarray(w), rise, 8.0, key=KEY, num_directions=8, bisections=40
        )
    curvature, slope = np.einsum("ki,ij,kj->k", u, matrix, u), u @ matrix @ w
    root = np.sqrt(slope**2 + 2 * rise * curvature)
    plus, minus = (root - slope) / curvature, (root + slope) / curvature
    np.testing.assert_allclose(result.plus, plus, rtol=1e-10)
    np.testing.assert_allclose(result.minus, minus, rtol=1e-10)
    ratios = np.minimum(plus, minus) / np.maximum(plus, minus)
    np.testing.assert_allclose(result.ratios, ratios, rtol=1e-10)
    np.testing.assert_allclose(result.factor, ratios.mean(), rtol=1e-10)
    np.testing.assert_allclose(result.stderr, ratios.std(ddof=1) / np.sqrt(8), rtol=1e-8)
    np.testing.assert_allclose(result.loss, 0.5 * w @ matrix @ w, rtol=1e-13)
    assert result.num_censored == 0 and float(result.factor) < 0.95


def test_error_is_within_the_stated_bound():
    exact = 0.777
    for bisections in (1, 4, 9):
        result = widths_on_axis(lambda w: jnp.abs(w), exact, 16.0, bisections=bisections)
        error = abs(float(result.plus[0]) - exact)
        assert error <= exact * 2.0 ** -(bisections + 1) + 1e-6
    assert error < 1e-3
    # Below the first point of the grid, 16 / 4, the error is absolute.
    coarse = widths_on_axis(lambda w: jnp.abs(w), 0.1, 16.0, doublings=2, bisections=4)
    assert abs(float(coarse.plus[0]) - 0.1) <= 16 / 2**7


def test_censored_directions_are_flagged_and_left_out():
    # Axes: both sides reach the level, the minus side does not, neither does.
    scale = np.array([[1.0, 0.25], [1.0, 0.01], [0.01, 0.01]])
    loss_fn = lambda w: jnp.sum(jnp.where(w > 0, scale[:, 0], scale[:, 1]) * jnp.abs(w))  # noqa: E731
    measure = lambda axes: metrics.level_set_widths(  # noqa: E731
        loss_fn, jnp.zeros(3), 1.0, 10.0, directions=axes, bisections=16
    )
    result = measure(np.eye(3))
    np.testing.assert_array_equal(result.plus_censored, [False, False, True])
    np.testing.assert_array_equal(result.minus_censored, [False, True, True])
    np.testing.assert_allclose(result.plus, [1, 1, 10], rtol=1e-4)
    np.testing.assert_allclose(result.minus, [4, 10, 10], rtol=1e-4)
    np.testing.assert_allclose(result.ratios, [0.25, np.nan, np.nan], rtol=1e-4)
    np.testing.assert_allclose(result.factor, 0.25, rtol=1e-4)
    assert result.num_censored == 2 and np.isnan(result.stderr)
    np.testing.assert_allclose(result.lower, 0.25 / 3, rtol=1e-4)
    np.testing.assert_allclose(result.upper, (0.25 + 0.1 + 1) / 3, rtol=1e-4)
    # A longer bracket finds them all, and the mean lies between the bounds.
    longer = metrics.level_set_widths(
        loss_fn, jnp.zeros(3), 1.0, 1000.0, directions=np.eye(3), bisections=16
    )
    assert longer.num_censored == 0
    assert result.lower < longer.factor < result.upper
    nothing = measure(np.eye(3)[1:])
    assert np.isnan(nothing.factor) and nothing.num_censored == 2


def test_level_at_the_end_of_the_bracket_counts_as_reached():
    at_end = widths_on_axis(jnp.abs, 8.0, 8.0, bisections=20)
    np.testing.assert_allclose(at_end.plus, 8.0, rtol=1e-5)
    assert at_end.num_censored == 0
    beyond = widths_on_axis(jnp.abs, 8.001, 8.0)
    assert beyond.num_censored == 1 and beyond.plus[0] == 8.0


def test_first_crossing_is_that_of_the_grid():
    # A peak of height 2 between 2.5 and 3.5, then a slope that reaches 1 at 20.
    loss_fn = lambda w: jnp.where(jnp.abs(jnp.abs(w) - 3) < 0.5, 2.0, jnp.abs(w) / 20)  # noqa: E731
    coarse = widths_on_axis(loss_fn, 1.0, 32.0, doublings=5, bisections=20)  # 1, 2, 4, ...
    np.testing.assert_allclose(coarse.plus, 20.0, rtol=1e-5)
    finer = widths_on_axis(loss_fn, 1.0, 24.0, doublings=5, bisections=20)  # ..., 1.5, 3, ...
    np.testing.assert_allclose(finer.plus, 2.5, rtol=1e-5)


def test_losses_that_are_not_finite():
    # Overflow and NaN lie above every level.
    overflow = widths_on_axis(lambda w: jnp.where(w > 3, jnp.inf, jnp.abs(w) / 100), 1.0, 50.0)
    undefined = widths_on_axis(lambda w: jnp.where(w > 3, jnp.nan, jnp.abs(w) / 100), 1.0, 50.0)
    for result in (overflow, undefined):
        np.testing.assert_allclose(result.plus, 3.0, rtol=1e-3)
        assert result.minus_censored[0] and not result.plus_censored[0]


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_loss_that_is_not_finite_is_refused_where_it_is_known(value):
    measure = lambda: widths_on_axis(lambda w: jnp.where(w == 0, value, w**2), 1.0, 50.0)  # noqa: E731
    with pytest.raises(ValueError, match=f"loss at params must be finite.*returned {value}"):
        measure()
    assert_nowhere(jax.jit(measure)())


def assert_nowhere(result):
    assert np.all(np.isnan([result.plus[0], result.minus[0], result.factor, result.lower]))
    assert result.num_censored == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("name", ["rise", "max_distance"])
def test_traced_numbers_that_eager_calls_refuse_give_no_width(name, value):
    arguments = {"rise": 1.0, "max_distance": 8.0}
    assert MEASURE(**arguments).factor == 1
    assert_nowhere(MEASURE(**arguments | {name: value}))


@jax.jit
def MEASURE(rise, max_distance):  # noqa: N802
    return widths_on_axis(lambda w: jnp.abs(w) + 1.0, rise, max_distance)


@pytest.mark.parametrize(
    ("unit", "doublings"),
    [
        (1e-36, 10),  # 1e-36 / 2^10 underflows in float32
        (1.0, 40),  # 2^40 is no int32
    ],
)
def test_a_fine_grid_ends(unit, doublings):
    result = widths_on_axis(lambda w: jnp.abs(w) / unit, 0.6, unit, doublings=doublings)
    np.testing.assert_allclose(result.plus, 0.6 * unit, rtol=2.0**-11, atol=0)
    assert result.num_censored == 0


def test_cost_is_within_the_stated_bound():
    calls = []

    def loss_fn(w):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sum(jnp.abs(w))

    directions = np.array([[1.0, 0.0], [0.0, 0.25]])
    result = metrics.level_set_widths(
        loss_fn, jnp.zeros(2), 3.0, 8.0, directions=directions, doublings=4, bisections=5
    )
    jax.block_until_ready(result)
    jax.effects_barrier()
    # Grid 0.5, 1, 2, 4, 8: bracketed at the fourth point; censored after all five.
    assert len(calls) == 1 + 2 * (4 + 5) + 2 * 5
    np.testing.assert_array_equal(result.plus_censored, [False, True])


def test_one_compilation_for_all_models():
    traces = []
    batches = minima.mlp_batches()

    def loss_fn(params):
        traces.append(1)
        return minima.mean_mlp_loss(params, batches)

    @jax.jit
    def measure(params, key, rise, max_distance):
        return metrics.level_set_widths(
            loss_fn, params, rise, max_distance, key=key, num_directions=3, normalisation="filter"
        )

    first = measure(minima.mlp_params(seed=0), KEY, 0.1, 8.0)
    assert len(traces) == 2  # at the parameters, and in the one loop of the search
    second = measure(minima.mlp_params(seed=1), jax.random.key(1), 0.2, 16.0)
    assert len(traces) == 2
    assert np.any(first.plus != second.plus)
    # Independent route: the loss at the widths found is that of the level, within their error.
    params = minima.mlp_params(seed=0)
    directions = metrics.random_directions(KEY, params, 3, "gaussian", "filter")
    for i in range(3):
        if not first.plus_censored[i]:
            u = jax.tree.map(lambda x: x[i], directions)  # noqa: B023
            low, high = metrics.loss_curve(
                loss_fn, params, u, first.plus[i] * jnp.array([1 - 2**-10, 1 + 2**-10])
            )
            assert low <= first.loss + 0.1 <= high
    assert not np.all(first.plus_censored)


def test_float64_and_bfloat16():
    matrix = minima.spd_matrix(3)
    loss_fn = minima.quadratic(matrix, np.zeros(3))
    narrow = metrics.level_set_widths(
        lambda w: w @ w, jnp.ones(3, jnp.bfloat16), 1e-2, 1.0, directions=np.eye(3)
    )
    # w' w + 2 mu + mu^2 - w' w = 0.01
    np.testing.assert_allclose(narrow.plus, np.sqrt(1.01) - 1, rtol=1e-3)
    assert narrow.plus.dtype == jnp.float32
    with jax.enable_x64(True):
        wide = metrics.level_set_widths(
            loss_fn, jnp.zeros(3), 1.0, 8.0, directions=np.eye(3), bisections=45
        )
    np.testing.assert_allclose(wide.plus, np.sqrt(2 / np.diag(matrix)), rtol=1e-12)
    assert wide.factor.dtype == jnp.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": None}, "either key=.* or directions=.* got neither"),
        ({"rise": 0.0}, "rise must be a positive number, got 0.0"),
        ({"max_distance": -1.0}, "max_distance must be a positive number, got -1.0"),
        ({"doublings": 0}, "doublings must be an integer of at least 1, got 0"),
        ({"bisections": 2.5}, "bisections must be an integer of at least 1, got 2.5"),
        ({"normalisation": "weights"}, "normalisation must be one of"),
    ],
)
def test_errors(arguments, message):
    arguments = {"rise": 1.0, "max_distance": 1.0, "key": KEY} | arguments
    with pytest.raises(ValueError, match=message):
        metrics.level_set_widths(jnp.sum, jnp.ones(3), **arguments)
