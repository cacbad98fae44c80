import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sam_jax import metrics

KEY = jax.random.key(7)
ONES = np.ones((1, 4))
D, RHO, DRAWS = 12, 0.7, 600
MATRIX = minima.spd_matrix(D)
TRACE, TRACE_OF_SQUARE = np.trace(MATRIX), np.trace(MATRIX @ MATRIX)

# Mean and variance of epsilon'A epsilon / 2.
EXPECTED = {
    "sphere": (
        RHO**2 * TRACE / (2 * D),
        RHO**4 / (2 * D * (D + 2)) * (TRACE_OF_SQUARE - TRACE**2 / D),
    ),
    "gaussian": (RHO**2 * TRACE / 2, RHO**4 / 2 * TRACE_OF_SQUARE),
}


@pytest.mark.parametrize("distribution", ["sphere", "gaussian"])
def test_quadratic_has_known_mean_and_standard_error(distribution):
    result = metrics.average_sharpness(
        minima.quadratic(MATRIX, np.zeros(D)),
        jnp.zeros(D),
        ONES,
        key=KEY,
        rho=RHO,
        draws=DRAWS,
        distribution=distribution,
    )
    mean, variance = EXPECTED[distribution]
    stderr = np.sqrt(variance / DRAWS)
    assert abs(result.sharpness - mean) < 5 * stderr
    assert stderr / 1.5 < result.stderr < 1.5 * stderr
    other_mean, _ = EXPECTED["gaussian" if distribution == "sphere" else "sphere"]
    assert abs(result.sharpness - other_mean) > 5 * stderr
    assert stderr < 0.05 * mean
    assert result.per_draw_perturbed_loss.shape == (DRAWS,)
    np.testing.assert_allclose(
        result.stderr, np.std(result.per_draw_perturbed_loss, ddof=1) / np.sqrt(DRAWS), rtol=1e-4
    )


def test_sphere_has_exactly_the_radius():
    loss_fn = lambda p, batch: jnp.mean(batch) * sum(jnp.sum(x**2) for x in jax.tree.leaves(p))  # noqa: E731
    params = {"a": jnp.zeros((3, 2)), "b": {"c": jnp.zeros(5)}}
    result = metrics.average_sharpness(loss_fn, params, ONES, key=KEY, rho=0.3, draws=4)
    np.testing.assert_allclose(result.per_draw_perturbed_loss, 0.09, rtol=1e-5)


def test_linear_loss_averages_out():
    slope = np.linspace(1, 2, D)
    loss_fn = lambda w, batch: jnp.mean(batch) * (w @ slope)  # noqa: E731
    result = metrics.average_sharpness(loss_fn, jnp.ones(D), ONES, key=KEY, rho=RHO, draws=DRAWS)
    # The component along the slope has variance rho^2 / d.
    stderr = RHO * np.linalg.norm(slope) / np.sqrt(D * DRAWS)
    assert abs(result.sharpness) < 5 * stderr
    assert stderr / 1.5 < result.stderr < 1.5 * stderr
    np.testing.assert_allclose(result.loss, slope.sum(), rtol=1e-6)


def test_every_draw_is_one_perturbation_for_all_batches():
    batches = np.array([[1.0, 1.0], [2.0, 4.0], [5.0, 5.0]])
    loss_fn = minima.quadratic(MATRIX, np.zeros(D))
    arguments = {"key": KEY, "rho": RHO, "draws": 5}
    three = metrics.average_sharpness(loss_fn, jnp.ones(D), batches, **arguments)
    one = metrics.average_sharpness(loss_fn, jnp.ones(D), ONES, **arguments)
    for got, single in zip(three, one, strict=True):
        np.testing.assert_allclose(got, 3.0 * single, rtol=1e-4)  # the batches weigh 1, 3, 5


def test_same_key_gives_the_same_perturbations_to_all_models():
    loss_fn = lambda w, batch: jnp.mean(batch) * (w @ np.arange(D))  # noqa: E731
    with jax.enable_x64(True):
        rises = [
            metrics.average_sharpness(loss_fn, w, ONES, key=key).per_draw_perturbed_loss
            - loss_fn(w, 1.0)
            for w, key in [
                (jnp.zeros(D), KEY),
                (jnp.ones(D), KEY),
                (jnp.zeros(D), jax.random.key(8)),
            ]
        ]
    np.testing.assert_allclose(rises[0], rises[1], rtol=1e-10)
    assert np.all(np.abs(rises[0] - rises[2]) > 1e-6)
    assert len(set(np.asarray(rises[0]))) == 15


def test_zero_rho_changes_nothing_and_one_draw_has_no_standard_error():
    loss_fn = minima.quadratic(MATRIX, np.zeros(D))
    result = metrics.average_sharpness(loss_fn, jnp.ones(D), ONES, key=KEY, rho=0.0, draws=1)
    assert result.sharpness == 0 and result.loss > 0
    assert np.isnan(result.stderr)


def test_small_rho_agrees_with_the_dense_hessian():
    with jax.enable_x64(True):
        params, batches = minima.mlp_params(jnp.float64), minima.mlp_batches(3, 16, jnp.float64)
        gradient, hessian = minima.dense_derivatives(
            lambda p: minima.mean_mlp_loss(p, batches), params
        )
        _, unravel = ravel_pytree(params)
        slope = unravel(jnp.asarray(gradient))

        def stationary(p, batch):
            """The same Hessian without the gradient, whose noise would hide it."""
            linear = jax.tree.map(jnp.vdot, slope, p)
            return minima.mlp_loss(p, batch) - jax.tree.reduce(jnp.add, linear)

        rho = 0.01
        result = metrics.average_sharpness(
            stationary, params, batches, key=KEY, rho=rho, draws=1000
        )
    result = jax.tree.map(np.asarray, result)
    expected = rho**2 * np.trace(hessian) / (2 * gradient.size)
    assert expected > 0 and result.stderr < 0.05 * expected
    # The next order is smaller by a factor of about rho^2, far below the sampling error.
    assert abs(result.sharpness - expected) < 5 * result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": -0.5}, "rho must be zero or a positive number, got -0.5"),
        ({"draws": 0}, "draws must be an integer of at least 1, got 0"),
        ({"distribution": "uniform"}, r"one of \['sphere', 'gaussian'\], got 'uniform'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.average_sharpness(lambda w, b: jnp.sum(w), jnp.ones(2), ONES, key=KEY, **arguments)
