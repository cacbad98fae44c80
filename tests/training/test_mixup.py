"""Mixup against its formula in NumPy, and in whole steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from training_problems import Linear, random_batch, tiny_config

from sam_jax import optim
from sam_jax.runs.randomness import stream
from sam_jax.training import build, losses
from sam_jax.training.mixup import make_mix, mixup
from sam_jax.training.step import DEVICES, StepMetrics, TrainState, epoch_order, make_run_steps


def mixed(seed=0, alpha=1.0, examples=5):
    images, labels = random_batch(examples, seed=seed)
    images = images.astype(np.float32)
    key = jax.random.key(seed)
    return images, labels, *mixup(key, jnp.asarray(images), jnp.asarray(labels), alpha, 3)


def weight_of(images, found):
    """lambda, from one pixel of the first image."""
    first, last = images[0].ravel()[0], images[-1].ravel()[0]
    return (np.ravel(found[0])[0] - last) / (first - last)


def test_pairs_are_opposite_places_of_the_batch_with_one_weight():
    images, labels, found, shares = mixed()
    weight = weight_of(images, found)
    assert 0.5 < weight < 1
    np.testing.assert_allclose(found, weight * images + (1 - weight) * images[::-1], rtol=1e-5)
    one_hot = np.eye(3)[labels]
    np.testing.assert_allclose(shares, weight * one_hot + (1 - weight) * one_hot[::-1], rtol=1e-5)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[2], images[2], rtol=1e-6)  # the middle one with itself
    assert np.abs(found[0] - images[0]).max() > 0.05


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_weight_is_the_larger_part_of_a_beta_draw(alpha):
    def weight(key):
        images = jnp.array([1.0, 0.0]).reshape(2, 1, 1, 1)
        return mixup(key, images, jnp.arange(2), alpha, 2)[0][0, 0, 0, 0]

    drawn = np.asarray(jax.vmap(weight)(jax.random.split(jax.random.key(0), 1000)))

    def distribution(beta):
        return lambda x: np.where(x < 0.5, 0, 1 - 2 * stats.beta.cdf(1 - np.maximum(x, 0.5), *beta))

    # A true distribution is rejected in one of 10,000 seeds; this one is fixed.
    assert stats.kstest(drawn, distribution((alpha, alpha))).pvalue > 1e-4
    other = 3 * alpha
    assert stats.kstest(drawn, distribution((other, other))).pvalue < 1e-4


def steps_of(mix, devices=1, steps=3, start=0):
    """What every step of a run sees: the first image, and a share of its label."""

    def step(state, inputs, traced):
        (images, shares), (previous, _) = inputs.batch, inputs.previous_batch
        values = images[0, 0, 0, 0], shares[0, 0], previous[0, 0, 0, 0]
        return state._replace(step=state.step + 1), StepMetrics(
            *values, jnp.array(0.0), jnp.array(True), jnp.array(False)
        )

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), (DEVICES,))
    run_steps = make_run_steps(step, lambda key, x: x, mesh, mix=mix)
    images = jnp.array([1.0, 0.0]).reshape(2, 1, 1, 1)
    order = jnp.tile(jnp.arange(2), (1 + steps, 1))
    state = TrainState(jnp.int32(start), {}, {}, {}, {})
    return run_steps(state, images, jnp.arange(2), order, jax.random.key(4), {})[1]


def test_every_step_has_a_weight_of_its_own_and_remembers_the_one_before():
    metrics = steps_of(make_mix(1.0, 2, 0, DEVICES))
    assert len(set(metrics.loss.tolist())) == 3
    np.testing.assert_array_equal(metrics.loss, metrics.accuracy)  # images 1 and 0, labels 0 and 1
    np.testing.assert_array_equal(metrics.gradient_norm[1:], metrics.loss[:-1])
    # A resumed run goes on with the same weights.
    resumed = steps_of(make_mix(1.0, 2, 0, DEVICES), steps=1, start=2)
    assert float(resumed.loss[0]) == float(metrics.loss[2])


def test_cutout_comes_after_and_cuts_every_image_at_its_own_place():
    def run(images):
        mix = make_mix(1.0, 2, 4, DEVICES)
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), (DEVICES,))
        spec = jax.sharding.PartitionSpec()
        function = jax.shard_map(
            functools.partial(mix, jax.random.key(0)),
            mesh=mesh,
            in_specs=spec,
            out_specs=spec,
            check_vma=False,
        )
        return np.asarray(function((images, jnp.arange(16) % 2))[0])

    images = jnp.ones((16, 8, 8, 1))
    zeros = run(images)[..., 0] == 0  # the normalised mean
    counts = zeros.sum(axis=(1, 2))
    assert np.all((counts > 0) & (counts <= 16)) and np.all(run(images)[~zeros[..., None]] == 1)
    assert len({mask.tobytes() for mask in zeros}) > 8  # one square an image, not two


def first_step(**changes):
    """The loss of the first step, and all that it was computed from."""
    config = tiny_config(
        data__mixup=1.0,
        epochs=1,
        method__name="none",
        method__m=8 // jax.device_count(),
        optimiser__learning_rate=0.0,
        **changes,
    )
    build.check(config)
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    key = jax.random.key(config.seed)
    rows = epoch_order(stream(key, "order"), 0, 64, 32)[0]
    start = program.init(key)
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    variables = jax.tree.map(jnp.copy, variables)
    _, metrics = program.run_steps(
        start,
        data.train_images,
        data.train_labels,
        jnp.stack([rows, rows]),
        key,
        build.traced_hyperparameters(config),
    )
    return float(metrics.loss[0]), program, variables, key, data, rows


@pytest.mark.skipif(jax.device_count() > 1, reason="the batch by hand is that of one device")
def test_a_program_mixes_what_it_has_augmented():
    """The first step by hand, through the streams of the run."""
    crop = {"data__augmentation": ("crop_zero",)}
    loss, program, variables, key, data, rows = first_step(**crop)
    device_key = jax.random.fold_in(jax.random.fold_in(stream(key, "augmentation"), 0), 0)
    images = program.prepare_images(device_key, data.train_images[rows])
    weight_key = jax.random.split(jax.random.fold_in(stream(key, "mixup"), 0))[0]
    images, shares = mixup(weight_key, images, data.train_labels[rows], 1.0, 10)
    parts = []
    for part in np.arange(32).reshape(4, 8):  # batch norm sees a sub-batch
        logits, _ = program.model.apply(
            variables, images[part], train=True, mutable=["batch_stats"]
        )
        parts.append(-np.mean(np.sum(shares[part] * jax.nn.log_softmax(logits), axis=1)))
    assert loss == pytest.approx(np.mean(parts), rel=1e-5)
    # Cutout, wherever it stands in the list, is left to the end.
    cut = [
        first_step(data__augmentation=names, data__cutout_size=4)[0]
        for names in (("cutout", "crop_zero"), ("crop_zero", "cutout"))
    ]
    assert cut[0] == cut[1] and abs(cut[0] - loss) > 1e-5


@pytest.mark.parametrize("name", ["esam", "saf", "mesa", "previous_batch_sam", "gsam"])
def test_methods_that_read_losses_and_logits_take_shares_of_labels(name):
    images, labels = random_batch(8)
    model = Linear()
    images, shares = mixup(jax.random.key(0), jnp.asarray(images), jnp.asarray(labels), 1.0, 3)
    params = model.init(jax.random.key(0), images)["params"]
    make = {
        "esam": lambda: optim.esam(0.1, key=jax.random.key(0), losses_from=lambda o: o.losses),
        "saf": lambda: optim.saf(
            8, 3, epochs_back=1, start_epoch=0, logits_from=lambda o: o.logits
        ),
        "mesa": lambda: optim.mesa(start=0),
        "previous_batch_sam": lambda: optim.previous_batch_sam(0.1),
        "gsam": lambda: optim.gsam(0.1),
    }[name]
    method = optim.m_sam(make(), 8)
    functions = losses.make_functions(model, {})

    def gradient(labels):
        batch = images, labels
        result, _ = method.gradient(
            functions.grad_fn,
            params,
            method.init(params),
            batch=batch,
            previous_batch=batch,
            indices=jnp.arange(8),
            losses_fn=functions.losses_fn,
            logits_fn=functions.logits_fn,
            rngs=jax.random.key(0),
        )
        return result.gradient["dense"]["kernel"]

    hard = jax.nn.one_hot(labels, 3)
    np.testing.assert_allclose(gradient(hard), gradient(jnp.asarray(labels)), rtol=1e-4, atol=1e-6)
    assert np.abs(gradient(shares) - gradient(hard)).max() > 1e-3


def test_a_negative_alpha_is_refused():
    with pytest.raises(ValueError, match="data.mixup must be .* 0 or more, got -1.0"):
        build.check(tiny_config(data__mixup=-1.0))
