"""Models that draw at random in training, and whose backward pass mixes as it likes."""

import functools
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from training_problems import NormNet, assert_same_bits, random_batch, tiny_config

from sam_jax import models, optim
from sam_jax.training import losses
from sam_jax.training.evaluation import Inputs, make_logits_fn
from sam_jax.training.methods import no_perturbation
from sam_jax.training.recalibration import recalibrated_batch_stats
from sam_jax.training.step import (
    DEVICES,
    StepInputs,
    TrainState,
    make_run_steps,
    train_step,
)
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained

RHO = 0.3
INPUTS = Inputs((0.4,), (0.3,))


class Shaken(nn.Module):
    """Two branches that every example mixes at random, otherwise backwards than forwards."""

    num_classes: int = 3
    dtype: object = jnp.float32
    use_fast_variance: bool = True

    @nn.compact
    def __call__(self, images, train=False, true_gradient=False):
        x = images.reshape(len(images), -1)
        types = {"dtype": x.dtype, "param_dtype": x.dtype}
        x = nn.BatchNorm(not train, name="norm", **types)(x)
        one, other = (jnp.tanh(nn.Dense(4, name=name, **types)(x)) for name in ("one", "other"))
        if train:
            shape = (2, len(x), 1)
            forwards, backwards = jax.random.uniform(self.make_rng("model"), shape, x.dtype)

            def mixed(share):
                return share * one + (1 - share) * other

            h = mixed(forwards)
            if not true_gradient:
                h = mixed(backwards) + jax.lax.stop_gradient(h - mixed(backwards))
        else:
            h = (one + other) / 2
        return nn.Dense(self.num_classes, name="last", **types)(h)


def shaken(examples=8, model=None):
    """Functions of a shaken net in float64, its parameters and a batch."""
    images, labels = (jnp.asarray(x) for x in random_batch(examples))
    model = model or Shaken()
    variables = model.init(jax.random.key(0), images)
    functions = losses.make_functions(model, variables.get("batch_stats", {}))
    return functions, variables["params"], (images, labels)


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_equal_keys_draw_alike_and_others_do_not():
    functions, params, batch = shaken()
    first, again, other = (
        functions.grad_fn(params, batch, rngs=jax.random.key(seed)) for seed in (1, 1, 2)
    )
    assert_same_bits(first, again)
    assert abs(float(first[1].loss - other[1].loss)) > 1e-4
    # The losses and the logits that methods ask for have the draws of the gradient.
    key = jax.random.key(1)
    np.testing.assert_allclose(functions.losses_fn(params, batch, rngs=key), first[1].losses)
    np.testing.assert_allclose(functions.logits_fn(params, batch, rngs=key), first[1].logits)


