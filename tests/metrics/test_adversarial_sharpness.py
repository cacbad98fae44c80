import jax
import jax.numpy as jnp
import minima
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import metrics

KEY = jax.random.key(3)
ONES = np.ones((1, 4))


def test_one_step_on_a_quadratic_is_the_sam_step():
    matrix, vector, w = minima.spd_matrix(6), np.arange(6.0), np.linspace(-1, 1, 6)
    batches = np.array([[1.0, 3.0], [4.0, 8.0], [0.5, 0.5]])
    weights = batches.mean(axis=1)
    rho = 0.3

    def value(point):
        return 0.5 * point @ matrix @ point + vector @ point

    gradient = matrix @ w + vector  # its direction is the same for all batches
    step = rho * gradient / np.linalg.norm(gradient)
    with jax.enable_x64(True):
        result = metrics.adversarial_sharpness(
            minima.quadratic(matrix, vector), jnp.asarray(w), batches, rho=rho
        )
    result = jax.tree.map(np.asarray, result)
    expected = weights * (value(w + step) - value(w))
    np.testing.assert_allclose(result.per_batch_loss, weights * value(w), rtol=1e-13)
    np.testing.assert_allclose(result.per_batch_perturbed_loss, weights * value(w + step), 1e-13)
    np.testing.assert_allclose(result.loss, np.mean(weights * value(w)), rtol=1e-13)
    np.testing.assert_allclose(result.perturbed_loss, np.mean(weights * value(w + step)), 1e-13)
    np.testing.assert_allclose(result.sharpness, expected.mean(), rtol=1e-12)
    np.testing.assert_allclose(result.stderr, expected.std(ddof=1) / np.sqrt(3), rtol=1e-12)
    descended = weights * (value(w - step) - value(w))
    assert abs(result.sharpness - descended.mean()) > 0.1 * expected.mean()


def test_asymmetric_loss_tells_the_sign_of_the_step():
    slope, rho = np.array([3.0, -4.0]), 0.5  # norm 5
    loss_fn = lambda w, batch: jnp.mean(batch) * jnp.exp(w @ slope)  # noqa: E731
    with jax.enable_x64(True):
        result = metrics.adversarial_sharpness(loss_fn, jnp.zeros(2), ONES, rho=rho)
    np.testing.assert_allclose(result.sharpness, np.expm1(5 * rho), rtol=1e-13)


def test_norm_is_taken_over_all_leaves_together():
    params = {"a": {"b": jnp.zeros(3)}, "c": [jnp.zeros((2, 2)), jnp.zeros(())]}
    slopes = {"a": {"b": 2.0}, "c": [1.0, -3.0]}

    def loss_fn(p, batch):
        terms = jax.tree.map(lambda leaf, slope: slope * jnp.sum(leaf), p, slopes)
        return jnp.mean(batch) * jax.tree.reduce(jnp.add, terms)

    result = metrics.adversarial_sharpness(loss_fn, params, ONES, rho=0.1)
    length = np.sqrt(3 * 4 + 4 * 1 + 9)
    np.testing.assert_allclose(result.sharpness, 0.1 * length, rtol=1e-5)


@pytest.mark.parametrize("offset", [1.0, 1e-3])
def test_many_steps_reach_the_maximum_over_the_ball(offset):
    matrix, rho = minima.spd_matrix(6), 0.5
    w = offset * np.linspace(0.5, 1.5, 6)
    exact = minima.largest_rise(matrix, matrix @ w, rho)
    with jax.enable_x64(True):
        loss_fn = minima.quadratic(matrix, np.zeros(6))
        one = metrics.adversarial_sharpness(loss_fn, jnp.asarray(w), ONES, rho=rho)
        # On the sphere this is a shifted power iteration: converges for any gap after enough steps.
        many = metrics.adversarial_sharpness(loss_fn, jnp.asarray(w), ONES, rho=rho, steps=200)
        one, many = float(one.sharpness), float(many.sharpness)
    np.testing.assert_allclose(many, exact, rtol=1e-6)
    assert one < exact - 1e-3
    if offset == 1e-3:  # all but the minimum itself: half rho^2 times the top eigenvalue 3
        bound = rho * np.linalg.norm(matrix @ w)  # what the gradient can add
        assert abs(many - 0.5 * rho**2 * 3.0) < bound < 0.02


def test_small_steps_are_projected_onto_the_ball():
    slope = np.array([1.0, 2.0, -2.0])  # norm 3
    loss_fn = lambda w, batch: jnp.mean(batch) * (w @ slope)  # noqa: E731
    rises = [
        metrics.adversarial_sharpness(
            loss_fn, jnp.ones(3), ONES, rho=0.1, steps=steps, step_size=0.03
        ).sharpness
        for steps in (1, 3, 4, 9)
    ]
    np.testing.assert_allclose(rises, [0.09, 0.27, 0.3, 0.3], rtol=1e-4)


