"""Every method by its name in a config: complete, with the library's defaults, and it trains."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_problems import tiny_config

from configs import digits
from sam_jax import optim
from sam_jax.runs.randomness import stream
from sam_jax.training import build, methods
from sam_jax.training.placement import placement_of
from sam_jax.training.program import make_method, make_run
from sam_jax.training.step import epoch_order
from sam_jax.training.train_and_evaluate import train_and_evaluate

# Public functions of the methods' modules that are no methods.
HELPERS = {"ae_sam_threshold", "gsam_rho", "norm_layers"}
# What a config says in terms of the whole run, and the function in terms of steps.
OF_THE_RUN = {
    "gsam": {"rho_min"},
    "late_phase_sam": {"tail"},
    "ae_sam": {"lambda1", "lambda2"},
    "mesa": {"start_epoch"},
}
STEPS = 3
KEY = jax.random.key(0)


def config_of(method, **changes):
    # Methods with a memory of past gradients take one step for the whole batch, on any number of
    # devices: m is the batch.
    # ESAM and Entropy-SGD divide the examples of a device.
    m = 0 if method in ("esam", "entropy_sgd") else tiny_config().batch_size
    return tiny_config(method__name=method, method__m=m, **changes)


def take_steps(config, steps=STEPS):
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    key = jax.random.key(config.seed)
    order = jnp.concatenate(
        [
            epoch_order(stream(key, "order"), epoch, len(data.train_labels), config.batch_size)
            for epoch in range(steps)
        ]
    )[: steps + 1]
    state, metrics = program.run_steps(
        program.init(key),
        data.train_images,
        data.train_labels,
        order,
        key,
        build.traced_hyperparameters(config),
    )
    return jax.tree.map(np.asarray, (state.params, metrics))


@functools.cache
def plain_params(steps):
    """Return the parameters after some steps of the optimiser alone."""
    return take_steps(config_of("none", epochs=8), steps)[0]


def test_every_public_method_has_a_name():
    public = {
        name
        for name in vars(optim.methods)
        if not name.startswith("_") and callable(getattr(optim, name, None))
    }
    assert public - HELPERS == set(methods.METHODS) - {"none"}


@pytest.mark.parametrize("name", sorted(set(methods.METHODS) - {"none"}))
def test_the_options_of_the_base_config_are_the_defaults_of_the_functions(name):
    options = digits.get_config().method.get(name, {})
    parameters = inspect.signature(getattr(optim, name)).parameters
    for option, value in options.items():
        if option in OF_THE_RUN.get(name, ()):
            continue
        default = parameters[option].default
        assert default is inspect.Parameter.empty or default == value, option


@pytest.mark.parametrize("name", sorted(set(methods.METHODS) - {"none"}))
def test_every_method_trains_and_is_not_the_plain_optimiser(name):
    # Strong enough that a method which did nothing could not pass unnoticed, from the first step
    # on, on the 64 artificial examples (two steps an epoch).
    changes = {
        "saf": {"method__saf__start_epoch": 0, "method__saf__epochs_back": 1},
        "late_phase_sam": {"method__late_phase_sam__tail": 1.0},
        "ae_sam": {"method__ae_sam__lambda2": -10.0, "method__ae_sam__lambda1": -10.0},
        "ss_sam": {"method__ss_sam__probability": 1.0},
        "mesa": {"method__mesa__decay": 0.5},
        "entropy_sgd": {"method__entropy_sgd__steps": 2},  # four examples a device
    }.get(name, {})
    params, metrics = take_steps(config_of(name, epochs=8, method__rho=0.3, **changes))
    plain = plain_params(STEPS)
    assert np.all(np.isfinite(metrics.loss)) and metrics.loss.shape == (STEPS,)
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), params, plain)
    assert max(jax.tree.leaves(difference)) > 1e-5


@pytest.mark.devices
@pytest.mark.skipif(jax.device_count() < 2, reason="needs several devices")
def test_a_memory_needs_one_sub_batch():
    with pytest.raises(ValueError, match="m = 4 of its 32 examples: set method.m to batch_size"):
        take_steps(tiny_config(method__name="vasso"))


def test_options_that_need_a_large_rho_reach_the_first_state():
    params, _ = take_steps(config_of("gsam", method__rho=0.4, method__gsam__rho_min=0.2), steps=1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("name", "before"), [("saf", 11), ("mesa", 12)])
def test_the_term_starts_in_the_epoch_of_the_released_code(name, before):
    # Of two steps each: all updates before epoch 6 are those of SGD. SAF counts the visits of an
    # example, and the first batch of the order stands before the first step.
    start = digits.get_config().method[name].start_epoch
    own = {"saf": {"method__saf__epochs_back": 1}, "mesa": {"method__mesa__decay": 0.5}}[name]
    config = config_of(name, epochs=8, **{f"method__{name}__start_epoch": start}, **own)
    for steps, differs in ((before, False), (before + 1, True)):
        params, _ = take_steps(config, steps)
        pairs = zip(*map(jax.tree.leaves, (params, plain_params(steps))), strict=True)
        assert any(not np.allclose(a, b, rtol=0, atol=1e-6) for a, b in pairs) == differs


def test_gsam_radius_falls_with_the_learning_rate():
    config = config_of("gsam", method__gsam__rho_min=0.1, method__rho=0.4)
    run = make_run(config.optimiser, config.epochs, steps_per_epoch=10, examples=64, classes=10)
    half = optim.gsam_rho(run.learning_rate, 0.1, 0.4, 0.0, run.highest_learning_rate)
    assert float(half(0)) == pytest.approx(0.4)
    assert float(half(run.total_steps // 2)) == pytest.approx(0.25)
    assert float(half(run.total_steps)) == pytest.approx(0.1)


@pytest.mark.e2e
@pytest.mark.parametrize("average", ["swa", "ema"])
@pytest.mark.parametrize("method", ["none", "momentum_sam"])
def test_averaged_weights_are_the_ones_evaluated(average, method, tmp_path):
    changes = {"weight_average__decay": 0.5, "weight_average__start": 0.5}
    config = config_of(method, weight_average__name=average, method__rho=0.1, **changes)
    record = train_and_evaluate(config, tmp_path / "run")
    plain = train_and_evaluate(config_of(method, method__rho=0.1), tmp_path / "plain")
    # The same steps, other weights at the end.
    assert record["batch_loss"] == plain["batch_loss"]
    assert record["test_loss"] != plain["test_loss"]


def test_the_options_of_the_moving_average_reach_it():
    def averages(**changes):
        changes = {f"weight_average__{name}": value for name, value in changes.items()}
        config = config_of("none", weight_average__name="ema", epochs=4, **changes)
        run = make_run(config.optimiser, 4, steps_per_epoch=2, examples=64, classes=10)
        groups = config.method, config.weight_average
        arguments = config.batch_size, placement_of(config), run, {"rho": 0.0, "eta": 0.0}
        _, tx = make_method(*groups, *arguments, KEY)
        params = jnp.zeros(())
        state, found = tx.init(params), []
        for _ in range(8):
            updates, state = tx.update(jnp.ones(()), state, params)
            params = optax.apply_updates(params, updates)
            found.append((float(params), float(optim.averaged_params(state, params))))
        return np.transpose(found)

    path, plain = averages()
    after_three_epochs = averages(ema_start_epochs=3.0)[1]
    assert (after_three_epochs[:6] == path[:6]).all() and after_three_epochs[6] != path[6]
    warm = averages(ema_warm_up=True)[1]
    assert warm[0] == plain[0] == path[0]
    assert warm[1] == pytest.approx(2 / 11 * path[0] + 9 / 11 * path[1], rel=1e-6)
    assert plain[1] == pytest.approx(0.999 * path[0] + 0.001 * path[1], rel=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "median", "weight_average.name must be one of none, swa, ema"),
        ("decay", 1.5, r"weight_average.decay must be a number in \[0, 1\], got 1.5"),
        ("ema_start_epochs", 2.0, r"weight_average.ema_start_epochs must be a number in \[0, 2\)"),
        ("start", -0.1, r"weight_average.start must be a number in \[0, 1\], got -0.1"),
        ("every_epochs", 0.0, "weight_average.every_epochs must be a finite number above 0"),
    ],
)
def test_a_wrong_field_of_the_average_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        build.check(config_of("none", **{f"weight_average__{field}": value}))