def test_the_ascent_gradient_is_the_derivative_of_the_loss_and_the_other_is_not():
    with jax.enable_x64(True):
        functions, params, batch = shaken()
        key = jax.random.key(1)
        random = np.random.default_rng(0)
        direction = jax.tree.map(lambda w: jnp.asarray(random.normal(size=w.shape)), params)

        def loss_at(distance):
            moved = jax.tree.map(lambda w, d: w + distance * d, params, direction)
            return float(functions.losses_fn(moved, batch, rngs=key).mean())

        slope = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5
        ascent, ascent_outputs = functions.ascent_grad_fn(params, batch, rngs=key)
        plain, outputs = functions.grad_fn(params, batch, rngs=key)
    assert flat(ascent) @ flat(direction) == pytest.approx(slope, rel=1e-6)
    assert abs(flat(plain) @ flat(direction) - slope) > 1e-2
    # Both run the same network forwards, up to the rounding of this one's way to do it.
    for x, y in zip(*map(jax.tree.leaves, (outputs, ascent_outputs)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)


def test_a_model_without_the_keyword_has_no_ascent_gradient():
    assert shaken(model=NormNet())[0].ascent_grad_fn is None


def test_a_model_without_randomness_is_the_same_with_a_key():
    functions, params, batch = shaken(model=NormNet())
    assert_same_bits(
        jax.jit(functions.grad_fn)(params, batch),
        jax.jit(functions.grad_fn)(params, batch, rngs=jax.random.key(3)),
    )


def step_on(method, functions, params, batch, key):
    method = optim.m_sam(*method)
    state = TrainState(jnp.int32(0), params, {}, method.init(params), optax.sgd(1.0).init(params))
    inputs = StepInputs(batch, batch, jnp.arange(8), key)
    new, metrics = train_step(state, inputs, lambda _: functions, method, optax.sgd(1.0))
    return jax.tree.map(jnp.subtract, params, new.params), metrics


def by_hand(functions, params, batch, keys, ascends):
    """The mean over sub-batches of SAM's gradient, each with its key; plain where none ascends."""
    images, labels = batch
    gradients = []
    for part, key in zip(np.arange(8).reshape(len(keys), -1), keys, strict=True):
        sub_batch, point = (images[part], labels[part]), params
        if ascends:
            g, _ = ascends(params, sub_batch, rngs=key)
            point = jax.tree.map(lambda w, x, g=g: w + RHO * x / np.linalg.norm(flat(g)), params, g)
        gradients.append(functions.grad_fn(point, sub_batch, rngs=key)[0])
    return np.mean([flat(g) for g in gradients], axis=0)


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
@pytest.mark.parametrize("m", [8, 4, 2])
def test_a_step_by_hand(m, strategy):
    """Both passes of a sub-batch draw alike, sub-batches differ, and epsilon is the true one's."""
    with jax.enable_x64(True):
        functions, params, batch = shaken()
        key = jax.random.key(5)
        keys = [jax.random.fold_in(key, i) for i in range(8 // m)]
        step = jax.jit(
            lambda params: step_on((optim.sam(RHO), m, strategy), functions, params, batch, key)
        )
        gradient = flat(step(params)[0])
        wanted = by_hand(functions, params, batch, keys, functions.ascent_grad_fn)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-9, atol=1e-12)
        unlike = [by_hand(functions, params, batch, keys, functions.grad_fn)]
        if m < 8:  # one draw for all sub-batches
            unlike.append(
                by_hand(functions, params, batch, keys[:1] * (8 // m), functions.ascent_grad_fn)
            )
        for other in unlike:
            assert np.abs(gradient - other).max() > 1e-4


@pytest.mark.parametrize("name", ["none", "average_sam"])
def test_methods_without_an_ascent_descend_along_the_ordinary_gradient(name):
    with jax.enable_x64(True):
        functions, params, batch = shaken()
        key = jax.random.key(5)
        method = {
            "none": no_perturbation,
            "average_sam": lambda: optim.average_sam(0.0, jax.random.key(0)),
        }[name]()
        gradient = flat(step_on((method, 8), functions, params, batch, key)[0])
        keys = [jax.random.fold_in(key, 0)]
        wanted = by_hand(functions, params, batch, keys, None)
        np.testing.assert_allclose(gradient, wanted, rtol=1e-9, atol=1e-12)
        true = functions.ascent_grad_fn(params, batch, rngs=keys[0])[0]
        assert np.abs(gradient - flat(true)).max() > 1e-3


def run_on(devices, m, steps=3, start=0):
    """Losses of steps that change nothing, all on the same batch."""
    images, labels = random_batch(16)
    model = Shaken()
    variables = model.init(jax.random.key(0), jnp.asarray(images))
    method = optim.m_sam(optim.sam(RHO), m, "scan", axis_name=DEVICES)
    optimiser = optax.sgd(0.0)

    def step(state, inputs, traced):
        make_functions = functools.partial(losses.make_functions, model)
        return train_step(state, inputs, make_functions, method, optimiser)

    run_steps = make_run_steps(
        step, lambda key, x: x, Mesh(np.array(jax.devices()[:devices]), (DEVICES,))
    )
    params = variables["params"]
    state = TrainState(
        jnp.int32(start),
        params,
        jax.tree.map(lambda s: s.astype(images.dtype), variables["batch_stats"]),
        method.init(params),
        optimiser.init(params),
    )
    order = jnp.tile(jnp.arange(16), (1 + steps, 1))
    _, metrics = run_steps(
        state, jnp.asarray(images), jnp.asarray(labels), order, jax.random.key(2), {}
    )
    return jax.tree.map(np.asarray, metrics)


def test_every_step_draws_anew_and_a_resumed_run_draws_as_an_uninterrupted_one():
    with jax.enable_x64(True):
        metrics = run_on(1, 16)
        assert len(set(metrics.loss.tolist())) == 3
        resumed = run_on(1, 16, steps=1, start=2)
    assert resumed.loss[0] == metrics.loss[2]
    assert resumed.gradient_norm[0] == metrics.gradient_norm[2]


@pytest.mark.devices
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_draws_do_not_depend_on_the_number_of_devices():
    with jax.enable_x64(True):
        eight, one = run_on(8, 2), run_on(1, 2)
        # A sub-batch of four lies on two devices, whose examples draw differently.
        spread = run_on(8, 4)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), eight, one)
    assert abs(spread.loss[0] - one.loss[0]) > 1e-6


def test_evaluation_has_no_randomness_and_statistics_have_fixed_keys():
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 256, (22, 2, 2, 1)), jnp.uint8)
    model = Shaken()
    variables = model.init(jax.random.key(0), INPUTS(images))
    params, stats = variables["params"], variables["batch_stats"]
    running = make_logits_fn(model, INPUTS)(params, stats, images)
    by_hand = model.apply(variables, INPUTS(images))
    np.testing.assert_array_equal(running, by_hand)
    batch = [make_logits_fn(model, INPUTS, "batch")(params, stats, images) for _ in range(2)]
    np.testing.assert_array_equal(*batch)
    found = [
        recalibrated_batch_stats(model, params, stats, images, INPUTS, batch_size=8)
        for _ in range(2)
    ]
    assert_same_bits(*found)
    x = np.asarray(INPUTS(images)).reshape(22, -1)
    wanted = sum(len(part) * part.mean(axis=0) for part in (x[:8], x[8:16], x[16:])) / 22
    np.testing.assert_allclose(found[0]["norm"]["mean"], wanted, rtol=1e-5)


@pytest.mark.e2e
@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_a_run_with_randomness_that_was_cut_equals_an_uninterrupted_one(
    tmp_path, monkeypatch, strategy
):
    monkeypatch.setitem(models.MODELS, "shaken", Shaken)
    config = tiny_config(
        epochs=3,
        checkpoint__every_epochs=1,
        checkpoint__keep=9,
        method__m=8,
        method__strategy=strategy,
    )
    with config.unlocked():
        config.model = {"name": "shaken", "dtype": "float32", "use_fast_variance": True}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    record = train_and_evaluate(config, whole)
    state = load_trained(whole)[1].state
    shutil.copytree(whole, cut)
    for epoch in (2, 3):
        shutil.rmtree(cut / "checkpoints" / str(epoch))
    assert str(train_and_evaluate(config, cut)) == str(record)
    assert_same_bits(load_trained(cut)[1].state, state)
    with config.unlocked():
        config.seed = 1
    train_and_evaluate(config, tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same_bits(load_trained(tmp_path / "other")[1].state, state)