def test_best_iterate_counts_not_the_last():
    # Ascent on a hill at 0.5 from 0.2 with step 0.4 goes to 0.6, back to 0.2, and so on.
    loss_fn = lambda w, batch: jnp.mean(batch) * (1 - (w - 0.5) ** 2)  # noqa: E731
    with jax.enable_x64(True):
        for steps in (1, 2, 3):
            result = metrics.adversarial_sharpness(
                loss_fn, jnp.array(0.2), ONES, rho=1.0, steps=steps, step_size=0.4
            )
            np.testing.assert_allclose(result.sharpness, 0.3**2 - 0.1**2, rtol=1e-12)


def test_start_is_not_a_candidate():
    # From 0.4 the step of 0.4 overshoots the hill and ends lower, at 0.8.
    loss_fn = lambda w, batch: jnp.mean(batch) * (1 - (w - 0.5) ** 2)  # noqa: E731
    with jax.enable_x64(True):
        result = metrics.adversarial_sharpness(loss_fn, jnp.array(0.4), ONES, rho=0.4)
    np.testing.assert_allclose(result.sharpness, 0.1**2 - 0.3**2, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), rho=st.floats(0.01, 3.0), fraction=st.floats(0.1, 2.0))
def test_more_steps_never_find_less(seed, rho, fraction):
    batches = minima.mlp_batches()
    values = MEASURE(minima.mlp_params(seed=seed), batches, rho, fraction * rho)
    # Equal prefixes of one ascent, compiled apart: equal up to float32 rounding.
    assert values[0] <= values[1] + 1e-5 and values[1] <= values[2] + 1e-5


@jax.jit
def MEASURE(params, batches, rho, step_size):  # noqa: N802
    return [
        metrics.adversarial_sharpness(
            minima.mlp_loss, params, batches, rho=rho, steps=steps, step_size=step_size
        ).sharpness
        for steps in (1, 3, 6)
    ]


def test_zero_gradient_and_zero_rho_give_zero():
    loss_fn = minima.quadratic(minima.spd_matrix(4), np.zeros(4))
    at_minimum = metrics.adversarial_sharpness(loss_fn, jnp.zeros(4), ONES, rho=0.5, steps=3)
    assert at_minimum.sharpness == 0 and at_minimum.perturbed_loss == 0
    unmoved = metrics.adversarial_sharpness(loss_fn, jnp.ones(4), ONES, rho=0.0)
    assert unmoved.sharpness == 0 and unmoved.loss > 0


def test_one_batch_has_no_standard_error():
    loss_fn = minima.quadratic(minima.spd_matrix(4), np.zeros(4))
    assert np.isnan(metrics.adversarial_sharpness(loss_fn, jnp.ones(4), ONES).stderr)


def test_small_rho_agrees_with_the_dense_hessian():
    with jax.enable_x64(True):
        params, batches = minima.mlp_params(jnp.float64), minima.mlp_batches(1, 16, jnp.float64)
        gradient, hessian = minima.dense_derivatives(
            lambda p: minima.mean_mlp_loss(p, batches), params
        )
        assert gradient.size == 30
        length = np.linalg.norm(gradient)
        curvature = gradient @ hessian @ gradient / length**2

        @jax.jit
        def rest(rho):
            result = metrics.adversarial_sharpness(minima.mlp_loss, params, batches, rho=rho)
            return result.sharpness - rho * length - 0.5 * rho**2 * curvature

        coarse, fine = float(rest(0.02)), float(rest(0.01))
    # What is left is of third order: halving rho divides it by 8, up to O(rho).
    np.testing.assert_allclose(coarse / fine, 8.0, rtol=0.1)
    assert abs(coarse) < 0.05 * abs(0.5 * 0.02**2 * curvature)  # the second order is seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": -0.1}, "rho must be zero or a positive number, got -0.1"),
        ({"rho": float("nan")}, "rho must be"),
        ({"rho": None}, "rho must be zero or a positive number, got None"),
        ({"rho": "0.1"}, "rho must be zero or a positive number, got '0.1'"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": 1.5}, "steps must be an integer of at least 1, got 1.5"),
        ({"step_size": 0.0}, "step_size must be a positive number"),
        ({"step_size": lambda k: -0.1}, r"step_size\(0\) must be a positive number, got -0.1"),
        ({"step_size": lambda k: 1.0 - k / 2, "steps": 3}, r"step_size\(2\) must be.*got 0.0"),
        ({"step_size": lambda k: jnp.inf}, r"step_size\(0\) must be a positive number, got inf"),
        ({"restarts": -1, "key": KEY}, "restarts must be an integer of at least 0, got -1"),
        ({"restarts": 1.0, "key": KEY}, "restarts must be an integer"),
        ({"norm": "l1"}, r"norm must be one of \['l2', 'linf'\], got 'l1'"),
        ({"metric": "l2"}, r"metric must be one of \['ball', 'euclidean'\], got 'l2'"),
        ({"mask": [True]}, "mask must hold booleans in the structure of params"),
        ({"mask": False}, "mask must choose at least one leaf"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.adversarial_sharpness(lambda w, b: jnp.sum(w), jnp.ones(2), ONES, **arguments)
