"""Mixing and dropping of branches: the laws of the draws, values and derivatives."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from narrow_models import NARROW, RANDOM, SHAKEN, initialise, narrow, train_mode

from sam_jax import models
from sam_jax.models import pyramid_net, randomness, wide_resnet_shake_shake
from sam_jax.models.norms import batch_norm

EXAMPLES = 4000
KEY = jax.random.key(5)


def factors(f, shape=(EXAMPLES, 2, 2, 1)):
    """The factor that `f` gives each example, in the value and in the derivative."""
    value, pullback = jax.vjp(f, jnp.ones(shape))
    (derivative,) = pullback(jnp.ones(shape))
    # Forward mode has the same derivative as reverse mode.
    np.testing.assert_array_equal(jax.jvp(f, (jnp.ones(shape),), (jnp.ones(shape),))[1], derivative)
    for array in (value, derivative):  # one draw an example
        np.testing.assert_array_equal(array, np.broadcast_to(array[:, :1, :1], shape))
    return np.float64(value[:, 0, 0, 0]), np.float64(derivative[:, 0, 0, 0])


def assert_uniform(x, low, high):
    """Extremes, mean and variance of a uniform sample, within five deviations."""
    spread, n = high - low, len(x)
    assert low <= x.min() < low + 20 * spread / n and high - 20 * spread / n < x.max() <= high
    np.testing.assert_allclose(x.mean(), (low + high) / 2, atol=5 * spread / (12 * n) ** 0.5)
    np.testing.assert_allclose(x.var(), spread**2 / 12, rtol=5 * (0.8 / n) ** 0.5)


def test_shake_shake_draws_one_mixture_forwards_and_another_backwards():
    def of_a(a, **keywords):
        return randomness.shake_shake(a, jnp.zeros_like(a), KEY, **keywords)

    def of_b(b):
        return randomness.shake_shake(jnp.zeros_like(b), b, KEY)

    alpha, beta = factors(of_a)
    assert_uniform(alpha, 0, 1)
    assert_uniform(beta, 0, 1)
    assert abs(np.corrcoef(alpha, beta)[0, 1]) < 5 * EXAMPLES**-0.5
    np.testing.assert_allclose(factors(of_b), (1 - alpha, 1 - beta), atol=1e-6)
    true_alpha, true_beta = factors(functools.partial(of_a, true_gradient=True))
    np.testing.assert_array_equal(true_alpha, alpha)
    np.testing.assert_array_equal(true_beta, alpha)


@pytest.mark.parametrize("keep_probability", [0.5, 0.9])
def test_shake_drop_keeps_or_scales(keep_probability):
    drop = functools.partial(randomness.shake_drop, keep_probability=keep_probability, key=KEY)
    alpha, beta = factors(drop)
    kept = alpha == 1
    deviation = (keep_probability * (1 - keep_probability) / EXAMPLES) ** 0.5
    np.testing.assert_allclose(kept.mean(), keep_probability, atol=5 * deviation)
    np.testing.assert_array_equal(beta[kept], 1)
    assert_uniform(alpha[~kept], -1, 1)
    assert_uniform(beta[~kept], 0, 1)
    assert abs(np.corrcoef(alpha[~kept], beta[~kept])[0, 1]) < 5 * (~kept).sum() ** -0.5
    # Variance of the factor: that of a Bernoulli variable, and 1 / 3 where it is not kept.
    deviation = (deviation**2 + (1 - keep_probability) / 3 / EXAMPLES) ** 0.5
    np.testing.assert_allclose(alpha.mean(), keep_probability, atol=5 * deviation)
    true_alpha, true_beta = factors(functools.partial(drop, true_gradient=True))
    np.testing.assert_array_equal(true_alpha, alpha)
    np.testing.assert_array_equal(true_beta, alpha)


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean():
    value, derivative = factors(lambda x: randomness.stochastic_depth(x, 0.2, KEY))
    np.testing.assert_array_equal(value, derivative)
    assert set(value) == {0.0, 1.25}
    np.testing.assert_allclose(value.mean(), 1, atol=5 * (0.25 / EXAMPLES) ** 0.5)


def test_value_with_another_derivative_is_exact_in_bfloat16():
    value, surrogate = jax.random.normal(KEY, (2, 1000)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(randomness.with_gradient_of(value, surrogate), value)
    # Negative control: the sum of the surrogate and the difference is rounded.
    assert np.any(surrogate + (value - surrogate) != value)


@pytest.mark.parametrize(
    "block",
    [
        lambda norm: pyramid_net.BottleneckBlock(2, norm, keep_probability=0.7),
        lambda norm: wide_resnet_shake_shake.ShakeShakeBlock(4, norm),
    ],
)
def test_evaluation_is_the_mean_of_training(block):
    # All examples are one image and the statistics are the running ones: only the draws differ.
    block = block(functools.partial(batch_norm, False, jnp.float32))
    images = jnp.broadcast_to(jax.random.normal(KEY, (3, 3, 4)), (EXAMPLES, 3, 3, 4))
    variables = block.init(KEY, images[:1], False, False)

    @jax.jit
    def both(images):
        trained = block.apply(variables, images, True, False, rngs={"model": KEY})
        return trained, block.apply(variables, images[:1], False, False)[0]

    trained, evaluated = both(images)
    deviation = jnp.std(trained, axis=0)
    assert deviation.max() > 0.05
    error = jnp.abs(trained.mean(0) - evaluated)
    assert jnp.all(error <= 5 * deviation * EXAMPLES**-0.5 + 1e-5)


@pytest.mark.parametrize("name", models.MODELS)
def test_draws_come_from_the_key_in_training_alone(name):
    model, images = narrow(name), jax.random.normal(KEY, (6, 8, 8, 1))
    variables = jax.tree.map(lambda leaf: leaf + 0.1, initialise(model, images))
    train = jax.jit(lambda key: train_mode(model, variables, images, key)[0])
    same = np.array_equal(train(0), train(1))
    assert same == (name not in RANDOM)
    np.testing.assert_array_equal(train(0), train(0))

    def without_key(train):
        model.apply(variables, images, train=train, mutable=["batch_stats"])

    jax.eval_shape(functools.partial(without_key, False))
    if name in RANDOM:
        with pytest.raises(Exception, match='needs PRNG for "model"'):
            jax.eval_shape(functools.partial(without_key, True))
    else:
        jax.eval_shape(functools.partial(without_key, True))


@pytest.mark.parametrize("name", SHAKEN)
def test_true_gradient_is_that_of_the_function_that_was_evaluated(name):
    with jax.enable_x64(True):
        model = narrow(name, dtype=jnp.float64)
        images = jax.random.normal(KEY, (4, 8, 8, 1), jnp.float64)
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), initialise(model, images))
        params = variables["params"]
        direction = jax.tree.map(
            lambda leaf: jax.random.normal(KEY, leaf.shape, leaf.dtype), params
        )

        def value(params, true_gradient):
            logits = train_mode(
                model, {**variables, "params": params}, images, true_gradient=true_gradient
            )[0]
            return jnp.sum(jnp.sin(logits))

        @functools.partial(jax.jit, static_argnums=0)
        def value_and_slope(true_gradient):
            result, grads = jax.value_and_grad(value)(params, true_gradient)
            products = jax.tree.map(lambda g, z: jnp.sum(g * z), grads, direction)
            return result, sum(jax.tree.leaves(products))

        @jax.jit
        def moved(step):
            return value(jax.tree.map(lambda w, z: w + step * z, params, direction), False)

        step = 1e-7  # rounding: 1e-15 / step; few units change their sign on so short a way
        difference = (moved(step) - moved(-step)) / (2 * step)
        true, mixed = value_and_slope(True), value_and_slope(False)
        np.testing.assert_allclose(mixed[0], true[0], rtol=1e-12)
        np.testing.assert_allclose(true[1], difference, rtol=1e-5)
        assert abs(mixed[1] / difference - 1) > 0.01


@pytest.mark.parametrize(
    "name, attributes, field, expected",
    [
        # With l = 1 .. L: 1 - 0.5 l / L. With l = 0 .. L - 1: 0.2 l / L, and d l / (L - 1).
        ("pyramid_net", {"depth": 20}, "keep_probability", 1 - 0.5 * np.arange(1, 7) / 6),
        ("efficientnet", {}, "drop_probability", 0.2 * np.arange(16) / 16),
        (
            "vision_transformer",
            {"variant": "Ti/4", "depth": 5, "stochastic_depth": 0.1},
            "drop_probability",
            0.1 * np.arange(5) / 4,
        ),
    ],
)
def test_probabilities_are_linear_in_the_place_of_the_block(name, attributes, field, expected):
    model, found = models.create(name, 10, **attributes), {}

    def note(call, args, kwargs, context):
        if hasattr(context.module, field):
            found[context.module.path] = getattr(context.module, field)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda key, images: model.init(key, images), KEY, jnp.zeros((1, 32, 32, 3)))
    np.testing.assert_allclose(list(found.values()), expected)


def test_probabilities_are_checked():
    for name, field in (("efficientnet", "dropout"), ("vision_transformer", "stochastic_depth")):
        for value in (-0.1, 1.0):
            with pytest.raises(ValueError, match=f"{field} must be .*below 1, got {value}"):
                narrow(name, **{field: value})


def test_zero_rates_need_no_key():
    images = jnp.zeros((2, 8, 8, 1))
    for name, rates in (
        ("efficientnet", {"dropout": 0.0, "stochastic_depth": 0.0}),
        ("vision_transformer", {"stochastic_depth": 0.0}),
    ):
        model = models.create(name, 3, **NARROW[name] | rates)
        variables = jax.eval_shape(model.init, KEY, images)
        jax.eval_shape(
            lambda variables, model=model: model.apply(
                variables, images, train=True, mutable=["batch_stats"]
            ),
            variables,
        )
