"""Cutting examples into batches of m."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import metrics
from sam_jax.metrics.sharpness.sub_batches import split_batches

KEY = jax.random.key(3)
ONES = np.ones((1, 4))


def sharpness(loss_fn, w, batches=ONES, **arguments):
    """The sharpness in float64, as a number."""
    with jax.enable_x64(True):
        w = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), w)
        measure = jax.jit(lambda w: metrics.adversarial_sharpness(loss_fn, w, batches, **arguments))
        return float(measure(w).sharpness)


def test_m_is_the_batch_size_whatever_the_number_of_examples():
    # For a linear loss the m-sharpness is rho times the mean norm of the gradients of the batches.
    examples, rho = np.random.default_rng(0).normal(size=(48, 5)), 0.1
    loss_fn = lambda w, x: jnp.mean(x @ w)  # noqa: E731
    found = {}
    for m in (1, 4, 16, 48):
        batches = split_batches(examples, m)
        gradients = examples.reshape(-1, m, 5).mean(axis=1)
        found[m] = sharpness(loss_fn, np.ones(5), batches, rho=rho)
        np.testing.assert_allclose(
            found[m], rho * np.mean(np.linalg.norm(gradients, axis=1)), rtol=1e-6
        )
    assert found[1] > found[4] > found[16] > found[48] > 0
    fewer = sharpness(loss_fn, np.ones(5), split_batches(examples[:16], 16), rho=rho)
    assert abs(fewer - found[48]) > abs(fewer - found[16])


def test_split_batches_keeps_every_example_and_its_order():
    examples = {"x": np.arange(24.0).reshape(12, 2), "y": np.arange(12)}
    for m in (1, 3, 12):
        batches = split_batches(examples, m)
        assert batches["x"].shape == (12 // m, m, 2) and batches["y"].shape == (12 // m, m)
        np.testing.assert_array_equal(np.ravel(batches["x"]), np.arange(24))
        np.testing.assert_array_equal(np.ravel(batches["y"]), np.arange(12))


@pytest.mark.parametrize(
    ("examples", "m", "message"),
    [
        (np.ones(10), 4, "m = 4 does not divide the 10 examples.*such as the first 8"),
        (np.ones(3), 4, "m = 4 does not divide the 3 examples"),
        (np.ones(3), 0, "m must be an integer of at least 1, got 0"),
        ({"x": np.ones(4), "y": np.ones(3)}, 1, "share one leading axis"),
        ({}, 1, "share one leading axis"),
        (np.ones(()), 1, "share one leading axis"),
        (np.ones((0, 3)), 1, "at least one example"),
    ],
)
def test_split_batches_errors(examples, m, message):
    with pytest.raises(ValueError, match=message):
        split_batches(examples, m)
