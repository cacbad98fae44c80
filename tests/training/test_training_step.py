"""One step, and compiled runs of steps, against steps computed by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from training_problems import (
    Linear,
    NormNet,
    TorchSgd,
    global_norm,
    make_sgd,
    random_batch,
    softmax_gradient,
)

from sam_jax import optim
from sam_jax.training import losses
from sam_jax.training.step import (
    DEVICES,
    StepInputs,
    StepMetrics,
    TrainState,
    epoch_order,
    make_run_steps,
    train_step,
)

LR, MOMENTUM, CLIP, RHO, DECAY = 0.3, 0.9, 0.1, 0.4, 0.2


def make_state(model, images, method, optimiser):
    variables = model.init(jax.random.key(1), jnp.asarray(images), train=False)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        method_state=method.init(params),
        optimiser_state=optimiser.init(params),
    )


def numpy_sam(params, batches, decay_in):
    """SAM with weight decay in the loss or in the update, as printed, for `Linear`."""
    in_loss = DECAY if decay_in == "loss" else 0.0
    sgd = TorchSgd(LR, MOMENTUM, True, CLIP, DECAY if decay_in == "update" else 0.0)
    for images, labels in batches:
        g = softmax_gradient(params, images, labels, decay=in_loss)
        norm = global_norm(g)
        ascended = {name: params[name] + RHO * g[name] / norm for name in params}
        params = sgd.step(params, softmax_gradient(ascended, images, labels, decay=in_loss))
    return params


def take_steps(decay_in, batches):
    model = Linear()
    method = optim.m_sam(optim.sam(RHO), m=8)
    optimiser = make_sgd(LR, MOMENTUM, True, CLIP, DECAY if decay_in == "update" else 0.0)
    state = make_state(model, batches[0][0], method, optimiser)
    start = jax.tree.map(np.asarray, state.params["dense"])

    def make_functions(stats):
        decay = DECAY if decay_in == "loss" else 0.0
        return losses.make_functions(model, stats, weight_decay=decay)

    for images, labels in batches:
        batch = jnp.asarray(images), jnp.asarray(labels)
        inputs = StepInputs(batch, batch, jnp.arange(len(labels)))
        state, _ = train_step(state, inputs, make_functions, method, optimiser)
    return start, jax.tree.map(np.asarray, state)


@pytest.mark.parametrize("decay_in", ["update", "loss"])
def test_home_of_weight_decay(decay_in):
    batches = [random_batch(seed=seed) for seed in range(3)]
    with jax.enable_x64(True):
        start, state = take_steps(decay_in, batches)
    expected = numpy_sam(dict(start), batches, decay_in)
    other = numpy_sam(dict(start), batches, "loss" if decay_in == "update" else "update")
    for name, actual in state.params["dense"].items():
        np.testing.assert_allclose(actual, expected[name], rtol=1e-10, atol=1e-12)
        assert np.abs(actual - other[name]).max() > 1e-3  # the two homes are not the same
    assert state.step == 3 and state.step.dtype == jnp.int32


def dense_statistics(params, images):
    """Mean and variance of the first layer's outputs, which batch norm sees."""
    x = np.asarray(images).reshape(len(images), -1) @ np.asarray(params["first"]["kernel"])
    return x.mean(axis=0), x.var(axis=0)


