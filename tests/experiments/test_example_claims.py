"""What the examples say of BatchNorm, accumulation, precision, devices and migration is so."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import sam_jax
from experiments.examples import (
    digits,
    equinox_model,
    flax_batchnorm,
    flax_nnx,
    gradient_accumulation,
    loss_scaling,
    migration,
    mixed_precision,
    plain_pytree,
)
from sam_jax import pytree

# ---------------------------------------------------------------------------- BatchNorm, dropout


@pytest.fixture(scope="module")
def batch():
    return next(digits.batches(digits.load()[0], epochs=1))


def perturbed(params, gradients, rho):
    return pytree.add(params, pytree.normalise(gradients), rho)


def mean_after_convolution(kernel, images, first=1):
    """The batch mean of each channel as a sum over shifts, for a kernel [3, 3, 1, channels].

    With stride 2 Flax's "SAME" pads one pixel at the end, so that its first row is the image's own
    (1), PyTorch's padding=1 also one at the start (0).
    """
    padded = np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)))
    total = 0.0
    for i in range(3):
        for j in range(3):
            rows, columns = slice(first + i, first + i + 7, 2), slice(first + j, first + j + 7, 2)
            shifted = padded[:, rows, columns]
            total = total + shifted.mean() * np.asarray(kernel)[i, j, 0]
    return total


@pytest.mark.parametrize("way", [0, 1], ids=["pure function", "chain"])
def test_linen_statistics_are_those_of_the_clean_pass_once(batch, way):
    step = (flax_batchnorm.step_with_pure_function, flax_batchnorm.step_with_chain)[way]
    state = flax_batchnorm.create_states()[way]
    new = step(state, batch)
    gradients, _ = flax_batchnorm.gradient_and_statistics(state.params, state, batch)
    kernel = state.params["Conv_0"]["kernel"]
    expected = 0.1 * mean_after_convolution(kernel, batch["image"])  # from zero, once
    found = new.batch_stats["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(found, expected, atol=1e-6)  # float32 sums of values about one
    moved = perturbed(state.params, gradients, 0.1)["Conv_0"]["kernel"]
    assert np.max(np.abs(0.1 * mean_after_convolution(moved, batch["image"]) - expected)) > 1e-4


def nnx_model():
    model = flax_nnx.Net(nnx.Rngs(0))
    return model, nnx.split(model, nnx.Param, ...)


def check_nnx(model, kernel, images):
    expected = 0.1 * mean_after_convolution(kernel, images)
    np.testing.assert_allclose(model.norm.mean[...], expected, atol=1e-6)
    assert int(model.dropout.rngs.count[...]) == 1  # one mask was drawn, not two


def test_nnx_statistics_and_streams_advance_once(batch):
    _, (graph, params, rest) = nnx_model()
    model, _ = nnx_model()  # another one, for a step in place changes what it was split into
    kernel = np.array(model.conv.kernel[...])
    assert int(model.dropout.rngs.count[...]) == 0
    states = flax_nnx.method.init(params), flax_nnx.optimiser.init(params)
    new_params, new_rest, _ = flax_nnx.step(graph, params, rest, states, batch)
    check_nnx(nnx.merge(graph, new_params, new_rest), kernel, batch["image"])

    tx = optax.chain(flax_nnx.method, flax_nnx.optimiser)
    flax_nnx.step_in_place(model, nnx.Optimizer(model, tx, wrt=nnx.Param), batch)
    check_nnx(model, kernel, batch["image"])
    # Compiled apart, the same step is the same to float32 rounding.
    assert digits.distance(nnx.state(model, nnx.Param), new_params) < 1e-5
    assert digits.distance(new_params, params) > 1e-3


def test_nnx_passes_drop_the_same(batch):
    _, (graph, params, rest) = nnx_model()
    gradient = jax.jit(
        lambda rest: flax_nnx.gradient_and_rest(params, graph=graph, rest=rest, batch=batch)
    )
    first, new_rest = gradient(rest)
    again, _ = gradient(rest)
    later, _ = gradient(new_rest)
    assert digits.largest_difference(first, again) == 0
    assert digits.largest_difference(first, later) > 1e-4


def test_equinox_statistics_are_those_of_the_clean_pass(batch):
    model, statistics, states = equinox_model.create()
    key = jax.random.key(3)
    new, after, _ = equinox_model.step(model, statistics, states, batch, key)
    kernel = jnp.transpose(model.conv.weight, (2, 3, 1, 0))
    expected = mean_after_convolution(kernel, batch["image"], first=0)
    mean, _ = after.get(model.norm.batch_state_index)
    before, _ = statistics.get(model.norm.batch_state_index)
    np.testing.assert_allclose(mean, 0.9 * before + 0.1 * expected, atol=1e-6)
    assert new.activation is model.activation
    assert digits.distance(new.conv.weight, model.conv.weight) > 1e-3


def halves(batch):
    """The two halves of a batch of 64: two sub-batches of the m = 32 that the examples take."""
    batch = jax.tree.map(lambda x: x[:64], batch)
    return batch, [jax.tree.map(lambda x, i=i: x[i : i + 32], batch) for i in (0, 32)]


def test_linen_sub_batches_average_their_statistics_and_drop_their_own(batch):
    batch, parts = halves(batch)
    state, key = flax_batchnorm.create_states()[0], jax.random.key(3)
    new = flax_batchnorm.step_with_sub_batches(state, batch, key)
    kernel = state.params["Conv_0"]["kernel"]
    mean = new.batch_stats["BatchNorm_0"]["mean"]
    expected = 0.1 * mean_after_convolution(kernel, batch["image"])  # of halves, of the same size
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    variance = new.batch_stats["BatchNorm_0"]["var"]
    apart = [
        flax_batchnorm.step_with_pure_function(state, part).batch_stats["BatchNorm_0"]["var"]
        for part in parts
    ]
    np.testing.assert_allclose(variance, sum(apart) / 2, atol=1e-6)
    # The same half twice would drop the same units without keys of its own.
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), parts[0])
    one = flax_batchnorm.step_with_sub_batches(state, parts[0], key)
    two = flax_batchnorm.step_with_sub_batches(state, twice, key)
    again = flax_batchnorm.step_with_sub_batches(state, twice, key)
    assert digits.distance(two.params, one.params) > 1e-4
    assert digits.largest_difference(two.params, again.params) == 0


def test_nnx_sub_batches_drop_their_own_and_count_once(batch):
    batch, parts = halves(batch)
    model, _ = nnx_model()
    kernel = np.array(model.conv.kernel[...])
    graph, params, keys, rest = nnx.split(model, nnx.Param, nnx.RngKey, ...)
    states = flax_nnx.method.init(params), flax_nnx.optimiser.init(params)

    def step(batch):
        return flax_nnx.step_with_sub_batches(graph, params, keys, rest, states, batch)

    new_params, new_rest, _ = step(batch)
    check_nnx(nnx.merge(graph, new_params, keys, new_rest), kernel, batch["image"])
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), parts[0])
    assert digits.distance(step(twice)[0], step(parts[0])[0]) > 1e-4
    assert digits.largest_difference(step(twice)[0], step(twice)[0]) == 0


def test_equinox_sub_batches_average_their_statistics_and_drop_their_own(batch):
    batch, parts = halves(batch)
    model, statistics, states = equinox_model.create()
    key = jax.random.key(3)

    def step(batch):
        return equinox_model.step(model, statistics, states, batch, key, True)

    new, after, _ = step(batch)
    kernel = jnp.transpose(model.conv.weight, (2, 3, 1, 0))
    expected = mean_after_convolution(kernel, batch["image"], first=0)
    mean, _ = after.get(model.norm.batch_state_index)
    before, _ = statistics.get(model.norm.batch_state_index)
    np.testing.assert_allclose(mean, 0.9 * before + 0.1 * expected, atol=1e-6)
    dtypes = [[x.dtype for x in jax.tree.leaves(tree)] for tree in (statistics, after)]
    assert dtypes[0] == dtypes[1]
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), parts[0])
    assert digits.distance(step(twice)[0].conv.weight, step(parts[0])[0].conv.weight) > 1e-6
    assert digits.distance(new.conv.weight, model.conv.weight) > 1e-3


# ---------------------------------------------------------------------------- accumulation


def test_scan_needs_less_memory_than_vmap(batch):
    params = digits.init_mlp(jax.random.key(0), hidden=256)

    def memory(strategy):
        method = sam_jax.m_sam(gradient_accumulation.sam, m=16, strategy=strategy)
        grad_fn = gradient_accumulation.grad_fn

        @jax.jit
        def update(params):
            state = method.init(params)
            return method.update(params, state, params, grad_fn=grad_fn, batch=batch)

        return update.lower(params).compile().memory_analysis().temp_size_in_bytes

    assert memory("scan") < 0.7 * memory("vmap")


def test_multi_steps_around_the_chain_descends_along_the_last_micro_batch():
    module = gradient_accumulation
    big = next(digits.batches(digits.load()[0], epochs=1, batch_size=module.BATCH_SIZE))
    params = digits.init_mlp(jax.random.key(0))
    outside = optax.MultiSteps(optax.chain(module.sam, optax.sgd(1.0)), module.K)
    last = jax.tree.map(lambda x: x[-module.M :], big)
    point = perturbed(params, module.grad_fn(params, big), 0.1)
    found = module.multi_steps(outside, params, big)
    assert digits.distance(found, module.grad_fn(point, last)) < 1e-5  # float32
    assert digits.distance(found, module.sam_gradient(params, big)) > 0.05


# ---------------------------------------------------------------------------- precision


def test_what_is_float32_in_mixed_precision(batch):
    params = digits.init_mlp(jax.random.key(0))
    state = mixed_precision.tx.init(params)
    jaxpr = str(
        jax.make_jaxpr(mixed_precision.step, static_argnums=3)(params, state, batch, "bfloat16")
    )
    assert "bf16[128,64]" in jaxpr  # the hidden layer
    new = mixed_precision.step(params, state, batch, "bfloat16")
    floating = [x.dtype for x in jax.tree.leaves(new) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert len(floating) == 8 and set(floating) == {jnp.dtype("float32")}  # weights, momentum


def test_an_overflow_of_the_second_pass_alone_is_skipped():
    params = jnp.ones(3)

    def grad_fn(params):
        return jnp.full(3, jnp.inf)

    def update(tx):
        return tx.update(jnp.ones(3), tx.init(params), params, grad_fn=grad_fn)[0]

    assert not np.any(update(loss_scaling.tx))
    around = optax.apply_if_finite(optax.chain(loss_scaling.sam, optax.sgd(0.1)), 10)
    assert not np.any(np.isfinite(update(around)))


# ---------------------------------------------------------------------------- devices


@pytest.mark.devices
@pytest.mark.parametrize("m", [None, 32])
def test_plain_jit_with_a_sharded_batch_gives_the_numbers_of_one_device(batch, m):
    mesh = Mesh(jax.devices()[:2], ("devices",))
    sharded = jax.device_put(batch, NamedSharding(mesh, P("devices")))
    params = digits.init_mlp(jax.random.key(0))
    method = sam_jax.sam(0.1) if m is None else sam_jax.m_sam(sam_jax.sam(0.1), m=m)

    @jax.jit
    def gradient(batch):
        def grad_fn(params, batch=batch):
            return jax.grad(digits.mlp_loss)(params, batch)

        return method.update(
            grad_fn(params), method.init(params), params, grad_fn=grad_fn, batch=batch
        )[0]

    assert digits.distance(gradient(sharded), gradient(batch)) < 1e-5


# ---------------------------------------------------------------------------- migration


def softmax_gradient(params, images, labels, classes=10):
    """The gradient of the mean cross-entropy of a linear classifier, in NumPy."""
    logits = images @ params["kernel"] + params.get("bias", 0)
    logits = logits - logits.max(1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    residual = (probabilities - np.eye(classes)[labels]) / len(labels)
    gradient = {"kernel": images.T @ residual, "bias": residual.sum(0)}
    return {name: gradient[name] for name in params}


def two_closures(params, images, labels, rho, adaptive, steps):
    """first_step and second_step over torch's SGD(lr=0.1, momentum=0.9, weight_decay=0.01)."""
    buffers = {name: np.zeros_like(w) for name, w in params.items()}
    for _ in range(steps):
        gradient = softmax_gradient(params, images, labels)
        t = {name: np.abs(w) if adaptive else np.ones_like(w) for name, w in params.items()}
        norm = np.sqrt(sum(np.sum((t[name] * g) ** 2) for name, g in gradient.items()))
        climbed = {
            name: w + t[name] ** 2 * gradient[name] * rho / (norm + 1e-12)
            for name, w in params.items()
        }
        gradient = softmax_gradient(climbed, images, labels)
        for name, w in params.items():
            buffers[name] = 0.9 * buffers[name] + gradient[name] + 0.01 * w
        params = {name: w - 0.1 * buffers[name] for name, w in params.items()}
    return params


