"""Hessian-vector products and the trace, against dense Hessians, closed forms and matfree."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from matfree import stochtrace

from sam_jax.draws import random_like
from sam_jax.metrics.curvature.hessian import hessian_vector_product
from sam_jax.metrics.curvature.trace import hessian_trace

KEY = jax.random.key(11)
D = 12
MATRIX = minima.spd_matrix(D)
FIRST_ONLY = {"first": True, "second": False}


@functools.cache
def network():
    """A tanh network in float64, its batches, its dense Hessian; call it with 64 bits enabled."""
    params = minima.mlp_params(jnp.float64)
    batches = minima.mlp_batches(3, 16, jnp.float64)
    _, hessian = minima.dense_derivatives(lambda p: minima.mean_mlp_loss(p, batches), params)
    return params, batches, hessian


def ravel(tree):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


# ---------------------------------------------------------------------------- products


def test_product_is_that_of_the_dense_hessian():
    with jax.enable_x64(True):
        params, batches, hessian = network()
        v = random_like(KEY, params)
        product = hessian_vector_product(minima.mlp_loss, params, v, batches)
        over_all = hessian_vector_product(lambda p: minima.mean_mlp_loss(p, batches), params, v)
        one = hessian_vector_product(
            minima.mlp_loss, params, v, jax.tree.map(lambda x: x[:1], batches)
        )
        assert jax.tree.structure(product) == jax.tree.structure(params)
    # Some 100 rounding errors of 1e-16 each.
    np.testing.assert_allclose(ravel(product), hessian @ ravel(v), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(ravel(over_all), hessian @ ravel(v), rtol=1e-11, atol=1e-13)
    assert np.max(np.abs(ravel(one) - hessian @ ravel(v))) > 1e-3


def test_product_is_the_derivative_of_the_gradient():
    with jax.enable_x64(True):
        params, batches, _ = network()
        v = random_like(KEY, params)
        gradient = jax.jit(jax.grad(lambda p: minima.mean_mlp_loss(p, batches)))
        step = 1e-5
        forward, backward = (
            ravel(gradient(jax.tree.map(lambda w, d: w + sign * step * d, params, v)))  # noqa: B023
            for sign in (1, -1)
        )
        product = ravel(hessian_vector_product(minima.mlp_loss, params, v, batches))
    # Central differences: truncation step^2 = 1e-10, rounding 1e-16 / step = 1e-11.
    np.testing.assert_allclose((forward - backward) / (2 * step), product, atol=1e-8)
    assert np.max(np.abs(product)) > 0.1


@jax.jit
def product_of_quadratic(matrix, vector, w, v):
    return hessian_vector_product(minima.quadratic(matrix, vector), w, v)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.integers(0, 10_000), st.floats(-100, 100))
def test_product_of_a_quadratic_is_exact_and_linear(seed, factor):
    rng = np.random.default_rng(seed)
    matrix, vectors = rng.normal(size=(5, 5)), rng.normal(size=(3, 5))
    matrix = matrix + matrix.T
    with jax.enable_x64(True):
        product = product_of_quadratic(matrix, vectors[0], vectors[1], vectors[2])
        scaled = product_of_quadratic(matrix, vectors[0], vectors[1], factor * vectors[2])
    np.testing.assert_allclose(product, matrix @ vectors[2], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scaled, factor * (matrix @ vectors[2]), rtol=1e-10, atol=1e-10)


def test_weights_make_an_uneven_set_exact():
    """Forty examples in batches of 16, the last of them padded, and a loss that knows."""
    with jax.enable_x64(True):
        params = minima.mlp_params(jnp.float64)
        batches = minima.mlp_batches(3, 16, jnp.float64)
        batches["real"] = (jnp.arange(48) < 40).reshape(3, 16)

        def loss_fn(p, batch):
            losses = jax.vmap(
                lambda x, y: minima.mlp_loss(p, {"x": x[None], "y": y[None]}), (0, 0)
            )(batch["x"], batch["y"])
            return jnp.sum(losses * batch["real"]) / jnp.sum(batch["real"])

        examples = jax.tree.map(lambda x: x.reshape(48, *x.shape[2:])[:40], batches)
        _, hessian = minima.dense_derivatives(lambda p: minima.mlp_loss(p, examples), params)
        v = random_like(KEY, params)
        measure = lambda w: hessian_vector_product(loss_fn, params, v, batches, weights=w)  # noqa: E731
        weighted, even = (ravel(measure(w)) for w in (np.array([16, 16, 8]), None))
        traced = ravel(jax.jit(measure)(jnp.array([2.0, 2.0, 1.0])))
    np.testing.assert_allclose(weighted, hessian @ ravel(v), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(traced, weighted, rtol=1e-11, atol=1e-13)
    assert np.max(np.abs(even - weighted)) > 1e-3


@pytest.mark.parametrize("mask", [FIRST_ONLY, lambda p: {**FIRST_ONLY}], ids=["tree", "function"])
def test_mask_takes_a_block_of_the_hessian(mask):
    with jax.enable_x64(True):
        params, batches, hessian = network()
        v = random_like(KEY, params)
        product = hessian_vector_product(minima.mlp_loss, params, v, batches, mask=mask)
        trace = hessian_trace(
            minima.mlp_loss, params, batches, key=KEY, draws=300, mask=mask, distribution="gaussian"
        )
        trace = jax.tree.map(np.asarray, trace)
    block = hessian[:18, :18]  # bias and kernel of the first layer come first
    np.testing.assert_allclose(ravel(product["first"]), block @ ravel(v)[:18], atol=1e-13)
    np.testing.assert_array_equal(product["second"]["kernel"], 0)
    assert product["second"]["kernel"].shape == (6, 2)
    assert abs(trace.trace - np.trace(block)) < 5 * trace.stderr
    assert trace.stderr < 0.2 * abs(np.trace(hessian) - np.trace(block))


def test_mixed_and_narrow_dtypes_are_kept_or_widened():
    with jax.enable_x64(True):
        params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(3, jnp.float64)}
        loss_fn = lambda p: jnp.sum(p["a"] ** 4) + jnp.sum(p["b"] ** 3)  # noqa: E731
        product = hessian_vector_product(loss_fn, params, jax.tree.map(jnp.ones_like, params))
        assert product["a"].dtype == jnp.float32 and product["b"].dtype == jnp.float64
        np.testing.assert_array_equal(product["a"], 12.0)
        np.testing.assert_array_equal(product["b"], 6.0)


# ---------------------------------------------------------------------------- trace

FROBENIUS = np.sum(MATRIX**2)
VARIANCE = {
    "rademacher": 2 * (FROBENIUS - np.sum(np.diag(MATRIX) ** 2)),
    "gaussian": 2 * FROBENIUS,
}


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_trace_has_known_mean_and_variance(distribution):
    draws = 1000
    result = hessian_trace(
        minima.quadratic(MATRIX, np.ones(D)),
        jnp.ones(D),
        key=KEY,
        draws=draws,
        distribution=distribution,
    )
    stderr = np.sqrt(VARIANCE[distribution] / draws)
    assert abs(result.trace - np.trace(MATRIX)) < 5 * stderr < 0.1 * np.trace(MATRIX)
    # The standard error of a standard deviation from 1000 draws is 2 to 4 per cent.
    assert abs(result.stderr / stderr - 1) < 0.2
    other = VARIANCE["gaussian" if distribution == "rademacher" else "rademacher"]
    assert abs(result.stderr / np.sqrt(other / draws) - 1) > 0.2
    assert result.per_draw.shape == (draws,)
    np.testing.assert_allclose(result.trace, np.mean(result.per_draw), rtol=1e-5)


def test_trace_of_a_diagonal_hessian_needs_one_sign_vector():
    diagonal = np.linspace(-1, 3, D)
    loss_fn = minima.quadratic(np.diag(diagonal), np.zeros(D))
    result = hessian_trace(loss_fn, jnp.ones(D), key=KEY, draws=1)
    np.testing.assert_allclose(result.trace, diagonal.sum(), rtol=1e-5)
    assert np.isnan(result.stderr)
    gaussian = hessian_trace(loss_fn, jnp.ones(D), key=KEY, draws=1, distribution="gaussian")
    assert abs(gaussian.trace - diagonal.sum()) > 0.01


def test_trace_of_a_network_is_the_sum_of_its_eigenvalues():
    with jax.enable_x64(True):
        params, batches, hessian = network()
        result = jax.tree.map(
            np.asarray, hessian_trace(minima.mlp_loss, params, batches, key=KEY, draws=500)
        )
    expected = np.sum(np.linalg.eigvalsh(hessian))
    variance = 2 * (np.sum(hessian**2) - np.sum(np.diag(hessian) ** 2))
    assert abs(result.trace - expected) < 5 * np.sqrt(variance / 500)
    assert abs(result.stderr / np.sqrt(variance / 500) - 1) < 0.2
    assert result.stderr < 0.2 * abs(expected)


def test_every_draw_is_what_matfree_integrates():
    with jax.enable_x64(True):
        params, batches, hessian = network()
        draws = 5
        ours = hessian_trace(
            minima.mlp_loss, params, batches, key=KEY, draws=draws, distribution="gaussian"
        )
        flat, _ = ravel_pytree(params)
        samples = jnp.stack([random_like(jax.random.fold_in(KEY, i), flat) for i in range(draws)])
        estimate = stochtrace.estimator_monte_carlo_mean_and_sem(
            stochtrace.monte_carlo_trace(), lambda _: samples
        )
        mean, stderr = estimate(lambda v: jnp.asarray(hessian) @ v, KEY)
    mean, stderr = np.asarray(mean), np.asarray(stderr)
    np.testing.assert_allclose(ours.trace, mean, rtol=1e-11)
    # matfree divides by the number of draws, we by one less.
    np.testing.assert_allclose(ours.stderr, stderr * np.sqrt(draws / (draws - 1)), rtol=1e-11)


def test_trace_agrees_with_an_independent_run_of_matfree():
    loss_fn = minima.quadratic(MATRIX, np.ones(D))
    ours = hessian_trace(loss_fn, jnp.ones(D), key=KEY, draws=400)
    estimate = stochtrace.estimator_monte_carlo_mean_and_sem(
        stochtrace.monte_carlo_trace(), stochtrace.sampler_signs(jnp.ones(D), num=400)
    )
    mean, stderr = estimate(
        lambda v: hessian_vector_product(loss_fn, jnp.ones(D), v), jax.random.key(5)
    )
    assert abs(ours.trace - mean) < 5 * np.hypot(ours.stderr, stderr)
    assert 1 / 1.2 < ours.stderr / stderr < 1.2
