"""The loss, its gradient and the optimiser against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_problems import (
    Linear,
    NormNet,
    TorchSgd,
    global_norm,
    make_sgd,
    random_batch,
    softmax_gradient,
)

from sam_jax.training import losses


def numpy_cross_entropy(logits, labels, smoothing):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    classes = logits.shape[1]
    target = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    return -(target * log_p).sum(axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_is_the_formula(smoothing):
    random = np.random.default_rng(0)
    logits, labels = 3 * random.normal(size=(11, 5)), random.integers(0, 5, 11)
    expected = numpy_cross_entropy(logits, labels, smoothing)
    with jax.enable_x64(True):
        actual = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-13)
    other = numpy_cross_entropy(logits, labels, smoothing + 0.05)  # the test sees the smoothing
    assert np.abs(np.asarray(actual) - other).max() > 1e-3


def test_cross_entropy_where_a_probability_underflows():
    logits = jnp.array([[3e38, -3e38]] * 2)  # log-probabilities 0 and -infinity
    found = losses.cross_entropy(logits, jnp.array([0, 1]))
    np.testing.assert_array_equal(found, [0.0, np.inf])


def test_cross_entropy_widens_and_survives_large_logits():
    logits = jnp.asarray([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], jnp.bfloat16)
    loss = losses.cross_entropy(logits, jnp.asarray([1, 2]), 0.1)
    assert loss.dtype == jnp.float32
    # bfloat16 holds 1e4 as 9984; the softmax must not round further than float32.
    expected = numpy_cross_entropy(np.asarray(logits, np.float64), [1, 2], 0.1)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_gradient_and_outputs_of_a_pass(decay):
    images, labels = random_batch()
    with jax.enable_x64(True):
        model = Linear()
        params = model.init(jax.random.key(0), images)["params"]
        grad_fn = losses.make_functions(
            model, {}, losses.Loss(label_smoothing=0.2), weight_decay=decay
        ).grad_fn
        gradient, outputs = grad_fn(params, (jnp.asarray(images), jnp.asarray(labels)))
    dense = {name: np.asarray(x) for name, x in params["dense"].items()}
    expected = softmax_gradient(dense, images, labels, smoothing=0.2, decay=decay)
    for name in dense:
        np.testing.assert_allclose(gradient["dense"][name], expected[name], rtol=1e-11)
    logits = images.reshape(8, -1) @ dense["kernel"] + dense["bias"][None]
    # Neither the loss nor the accuracy that is reported knows of weight decay.
    np.testing.assert_allclose(outputs.loss, numpy_cross_entropy(logits, labels, 0.2).mean())
    assert outputs.accuracy == np.mean(logits.argmax(axis=1) == labels)
    assert outputs.batch_stats == {}


def test_weight_decay_in_the_loss_covers_biases_and_batch_norm():
    images, labels = random_batch()
    with jax.enable_x64(True):
        model = NormNet()
        variables = model.init(jax.random.key(0), images)
        params = jax.tree.map(lambda x: x + 0.5, variables["params"])
        batch = jnp.asarray(images), jnp.asarray(labels)
        stats = variables["batch_stats"]
        plain, _ = losses.make_functions(model, stats).grad_fn(params, batch)
        decayed, _ = losses.make_functions(model, stats, weight_decay=0.1).grad_fn(params, batch)
    plain, decayed, params = jax.tree.map(np.asarray, (plain, decayed, params))
    assert "norm" in params and "bias" in params["second"]
    jax.tree.map(
        lambda d, p, w: np.testing.assert_allclose(d - p, 0.1 * w, rtol=1e-10, atol=1e-12),
        decayed,
        plain,
        params,
    )


def test_what_methods_see_besides_the_gradient():
    images, labels = random_batch()
    with jax.enable_x64(True):
        model = NormNet()
        variables = model.init(jax.random.key(0), images)
        params, batch = variables["params"], (jnp.asarray(images), jnp.asarray(labels))
        functions = losses.make_functions(
            model, variables["batch_stats"], losses.Loss(label_smoothing=0.1)
        )
        logits = functions.logits_fn(params, batch)
        per_example = functions.losses_fn(params, batch)
        np.testing.assert_allclose(
            per_example, numpy_cross_entropy(np.asarray(logits), labels, 0.1), rtol=1e-10
        )
        plain, outputs = functions.grad_fn(params, batch)
        np.testing.assert_allclose(outputs.loss, per_example.mean(), rtol=1e-12)
        # A term is added to the loss that is descended on, not to the one that is reported.
        with_term, same = functions.grad_fn(params, batch, term=lambda z: jnp.sum(z**2))
        np.testing.assert_allclose(same.loss, outputs.loss, rtol=1e-12)
        term_gradient = jax.grad(lambda w: jnp.sum(functions.logits_fn(w, batch) ** 2))(params)
    for a, b, c in zip(*map(jax.tree.leaves, (with_term, plain, term_gradient)), strict=True):
        np.testing.assert_allclose(a, b + c, rtol=1e-8, atol=1e-10)
    assert global_norm(term_gradient) > 0.1


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip_norm", [0.0, 0.7])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_optimiser_is_clipping_and_then_sgd_of_pytorch(nesterov, clip_norm, decay):
    random = np.random.default_rng(1)
    gradients = [
        {"a": random.normal(size=(3, 2)), "b": 0.1 * random.normal(size=4)} for _ in range(4)
    ]
    reference = TorchSgd(0.1, 0.9, nesterov, clip_norm, decay)
    expected = {name: 2 * g for name, g in gradients[0].items()}
    with jax.enable_x64(True):
        optimiser = make_sgd(0.1, 0.9, nesterov, clip_norm, decay)
        params = jax.tree.map(jnp.asarray, expected)
        state = optimiser.init(params)
        for gradient in gradients:
            updates, state = optimiser.update(jax.tree.map(jnp.asarray, gradient), state, params)
            params = jax.tree.map(jnp.add, params, updates)
            expected = reference.step(expected, gradient)
    for name in expected:
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-12)


def test_weight_decay_of_the_optimiser_is_not_clipped():
    with jax.enable_x64(True):
        params = {"w": jnp.full(4, 100.0)}
        optimiser = make_sgd(1.0, 0.0, False, clip_norm=1.0, weight_decay=0.5)
        updates, _ = optimiser.update({"w": jnp.full(4, 3.0)}, optimiser.init(params), params)
    np.testing.assert_allclose(updates["w"], -(0.5 + 50.0), rtol=1e-12)
    assert global_norm(updates) > 100


def test_a_schedule_is_read_by_step():
    optimiser = make_sgd(lambda step: 1.0 + step, 0.0, False, 0.0, 0.0)
    params = {"w": jnp.zeros(1)}
    state, seen = optimiser.init(params), []
    for _ in range(3):
        updates, state = optimiser.update({"w": jnp.ones(1)}, state, params)
        seen.append(float(updates["w"][0]))
    assert seen == [-1.0, -2.0, -3.0]
