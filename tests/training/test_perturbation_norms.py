"""The norm of the perturbation that every step reports, by closed forms and in every form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_problems import (
    Linear,
    global_norm,
    random_batch,
    run_two_steps,
    softmax_gradient,
    tiny_config,
)

from sam_jax import optim
from sam_jax.runs.randomness import stream
from sam_jax.training import build, losses, methods
from sam_jax.training.program import compile_program
from sam_jax.training.step import StepInputs, TrainState, epoch_order, train_step

RHO = 0.05
# A point is rounded to float32 before epsilon is taken back out of it: numbers near 1 lose 6e-8,
# which is 1e-5 of an epsilon of some hundred weights with the norm 0.05.
ROUNDING = 2e-5
eight_devices = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")


def linear_step(method, seed=0):
    """One step of softmax regression; also its parameters, images and labels."""
    model, (images, labels) = Linear(), random_batch(seed=seed)
    images = jnp.float32(images)
    params = model.init(jax.random.key(seed), images)["params"]
    optimiser = optax.sgd(0.1)
    state = TrainState(jnp.int32(0), params, {}, method.init(params), optimiser.init(params))
    batch = images, jnp.asarray(labels)
    inputs = StepInputs(batch, batch, jnp.arange(len(labels)))
    _, metrics = train_step(
        state, inputs, lambda stats: losses.make_functions(model, stats), method, optimiser
    )
    return metrics, jax.tree.map(np.float64, params["dense"]), np.float64(images), labels


def of_batch(method):
    return optim.m_sam(method, 8)


def test_it_is_rho_for_sam():
    metrics, *_ = linear_step(of_batch(optim.sam(RHO)))
    assert abs(metrics.perturbation_norm - RHO) < ROUNDING * RHO
    assert metrics.perturbation_norm.dtype == jnp.float32
    other, *_ = linear_step(of_batch(optim.sam(2 * RHO)))
    assert abs(other.perturbation_norm - 2 * RHO) < ROUNDING * RHO


def test_it_is_rho_times_the_norm_of_the_gradient_for_usam():
    metrics, *where = linear_step(of_batch(optim.usam(RHO)))
    wanted = RHO * global_norm(softmax_gradient(*where))
    assert abs(metrics.perturbation_norm - wanted) < ROUNDING * wanted
    assert abs(wanted - RHO) > 0.1 * RHO  # sam's would be another


def test_it_is_that_of_the_ellipsoid_for_asam():
    """epsilon = rho T^2 g / ||T g|| with T = |w| + eta, for biases 1."""
    eta = 0.01
    metrics, params, images, labels = linear_step(of_batch(optim.asam(RHO, eta)))
    gradient = softmax_gradient(params, images, labels)
    scales = {"kernel": np.abs(params["kernel"]) + eta, "bias": np.ones(3)}
    scaled = global_norm({k: scales[k] * gradient[k] for k in params})
    wanted = RHO * global_norm({k: scales[k] ** 2 * gradient[k] for k in params}) / scaled
    assert abs(metrics.perturbation_norm - wanted) < ROUNDING * RHO
    assert abs(wanted - RHO) > 0.1 * RHO


def test_it_is_zero_without_a_perturbation():
    metrics, *_ = linear_step(of_batch(methods.no_perturbation()))
    assert metrics.perturbation_norm == 0
    late, *_ = linear_step(of_batch(optim.between(optim.sam(RHO), 1, 2)))
    assert late.perturbation_norm == 0  # the first step is before the part with SAM
    now, *_ = linear_step(of_batch(optim.between(optim.sam(RHO), 0, 1)))
    assert now.perturbation_norm > 0


@pytest.mark.parametrize("strategy", ["scan", "vmap"])
def test_it_is_the_mean_over_sub_batches(strategy):
    m = 2
    metrics, params, images, labels = linear_step(optim.m_sam(optim.usam(RHO), m, strategy))
    norms = [
        global_norm(softmax_gradient(params, images[i : i + m], labels[i : i + m]))
        for i in range(0, 8, m)
    ]
    wanted = RHO * np.mean(norms)
    assert abs(metrics.perturbation_norm - wanted) < ROUNDING * wanted
    of_mean = RHO * global_norm(softmax_gradient(params, images, labels))
    assert abs(wanted - of_mean) > 0.1 * wanted


def two_steps(config):
    """The metrics of two steps of a small net from the digits' format."""
    build.check(config)
    source, data = build.load_data(config)
    program = compile_program(build.program_spec(config, source, len(data.train_labels)))
    return run_two_steps(program, data, config)[1]


# Their passes are all made at the parameters.
AT_W = ("none", "saf", "mesa")


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_of_the_config_reports_it(name):
    more = {"method__late_phase_sam__tail": 1.0} if name == "late_phase_sam" else {}
    more |= {"method__ss_sam__probability": 1.0} if name == "ss_sam" else {}
    more |= {"method__weight_noise__relative": 0.1} if name == "weight_noise" else {}
    metrics = two_steps(tiny_config(method__name=name, method__entropy_sgd__steps=4, **more))
    norms = np.asarray(metrics.perturbation_norm)
    assert norms.shape == (2,) and np.isfinite(norms).all() and (norms >= 0).all()
    assert (norms.max() > 0) == (name not in AT_W)


FORMS = {
    "a device": {"method__name": "usam"},
    "two examples": {"method__name": "usam", "method__m": 2},
    "groups of devices": {"method__name": "usam", "method__synchronise": "2"},
    "the batch": {"method__name": "usam", "method__synchronise": "all"},
}


@eight_devices
@pytest.mark.devices
@pytest.mark.parametrize("fields", FORMS.values(), ids=FORMS)
def test_split_parameters_report_the_same(fields):
    wide = fields | {"model__features": (64, 64), "model__strides": (2, 1)}
    whole = two_steps(tiny_config(**wide)).perturbation_norm
    split = two_steps(tiny_config(**wide, split_parameters=("data",))).perturbation_norm
    np.testing.assert_allclose(split, whole, rtol=1e-4)
    other = two_steps(tiny_config(**wide, seed=1)).perturbation_norm
    assert np.abs(np.asarray(other) / whole - 1).max() > 1e-3


@eight_devices
@pytest.mark.devices
def test_the_number_of_devices_does_not_matter():
    """The sub-batches of two examples, taken by eight devices, are those of one."""
    config = tiny_config(method__name="usam", method__m=2, data__augmentation=())
    found = two_steps(config).perturbation_norm
    source, data = build.load_data(config)
    spec = build.program_spec(config, source, len(data.train_labels))
    key = jax.random.key(config.seed)
    state = jax.device_get(compile_program(spec).init(key)._replace(method_state=()))
    order = epoch_order(stream(key, "order"), 0, 64, config.batch_size)[0]
    images = spec.inputs(jnp.asarray(np.asarray(data.train_images)[order]))
    labels = np.asarray(data.train_labels)[order]
    functions = losses.make_functions(spec.model, state.batch_stats)

    def mean_norm(m):
        parts = [(images[i : i + m], labels[i : i + m]) for i in range(0, 32, m)]
        return np.mean([global_norm(functions.grad_fn(state.params, part)[0]) for part in parts])

    np.testing.assert_allclose(found[0], config.method.rho * mean_norm(2), rtol=1e-4)
    assert abs(mean_norm(4) / mean_norm(2) - 1) > 1e-2