def clean_gradient(model, params, stats, images, labels):
    def loss_fn(params):
        logits, _ = model.apply(
            {"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return jax.grad(loss_fn)(params), loss_fn


def one_norm_step(method, statistics_from="clean"):
    images, labels = map(jnp.asarray, random_batch())
    model = NormNet()
    optimiser = optax.sgd(0.1)
    state = make_state(model, images, method, optimiser)
    make_functions = functools.partial(losses.make_functions, model)
    inputs = StepInputs((images, labels), (images, labels), jnp.arange(8))
    new, metrics = train_step(state, inputs, make_functions, method, optimiser, statistics_from)
    return model, state, new, metrics, images, labels


def assert_statistics(new, mean, var):
    # running <- 0.9 * running + 0.1 * batch, from mean 0 and variance 1
    np.testing.assert_allclose(new.batch_stats["norm"]["mean"], 0.1 * mean, rtol=1e-9, atol=1e-12)
    # The old statistics are float32, and so is 0.9 times them: 0.9 is off by 2.4e-8.
    np.testing.assert_allclose(new.batch_stats["norm"]["var"], 0.9 + 0.1 * var, rtol=1e-7)


@pytest.mark.parametrize("statistics_from", ["clean", "perturbed"])
def test_running_statistics_and_metrics_of_sam(statistics_from):
    with jax.enable_x64(True):
        method = optim.m_sam(optim.sam(RHO), m=8)
        model, state, new, metrics, images, labels = one_norm_step(method, statistics_from)
        g, loss_fn = clean_gradient(model, state.params, state.batch_stats, images, labels)
        norm = global_norm(g)
        ascended = jax.tree.map(lambda w, x: w + RHO * x / norm, state.params, g)
        points = {"clean": state.params, "perturbed": ascended}
        assert_statistics(new, *dense_statistics(points[statistics_from], images))
        np.testing.assert_allclose(metrics.loss, loss_fn(points[statistics_from]), rtol=1e-10)
        perturbed_gradient = jax.grad(loss_fn)(ascended)
        np.testing.assert_allclose(
            metrics.gradient_norm, global_norm(perturbed_gradient), rtol=1e-9
        )
        other = points["perturbed" if statistics_from == "clean" else "clean"]
        with pytest.raises(AssertionError):
            assert_statistics(new, *dense_statistics(other, images))


@pytest.mark.parametrize("statistics_from", ["clean", "perturbed"])
def test_average_sam_has_only_the_perturbed_pass(statistics_from):
    with jax.enable_x64(True):
        inner = optim.average_sam(RHO, jax.random.key(3))
        method = optim.m_sam(inner, m=8)
        _, state, new, _, images, _ = one_norm_step(method, statistics_from)
        # A "gradient" that is the identity returns the point at which it was taken.
        ascended, _ = inner.update(
            state.params, inner.init(state.params), state.params, grad_fn=lambda w: w
        )
        distance = jax.tree.map(jnp.subtract, ascended, state.params)
        np.testing.assert_allclose(global_norm(distance), RHO, rtol=1e-9)
        assert_statistics(new, *dense_statistics(ascended, images))
        with pytest.raises(AssertionError):
            assert_statistics(new, *dense_statistics(state.params, images))


@pytest.mark.parametrize("strategy", ["scan", "vmap"])
def test_running_statistics_are_averaged_over_sub_batches(strategy):
    with jax.enable_x64(True):
        method = optim.m_sam(optim.sam(RHO), m=4, strategy=strategy)
        _, state, new, _, images, _ = one_norm_step(method)
        means, variances = zip(
            *(dense_statistics(state.params, half) for half in (images[:4], images[4:])),
            strict=True,
        )
        assert_statistics(new, np.mean(means, axis=0), np.mean(variances, axis=0))
        with pytest.raises(AssertionError):  # the variance of the whole batch is another
            assert_statistics(new, *dense_statistics(state.params, images))


def run_on(device_count, m, batch_size=32, steps=3):
    images, labels = random_batch(examples=64)
    model = Linear()
    method = optim.m_sam(optim.sam(RHO), m=m, strategy="scan", axis_name=DEVICES)
    optimiser = make_sgd(LR, MOMENTUM, True, CLIP, DECAY)

    def step(state, inputs, traced):
        del traced
        make_functions = functools.partial(losses.make_functions, model)
        return train_step(state, inputs, make_functions, method, optimiser)

    mesh = Mesh(np.array(jax.devices()[:device_count]), (DEVICES,))
    run_steps = make_run_steps(step, lambda key, images: images, mesh)
    order = jnp.concatenate(
        [epoch_order(jax.random.key(0), e, len(labels), batch_size) for e in range(2)]
    )[:steps]
    order = jnp.concatenate([order[:1], order])
    state = make_state(model, images, method, optimiser)
    state, metrics = run_steps(
        state, jnp.asarray(images), jnp.asarray(labels), order, jax.random.key(5), {}
    )
    return jax.tree.map(np.asarray, (state.params, metrics))


@pytest.mark.devices
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_eight_devices_equal_one_with_m_the_share_of_a_device():
    with jax.enable_x64(True):
        eight, one, other = run_on(8, m=4), run_on(1, m=4), run_on(1, m=32)
        grouped, split = run_on(8, m=8), run_on(1, m=8)
    for a, b in ((eight, one), (grouped, split)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-11), a, b)
    assert eight[1].loss.shape == (3,)
    # One perturbation for the whole batch is another method.
    assert np.abs(eight[0]["dense"]["kernel"] - other[0]["dense"]["kernel"]).max() > 1e-6


@pytest.mark.devices
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_every_device_and_every_step_augments_with_a_key_of_its_own():
    def step(state, inputs, traced):
        images, _ = inputs.batch
        value = images[0, 0, 0, 0]
        mean, square = (jax.lax.pmean(v, DEVICES) for v in (value, value**2))
        spread = square - mean**2
        return state._replace(step=state.step + 1), StepMetrics(
            mean, spread, mean, mean, mean > -9, mean < -9
        )

    mesh = Mesh(np.array(jax.devices()[:8]), (DEVICES,))
    run_steps = make_run_steps(step, lambda key, x: jax.random.normal(key, x.shape), mesh)

    def run(start, steps):
        state = TrainState(jnp.int32(start), {}, {}, {}, {})
        order = jnp.zeros((1 + steps, 8), jnp.int32)
        _, metrics = run_steps(
            state, jnp.zeros((1, 1, 1, 1)), jnp.zeros(1), order, jax.random.key(0), {}
        )
        return metrics

    metrics = run(0, 4)
    assert np.all(metrics.accuracy > 0.01)  # the variance over the devices
    assert len(set(metrics.loss.tolist())) == 4
    # The key follows the step of the state, so a resumed run draws what an uninterrupted one does.
    assert run(2, 2).loss.tolist() == metrics.loss[2:].tolist()


@pytest.mark.devices
def test_a_step_sees_the_batch_before_it_as_it_was_augmented_then():
    def step(state, inputs, traced):
        (images, labels), (previous, before) = inputs.batch, inputs.previous_batch
        values = images[0, 0, 0, 0], previous[0, 0, 0, 0], labels[0] + 10 * before[0]
        return state._replace(step=state.step + 1), StepMetrics(
            *values, jnp.array(0.0), jnp.array(True), jnp.array(False)
        )

    mesh = Mesh(np.array(jax.devices()[:1]), (DEVICES,))
    run_steps = make_run_steps(step, lambda key, x: x + jax.random.normal(key, x.shape), mesh)
    images, labels = 100.0 * jnp.arange(4).reshape(4, 1, 1, 1), jnp.arange(4)
    order = jnp.array([[0], [0], [2], [3], [1]])
    state = TrainState(jnp.int32(0), {}, {}, {}, {})
    _, metrics = run_steps(state, images, labels, order, jax.random.key(0), {})
    assert metrics.gradient_norm.tolist() == [0, 2, 23, 31]
    assert metrics.accuracy.tolist() == [metrics.loss[0].item(), *metrics.loss[:-1].tolist()]


def test_epoch_order():
    first, again, second = (epoch_order(jax.random.key(0), e, 50, 8) for e in (0, 0, 1))
    assert first.shape == (6, 8) and first.dtype == jnp.int32
    assert len(set(first.ravel().tolist())) == 48 and set(first.ravel().tolist()) <= set(range(50))
    assert first.tolist() == again.tolist() != second.tolist()
    assert first.tolist() != epoch_order(jax.random.key(1), 0, 50, 8).tolist()
    # What rests in one epoch is not what rests in every epoch.
    rests = [
        set(range(50)) - set(np.ravel(epoch_order(jax.random.key(0), e, 50, 8)).tolist())
        for e in range(5)
    ]
    assert len(set(map(frozenset, rests))) > 1
