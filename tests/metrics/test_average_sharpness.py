import functools

import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sam_jax import metrics
from sam_jax.draws import random_like

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


LAWS = ("sphere", "gaussian", "adaptive_gaussian")
MASKS = (None, {"first": {"kernel": True, "bias": False}, "second": True})


@functools.cache
def network():
    """Parameters with one zero, batches, and the dense derivatives of their mean loss."""
    with jax.enable_x64(True):
        params, batches = minima.mlp_params(jnp.float64), minima.mlp_batches(3, 16, jnp.float64)
        params["second"]["kernel"] = params["second"]["kernel"].at[0, 0].set(0.0)
        return (
            params,
            batches,
            *minima.dense_derivatives(lambda p: minima.mean_mlp_loss(p, batches), params),
        )


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("law", LAWS)
def test_small_rho_agrees_with_the_dense_hessian(law, mask):
    rho, draws = 1e-3, 1000
    params, batches, gradient, hessian = network()
    with jax.enable_x64(True):
        w, unravel = ravel_pytree(params)
        slope = unravel(jnp.asarray(gradient))

        def stationary(p, batch):
            """The same Hessian without the gradient, whose noise would hide it."""
            linear = jax.tree.map(jnp.vdot, slope, p)
            return minima.mlp_loss(p, batch) - jax.tree.reduce(jnp.add, linear)

        measure = jax.jit(
            lambda p: metrics.average_sharpness(
                stationary, p, batches, key=KEY, rho=rho, draws=draws, distribution=law, mask=mask
            )
        )
        result = jax.tree.map(np.asarray, measure(params))
        drawn = params  # what the mask leaves out has no draw, either
        if mask is not None:
            drawn = {"first": {"kernel": params["first"]["kernel"], "bias": None}} | {
                "second": params["second"]
            }
        numbers = jax.jit(
            jax.vmap(lambda i: ravel_pytree(random_like(jax.random.fold_in(KEY, i), drawn))[0])
        )
        z = np.asarray(numbers(jnp.arange(draws)))
    chosen = np.ones(30) if mask is None else np.asarray([0] * 6 + [1] * 24)  # the bias comes first
    z = np.pad(z, ((0, 0), (30 - z.shape[1], 0)))
    c = chosen * (np.abs(w) if law == "adaptive_gaussian" else 1)
    epsilon = rho * c * z
    if law == "sphere":
        epsilon = rho * c * z / np.linalg.norm(c * z, axis=1, keepdims=True)
    # Every draw: the next order is smaller by |epsilon|, times a ratio of derivatives of order one.
    quadratic = 0.5 * np.einsum("ki,ij,kj->k", epsilon, hessian, epsilon)
    rises = result.per_draw_perturbed_loss - result.loss
    size = np.max(np.linalg.norm(epsilon, axis=1))
    np.testing.assert_allclose(rises, quadratic, atol=2 * size * np.max(quadratic), rtol=0)
    # Their mean: the trace, weighted by c^2, with the variance of a quadratic form.
    scaled = c[:, None] * hessian * c
    trace, squares = np.trace(scaled), np.sum(scaled**2)
    d = np.sum(chosen)
    if law == "sphere":
        expected = rho**2 * trace / (2 * d)
        variance = rho**4 / (2 * d * (d + 2)) * (squares - trace**2 / d)
    else:
        expected, variance = rho**2 * trace / 2, rho**4 * squares / 2
    stderr = np.sqrt(variance / draws)
    assert abs(result.sharpness - expected) < 4 * stderr < 0.4 * expected
    np.testing.assert_allclose(result.stderr, stderr, rtol=0.25)
    # What another law or mask, or a norm over all 30 weights, would give is far outside of that.
    for wrong in (rho**2 * np.trace(hessian) / 2, rho**2 * trace / 60):
        if not np.isclose(wrong, expected, atol=0):
            assert abs(result.sharpness - wrong) > 4 * stderr


def test_adaptive_noise_fixes_weights_that_are_zero_and_scales_with_the_others():
    loss_fn = lambda p, batch: jnp.mean(batch) * (1e6 * jnp.sum(p["zero"] ** 2) + jnp.sum(p["w"]))  # noqa: E731
    params = {"zero": np.zeros(3), "w": np.array([-2.0, 0.5])}
    arguments = {"key": KEY, "rho": 0.1, "draws": DRAWS, "distribution": "adaptive_gaussian"}
    result = metrics.average_sharpness(loss_fn, params, ONES, **arguments)
    # The sum of the weights varies by rho ||w||.
    np.testing.assert_allclose(
        np.std(result.per_draw_perturbed_loss), 0.1 * np.hypot(2, 0.5), rtol=5 / (2 * DRAWS) ** 0.5
    )
    tenfold = metrics.average_sharpness(
        loss_fn, jax.tree.map(lambda w: 10 * w, params), ONES, **arguments
    )
    np.testing.assert_allclose(
        tenfold.per_draw_perturbed_loss, 10 * result.per_draw_perturbed_loss, rtol=1e-4, atol=1e-5
    )


def test_masked_sphere_has_exactly_the_radius():
    loss_fn = lambda p, batch: jnp.mean(batch) * (jnp.sum(p["a"] ** 2) + 1e6 * jnp.sum(p["b"] ** 2))  # noqa: E731
    params = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(5)}
    result = metrics.average_sharpness(
        loss_fn, params, ONES, key=KEY, rho=0.3, draws=4, mask={"a": True, "b": False}
    )
    np.testing.assert_allclose(result.per_draw_perturbed_loss, 0.09, rtol=1e-5)


def test_one_compilation_serves_all_models_deviations_and_keys():
    traces = []

    def loss_fn(params, batch):
        traces.append(1)
        return minima.mlp_loss(params, batch)

    @jax.jit
    def measure(params, batches, rho, key):
        return metrics.average_sharpness(
            loss_fn, params, batches, rho=rho, key=key, draws=3, distribution="adaptive_gaussian"
        ).sharpness

    values = {
        float(measure(minima.mlp_params(seed=seed), minima.mlp_batches(), rho, jax.random.key(key)))
        for seed in range(2)
        for rho in (0.1, 0.5)
        for key in range(2)
    }
    assert len(values) == 8 and len(traces) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": -0.5}, "rho must be zero or a positive number, got -0.5"),
        ({"draws": 0}, "draws must be an integer of at least 1, got 0"),
        (
            {"distribution": "uniform"},
            r"\['sphere', 'gaussian', 'adaptive_gaussian'\], got 'uniform'",
        ),
        ({"mask": [True]}, "mask must hold booleans in the structure of params"),
        ({"mask": False}, "mask must choose at least one leaf"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.average_sharpness(lambda w, b: jnp.sum(w), jnp.ones(2), ONES, key=KEY, **arguments)