@pytest.mark.parametrize("adaptive", [False, True])
def test_two_closures_of_pytorch(adaptive):
    train, _ = digits.load()
    images = train["image"][:100].reshape(100, 64).astype(np.float64)
    labels = train["label"][:100]
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(64, 10)) / 8}
    if not adaptive:  # asam does not rescale biases, the two closures do
        params["bias"] = rng.normal(size=10)
    method = sam_jax.asam(2.0, eta=0.0) if adaptive else sam_jax.sam(0.5)
    tx = optax.chain(method, optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))

    def loss_fn(params):
        logits = images @ params["kernel"] + params.get("bias", jnp.zeros(10))[None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses)

    with jax.enable_x64(True):
        found = jax.tree.map(jnp.asarray, params)
        state = tx.init(found)
        step = jax.jit(
            lambda w, s: tx.update(jax.grad(loss_fn)(w), s, w, grad_fn=jax.grad(loss_fn))
        )
        for _ in range(5):
            updates, state = step(found, state)
            found = optax.apply_updates(found, updates)
    expected = two_closures(params, images, labels, 2.0 if adaptive else 0.5, adaptive, 5)
    without = two_closures(params, images, labels, 0.0, adaptive, 5)
    for name in params:
        # The 1e-12 that is added to a norm of about 0.1 to 10, and float64 rounding.
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-9)
        assert np.max(np.abs(without[name] - expected[name])) > 1e-3


def test_the_state_of_the_optimiser_moves_over(batch):
    params = migration.train(migration.new, [batch])
    old, new = migration.old.init(params), migration.new.init(params)
    assert jax.tree.structure(old.opt_state) == jax.tree.structure(new[1])


def test_optax_without_normalise_is_unnormalised_sam(batch):
    optimiser = optax.sgd(0.1)
    old = optax.contrib.sam(optimiser, optax.sgd(0.2), opaque_mode=True)
    params = migration.train(optax.chain(sam_jax.usam(0.2), optimiser), [batch] * 3)
    assert digits.distance(params, migration.train(old, [batch] * 3)) < 1e-5
    assert digits.distance(params, migration.train(migration.new, [batch] * 3)) > 1e-3


def test_the_schedule_of_rho_in_the_plain_example_counts_steps(batch):
    _, state = plain_pytree.train([batch] * 3)
    assert int(state[0].count) == 3
