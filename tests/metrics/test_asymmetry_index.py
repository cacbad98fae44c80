import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import metrics

KEY = jax.random.key(5)
TABLE = np.array([[1.0, 3.0], [3.0, 1.0], [1.0, -3.0], [-1.0, -1.0], [0.0, 0.0], [5.0, 0.0]])


def table_loss(table):
    """A loss that is its table: along axis i the sides rise by table[i], for distance 1."""
    return lambda w: jnp.sum(jnp.where(w > 0, table[:, 0], table[:, 1]) * jnp.abs(w))


def test_table_of_rises():
    result = metrics.asymmetry_index(table_loss(TABLE), jnp.zeros(6), 1.0, directions=np.eye(6))
    signed = np.array([-0.5, 0.5, 1.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(result.signed, signed)
    np.testing.assert_allclose(result.index, 1 - np.mean(np.abs(signed)))
    np.testing.assert_allclose(result.stderr, np.std(np.abs(signed), ddof=1) / np.sqrt(6), 1e-6)
    np.testing.assert_allclose(result.signed_mean, np.mean(signed), rtol=1e-6)
    np.testing.assert_allclose(result.signed_stderr, np.std(signed, ddof=1) / np.sqrt(6), 1e-6)
    np.testing.assert_array_equal(result.plus, TABLE[:, 0])
    np.testing.assert_array_equal(result.minus, TABLE[:, 1])
    np.testing.assert_allclose(result.odd, (TABLE[:, 0] - TABLE[:, 1]) / 2)
    np.testing.assert_allclose(result.even, (TABLE[:, 0] + TABLE[:, 1]) / 2)
    assert result.num_not_positive == 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1e3, 1e3, width=32)] * 2), min_size=3, max_size=3))
def test_index_is_bounded_whatever_the_rises(rows):
    signed, index = INDEX(jnp.asarray(rows, jnp.float32))
    assert np.all(np.abs(signed) <= 1)
    # Rounding of a mean over three.
    assert -1e-6 <= index <= 1 + 1e-6


@jax.jit
def INDEX(table):  # noqa: N802
    result = metrics.asymmetry_index(table_loss(table), jnp.zeros(3), 1.0, directions=jnp.eye(3))
    return result.signed, result.index


