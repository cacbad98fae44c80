"""Recalibrated batch norm statistics against NumPy over all batches, and against long training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_problems import Linear

from sam_jax import models
from sam_jax.training.evaluation import Inputs
from sam_jax.training.program import full_precision
from sam_jax.training.recalibration import recalibrated_batch_stats

INPUTS = Inputs(mean=(0.4,), std=(0.25,))
EXAMPLES = 22


class TwoNorms(nn.Module):
    """Dense, norm, tanh, dense, norm, with momenta of their own; the second inside a module."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1)
        x = nn.Dense(5, name="first", param_dtype=x.dtype)(x)
        x = nn.BatchNorm(not train, momentum=0.9, name="norm1", param_dtype=x.dtype)(x)
        return Head(name="head")(jnp.tanh(x), train)


class Head(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(3, name="second", param_dtype=x.dtype)(x)
        return nn.BatchNorm(not train, momentum=0.3, name="norm2", param_dtype=x.dtype)(x)


class SlowNorms(TwoNorms):
    """TwoNorms with a momentum of 0.998 in both layers."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1)
        x = nn.Dense(5, name="first")(x)
        x = nn.BatchNorm(not train, momentum=0.998, name="norm1")(x)
        return SlowHead(name="head")(jnp.tanh(x), train)


class SlowHead(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(3, name="second")(x)
        return nn.BatchNorm(not train, momentum=0.998, name="norm2")(x)


class Wrong(nn.Module):
    """A net whose running statistics are not those of plain batch norm."""

    kind: str

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1)
        if self.kind == "frozen":
            return nn.BatchNorm(not train, momentum=1.0)(x)
        if self.kind == "shared":
            norm = nn.BatchNorm(not train)
            return norm(norm(x))
        total = self.variable("batch_stats", "total", lambda: jnp.zeros(()))
        total.value = total.value + jnp.sum(x)
        return x


def images_of(examples=EXAMPLES, shape=(2, 2, 1), seed=0):
    random = np.random.default_rng(seed)
    # Brighter from image to image, so that batches differ.
    levels = np.linspace(0, 128, examples).reshape(-1, 1, 1, 1)
    return jnp.asarray(levels + random.integers(0, 128, (examples, *shape)), jnp.uint8)


def initialise(model, images, seed=1):
    return model.init(jax.random.key(seed), INPUTS(images[:2]), train=False)


def randomised(params, seed=2):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda w: jnp.asarray(random.normal(size=w.shape), w.dtype), params)


def numpy_statistics(params, images, weights_of_batches):
    """Weighted means over batches of the batch means and variances of `TwoNorms`."""
    p = jax.tree.map(np.asarray, params)
    totals, weight_sum = {}, 0.0
    for batch, weight in weights_of_batches:
        x = (np.asarray(images, np.float64)[batch] / 255 - INPUTS.mean[0]) / INPUTS.std[0]
        x = x.reshape(len(x), -1) @ p["first"]["kernel"] + p["first"]["bias"][None]
        one = x.mean(0), ((x - x.mean(0)) ** 2).mean(0)
        x = (x - one[0]) / np.sqrt(one[1] + 1e-5) * p["norm1"]["scale"] + p["norm1"]["bias"]
        x = np.tanh(x) @ p["head"]["second"]["kernel"] + p["head"]["second"]["bias"]
        two = x.mean(0), ((x - x.mean(0)) ** 2).mean(0)
        for name, s in zip(("mean1", "var1", "mean2", "var2"), (*one, *two), strict=True):
            totals[name] = totals.get(name, 0) + weight * s
        weight_sum += weight
    t = {name: total / weight_sum for name, total in totals.items()}
    return {
        "norm1": {"mean": t["mean1"], "var": t["var1"]},
        "head": {"norm2": {"mean": t["mean2"], "var": t["var2"]}},
    }


@pytest.mark.parametrize("measured", [True, False])
def test_the_variance_of_a_measured_model_survives_a_large_mean(measured):
    # A convolution that passes its input on, whose mean is 1000 standard deviations.
    model = models.create("small_conv_net", 3, features=(1,), strides=(1,))
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
    params = variables["params"] | {"conv0": {"kernel": kernel}}
    images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1)).astype(np.uint8)
    inputs = Inputs(mean=(0.5 - 1000 * float(np.std(images / 255)),), std=(1.0,))
    x = np.asarray(inputs(jnp.asarray(images)), np.float64).reshape(4, -1)
    assert 900 < x.mean() / x.std() < 1100
    found = recalibrated_batch_stats(
        full_precision(model) if measured else model,
        params,
        variables["batch_stats"],
        jnp.asarray(images),
        inputs,
        16,
    )["norm0"]["var"]
    error = abs(float(found[0]) / x.var(axis=1).mean() - 1)
    assert error < 1e-4 if measured else error > 0.01


def differences(a, b):
    return jax.tree.leaves(jax.tree.map(lambda x, y: float(np.max(np.abs(x - y))), a, b))


def batches_of(size, examples=EXAMPLES):
    parts = [slice(i, min(i + size, examples)) for i in range(0, examples, size)]
    return [(part, part.stop - part.start) for part in parts]


@pytest.mark.parametrize("size", [11, 8, 5, 22, 1000])
def test_statistics_equal_numpy_over_all_batches(size):
    # Sizes that divide the set, that leave 6 or 2 over, and the whole set at once.
    with jax.enable_x64(True):
        images, model = images_of(), TwoNorms()
        variables = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1), jnp.float64))
        params = randomised(variables["params"])
        template = jax.tree.map(  # not read
            lambda s: jnp.full(s.shape, jnp.nan, jnp.float64), variables["batch_stats"]
        )

        def inputs(images):
            return (images / jnp.float64(255) - INPUTS.mean[0]) / INPUTS.std[0]

        result = recalibrated_batch_stats(model, params, template, images, inputs, size)
        assert jax.tree.structure(result) == jax.tree.structure(template)
        wanted = numpy_statistics(params, images, batches_of(size))
        # The layers' own dtype is float64; Flax takes E[x^2] - E[x]^2, of numbers up to 10.
        assert max(differences(result, wanted)) < 1e-12
        # Negative controls: a last small batch that counts as much as the others, or not at all.
        if EXAMPLES % size and size < EXAMPLES:
            equal = [(part, 1) for part, _ in batches_of(size)]
            for wrong in (equal, batches_of(size)[:-1]):
                assert min(differences(result, numpy_statistics(params, images, wrong))) > 1e-3


def test_statistics_are_those_of_long_training_on_fixed_parameters():
    images, model = images_of(24), TwoNorms()
    variables = initialise(model, images)
    params = randomised(variables["params"])
    result = recalibrated_batch_stats(
        model, params, variables["batch_stats"], images, INPUTS, batch_size=8
    )
    batches = INPUTS(images).reshape(3, 8, 2, 2, 1)

    def one(stats, batch):
        _, mutated = SlowNorms().apply(
            {"params": params, "batch_stats": stats}, batch, train=True, mutable=["batch_stats"]
        )
        return mutated["batch_stats"], None

    def epoch(stats, _):
        return jax.lax.scan(one, stats, batches)[0], None

    trained, _ = jax.jit(lambda s: jax.lax.scan(epoch, s, length=2000))(variables["batch_stats"])
    # Momentum 0.998 forgets the start (0.998^6000 = 6e-6) and weights the batches of an epoch
    # within 0.002 of 1/3 each; statistics are below 20 and differ by less between batches.
    assert max(differences(result, trained)) < 0.02
    assert min(differences(result, variables["batch_stats"])) > 0.1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_model_of_the_project(dtype):
    model = models.create("small_conv_net", 3, features=(4, 8), strides=(1, 2), dtype=dtype)
    images = images_of(16, (8, 8, 1))
    variables = initialise(model, images)
    params, stats = variables["params"], variables["batch_stats"]
    result = recalibrated_batch_stats(model, params, stats, images, INPUTS, batch_size=16)
    assert {s.dtype for s in jax.tree.leaves(result)} == {jnp.dtype("float32")}

    @jax.jit
    def momentum_updates(stats):
        def one(_, stats):
            variables = {"params": params, "batch_stats": stats}
            _, new = model.apply(variables, INPUTS(images), train=True, mutable=["batch_stats"])
            return new["batch_stats"]

        return jax.lax.fori_loop(0, 200, one, stats)

    # 0.9^200 = 7e-10 of the start is left; each update rounds once, and the errors settle at
    # 1 / (1 - 0.9) roundings.
    wanted = momentum_updates(stats)
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    # With these statistics the evaluation pass is the training pass on the one batch.
    train, _ = model.apply(variables, INPUTS(images), train=True, mutable=["batch_stats"])
    evaluated = model.apply({"params": params, "batch_stats": result}, INPUTS(images), train=False)
    tolerance = 1e-4 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(train, evaluated, atol=tolerance)
    stale = model.apply(variables, INPUTS(images), train=False)
    assert float(jnp.max(jnp.abs(train - stale))) > 2 * tolerance


def test_parameters_along_a_line_in_one_program():
    images, model = images_of(), TwoNorms()
    variables = initialise(model, images)
    ends = [randomised(variables["params"], seed) for seed in (3, 4)]

    def at(t):
        params = jax.tree.map(lambda a, b: (1 - t) * a + t * b, *ends)
        return recalibrated_batch_stats(
            model, params, variables["batch_stats"], images, INPUTS, batch_size=8
        )

    along = jax.jit(jax.vmap(at))(jnp.array([0.0, 0.5, 1.0]))
    for i, t in enumerate((0.0, 0.5, 1.0)):
        one = jax.tree.map(lambda s, i=i: s[i], along)
        assert max(differences(one, at(t))) < 1e-4


def test_a_model_without_batch_norm_has_nothing_to_recalibrate():
    images, model = images_of(), Linear()
    params = initialise(model, images)["params"]
    assert recalibrated_batch_stats(model, params, {}, images, INPUTS, batch_size=8) == {}


@pytest.mark.parametrize("kind", ["frozen", "shared", "total"])
def test_other_running_statistics_are_refused(kind):
    images, model = images_of(), Wrong(kind)
    variables = initialise(model, images)
    with pytest.raises(ValueError, match="running statistic .*runs once in a pass"):
        recalibrated_batch_stats(
            model, variables.get("params", {}), variables["batch_stats"], images, INPUTS, 8
        )


def test_no_images_and_no_batch_size_are_refused():
    images, model = images_of(), TwoNorms()
    variables = initialise(model, images)
    params, stats = variables["params"], variables["batch_stats"]
    for given, size in ((images[:0], 8), (images, 0)):
        with pytest.raises(ValueError, match="needs images and a positive batch_size"):
            recalibrated_batch_stats(model, params, stats, given, INPUTS, size)