def test_agrees_with_the_factor_where_both_sides_rise():
    params, batches = minima.mlp_params(), minima.mlp_batches()

    # The added bowl makes a minimum of it along every direction of this length.
    def loss_fn(p):
        moved = jax.tree.map(lambda x, start: jnp.sum((x - start) ** 2), p, params)
        return minima.mean_mlp_loss(p, batches) + sum(jax.tree.leaves(moved))

    options = dict(key=KEY, num_directions=5, distribution="gaussian")
    index, factor = jax.jit(
        lambda p: (
            metrics.asymmetry_index(loss_fn, p, 2.0, **options),
            metrics.asymmetry_factor(loss_fn, p, 2.0, **options),
        )
    )(params)
    assert factor.num_not_positive == index.num_not_positive == 0
    expected = (1 - factor.ratios) / (1 + factor.ratios)
    np.testing.assert_allclose(np.abs(index.signed), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(index.plus, factor.plus, rtol=1e-6)
    assert np.max(expected) > 0.05
    # The sign tells the steeper side.
    np.testing.assert_array_equal(index.signed > 0, factor.plus > factor.minus)


def test_odd_and_even_parts_are_the_derivatives():
    """Of L = g.w + w'Aw / 2 + sum(c w^3) all terms are known."""
    matrix, g, c, w = minima.spd_matrix(4), np.ones(4), np.arange(4.0), 0.3 * np.ones(4)
    loss = lambda w: minima.quadratic(matrix, g)(w) + jnp.sum(c * w**3)  # noqa: E731
    distance = 0.7
    with jax.enable_x64(True):
        u = np.asarray(metrics.random_directions(KEY, jnp.asarray(w), 6, "rademacher"))
        result = metrics.asymmetry_index(
            loss, jnp.asarray(w), distance, key=KEY, num_directions=6, distribution="rademacher"
        )
    gradient = matrix @ w + g + 3 * c * w**2
    hessian = matrix + np.diag(6 * c * w)
    np.testing.assert_allclose(
        result.odd, distance * u @ gradient + distance**3 * u**3 @ c, rtol=1e-10
    )
    np.testing.assert_allclose(
        result.even, distance**2 * np.einsum("ki,ij,kj->k", u, hessian, u) / 2, rtol=1e-10
    )


def test_symmetric_bowl_has_index_one():
    with jax.enable_x64(True):
        loss_fn = minima.quadratic(minima.spd_matrix(8), np.zeros(8))
        result = metrics.asymmetry_index(loss_fn, jnp.zeros(8), 3.0, key=KEY, num_directions=4)
    result = jax.tree.map(np.asarray, result)
    assert result.index == 1 and result.signed_mean == 0 and result.stderr == 0
    np.testing.assert_array_equal(result.odd, 0)
    assert np.all(result.even > 0)


def test_flipped_directions_flip_the_sign_only():
    directions = metrics.random_directions(KEY, jnp.zeros(6), 4, "gaussian")
    loss_fn = table_loss(TABLE)
    there, back = (
        metrics.asymmetry_index(loss_fn, jnp.zeros(6), 2.0, directions=sign * directions)
        for sign in (1, -1)
    )
    np.testing.assert_array_equal(there.signed, -back.signed)
    np.testing.assert_array_equal(there.even, back.even)
    assert there.index == back.index and there.signed_mean == -back.signed_mean != 0


def test_infinite_loss_spoils_its_direction_only():
    loss_fn = lambda w: jnp.where(w[1] > 0.5, jnp.inf, jnp.sum(w**2))  # noqa: E731
    result = metrics.asymmetry_index(loss_fn, jnp.zeros(3), 1.0, directions=np.eye(3))
    np.testing.assert_array_equal(result.plus, [1, np.inf, 1])
    np.testing.assert_array_equal(result.signed, [0, np.nan, 0])
    assert np.isnan(result.index) and result.odd[1] == result.even[1] == np.inf
    factor = metrics.asymmetry_factor(loss_fn, jnp.zeros(3), 1.0, directions=np.eye(3))
    np.testing.assert_array_equal(factor.ratios, [1, 0, 1])
    assert factor.num_not_positive == 0
    one = metrics.asymmetry_index(loss_fn, jnp.zeros(3), 1.0, directions=np.eye(3)[:1])
    assert one.index == 1 and np.isnan(one.stderr) and np.isnan(one.signed_stderr)


def test_rises_lost_in_rounding_are_counted():
    loss_fn = lambda w: 1 + 1e-12 * (w + 1) @ (w + 1)  # noqa: E731
    result = metrics.asymmetry_index(loss_fn, jnp.zeros(3), 1.0, directions=np.eye(3))
    assert result.index == 1 and result.num_not_positive == 3


def test_one_compilation_for_all_models():
    traces = []

    def loss_fn(params, batches):
        traces.append(1)
        return minima.mean_mlp_loss(params, batches)

    batches = minima.mlp_batches()

    @jax.jit
    def measure(params, key, distance):
        return metrics.asymmetry_index(
            lambda p: loss_fn(p, batches),
            params,
            distance,
            key=key,
            num_directions=3,
            normalisation="filter",
        )

    first = measure(minima.mlp_params(seed=0), KEY, 0.5)
    assert len(traces) == 1
    second = measure(minima.mlp_params(seed=1), jax.random.key(6), 1.0)
    assert len(traces) == 1
    assert first.index != second.index


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distance": 1.0}, "either key=.* or directions=.* got neither"),
        ({"distance": 0.0, "key": KEY}, "distance must be a positive number, got 0.0"),
        ({"distance": 1.0, "key": KEY, "num_directions": 0}, "num_directions must be an integer"),
        ({"distance": 1.0, "key": KEY, "distribution": "normal"}, "distribution must be one of"),
        ({"distance": 1.0, "directions": np.zeros((1, 3))}, "number 0 of 1 is"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.asymmetry_index(jnp.sum, jnp.ones(3), **arguments)
