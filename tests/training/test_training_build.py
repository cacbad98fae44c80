"""From a config to compiled functions: schedules, shared compilations, seeds and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_problems import assert_same_bits, count_compilations, tiny_config

from sam_jax.runs import workdirs
from sam_jax.runs.randomness import stream
from sam_jax.training import build
from sam_jax.training.program import full_precision, make_run
from sam_jax.training.step import epoch_order

STEPS = 10  # an epoch, in the tests of the schedule


def learning_rates(config, steps):
    """The rates of an optimiser that sees a gradient of one, without momentum and clipping."""
    config.optimiser.momentum, config.optimiser.nesterov = 0.0, False
    config.optimiser.clip_norm = config.optimiser.weight_decay = 0.0
    optimiser = make_run(config.optimiser, config.epochs, STEPS, examples=1, classes=1).optimiser
    params = {"w": jnp.zeros(())}

    def step(state, _):
        updates, state = optimiser.update({"w": jnp.ones(())}, state, params)
        return state, -updates["w"]

    return jax.lax.scan(step, optimiser.init(params), length=steps)[1]


def test_cosine_by_step():
    rates = learning_rates(tiny_config(epochs=4, optimiser__learning_rate=0.3), 40)
    t = np.arange(40)
    # float32 cosines: absolute errors of some 1e-7 of the highest rate
    np.testing.assert_allclose(rates, 0.15 * (1 + np.cos(np.pi * t / 40)), atol=1e-7)
    assert len(set(rates.tolist())) == 40  # by step, not by epoch


def test_warm_up_by_step():
    config = tiny_config(epochs=4, optimiser__learning_rate=0.3, optimiser__warmup_epochs=0.5)
    rates = learning_rates(config, 40)
    np.testing.assert_allclose(rates[:6], 0.3 * np.arange(6) / 5, atol=1e-7)
    t = np.arange(35)
    np.testing.assert_allclose(rates[5:], 0.15 * (1 + np.cos(np.pi * t / 35)), atol=1e-7)


def run_once(config):
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    key = jax.random.key(config.seed)
    order = epoch_order(stream(key, "order"), 0, len(data.train_labels), config.batch_size)
    order = jnp.concatenate([order[:1], order])
    state, metrics = program.run_steps(
        program.init(key),
        data.train_images,
        data.train_labels,
        order,
        key,
        build.traced_hyperparameters(config),
    )
    return program, jax.tree.map(
        lambda x: x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x),
        (state, metrics),
    )


@pytest.mark.parametrize("method", ["asam", "average_sam"])
def test_rho_and_seed_change_without_compiling_anew(method):
    base = {"method__name": method}
    program, first = run_once(tiny_config(**base))
    with count_compilations() as compiled:
        other_rho, rho = run_once(tiny_config(**base, method__rho=0.5))
        other_seed, seed = run_once(tiny_config(**base, seed=1))
        again, repeated = run_once(tiny_config(**base))
    assert other_rho is program and other_seed is program and again is program
    assert compiled == []
    assert_same_bits(first, repeated)
    start = program.init(jax.random.key(0)).params
    for other in (rho, seed):
        difference = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), first[0].params, other[0].params
        )
        assert max(jax.tree.leaves(difference)) > 1e-4
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first[0].params, start)
    assert min(jax.tree.leaves(moved)) > 0


def test_what_is_compiled_in_makes_another_program():
    def program(**changes):
        config = tiny_config(**changes)
        source, data = build.load_data(config)
        return build.make_program(config, source, len(data.train_labels))

    assert program() is program(seed=5, method__eta=0.3, checkpoint__keep=7)
    assert program() is not program(method__m=4)
    assert program() is not program(loss__label_smoothing=0.1)


def test_a_part_of_a_set_is_evenly_spaced():
    _, whole = build.load_data(tiny_config())
    _, part = build.load_data(tiny_config(data__train_examples=4))
    rows = [0, 21, 42, 63]
    assert np.array_equal(part.train_images, np.asarray(whole.train_images)[rows])
    assert part.train_labels.tolist() == np.asarray(whole.train_labels)[rows].tolist()
    assert len(part.test_labels) == len(whole.test_labels)
    with pytest.raises(ValueError, match="train_examples = 65, but digits has 64"):
        build.load_data(tiny_config(data__train_examples=65))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method__name", "sma", "method.name must be one of none, sam.*got 'sma'"),
        ("method__statistics_from", "both", "method.statistics_from must be one of clean"),
        ("method__rho", -0.1, "rho"),
        ("method__strategy", "map", "strategy"),
        ("method__m", -1, "m must be"),
        ("optimiser__weight_decay_in", "both", "optimiser.weight_decay_in must be one of update"),
        ("epochs", 0, "epochs must be a whole number from 1 on, got 0"),
        ("batch_size", 0, "batch_size must be a whole number from 1 on, got 0"),
        ("evaluation__batch_size", 0, "evaluation.batch_size must be a whole number from 1 on"),
        (
            "evaluation__test_every_epochs",
            -1,
            "evaluation.test_every_epochs must be a whole number from 0 on",
        ),
        ("evaluation__top_k", (1,), "evaluation.top_k must be a tuple .* from 2 on, got"),
        ("steps_per_call", -1, "steps_per_call must be a whole number from 0 on, got -1"),
        ("checkpoint__keep", 0, "checkpoint.keep must be a whole number from 1 on, got 0"),
        (
            "checkpoint__every_epochs",
            -1,
            "checkpoint.every_epochs must be a whole number from 0 on",
        ),
        (
            "data__augmentation",
            ("crop",),
            "data.augmentation must be None or .*Did you mean 'crop_",
        ),
        ("data__label_noise_seed", -1, "data.label_noise_seed must be a whole number from 0 to"),
        (
            "data__validation_examples",
            -1,
            "data.validation_examples must be a whole number from 0 on",
        ),
        ("model__dtype", "flaot32", "model.dtype must be one of .*Did you mean 'float32'"),
    ],
)
def test_a_wrong_field_is_named(field, value, message):
    build.check(tiny_config())
    with pytest.raises(ValueError, match=message):
        build.check(tiny_config(**{field: value}))


def test_a_method_with_a_memory_needs_the_whole_batch():
    config = tiny_config(method__name="looksam", method__m=8)
    with pytest.raises(ValueError, match="looksam keeps .* m = 8 of its .*set method.m"):
        build.check(config)
    build.check(tiny_config(method__name="looksam", method__m=config.batch_size))


@pytest.mark.devices
@pytest.mark.skipif(jax.device_count() == 1, reason="needs several devices")
def test_a_batch_that_the_devices_cannot_share_is_refused():
    with pytest.raises(ValueError, match=r"batch_size = 31 cannot be split over \d+ devices"):
        build.check(tiny_config(batch_size=31))


def test_the_sources_augmentation_is_used_where_the_config_names_none():
    source, data = build.load_data(tiny_config())
    key, images = jax.random.key(0), data.train_images

    def prepared(**changes):
        program = build.make_program(tiny_config(**changes), source, len(data.train_labels))
        return np.asarray(jax.jit(program.prepare_images)(key, images))

    own = prepared()
    written = {"data__augmentation": ("crop_zero",), "data__pad": 1, "data__cutout_size": 4}
    assert np.array_equal(own, prepared(**written))
    assert not np.array_equal(own, prepared(data__augmentation=()))
    assert not np.array_equal(own, prepared(data__pad=2))
    cut = {"data__augmentation": ("cutout",)}
    assert np.array_equal(prepared(**cut), prepared(**cut, data__cutout_size=4))


def test_a_cutout_larger_than_the_image_is_refused_before_training():
    config = tiny_config(data__augmentation=("crop_zero", "cutout"), data__cutout_size=16)
    source, data = build.load_data(config)
    with pytest.raises(ValueError, match="cutout_size = 16 is larger than the images, 8 x 8"):
        build.make_program(config, source, len(data.train_labels))


def test_a_batch_larger_than_the_set_is_refused():
    config = tiny_config(batch_size=128)
    source, data = build.load_data(config)
    with pytest.raises(ValueError, match="batch_size = 128 is larger than the training set, 64"):
        build.make_program(config, source, len(data.train_labels))


def test_the_variance_of_the_norms_in_training_and_in_measurements():
    source, data = build.load_data(tiny_config())

    def model_of(config):
        return build.make_program(config, source, len(data.train_labels)).model

    assert model_of(tiny_config()).use_fast_variance
    exact = model_of(tiny_config(model__use_fast_variance=False))
    assert not exact.use_fast_variance
    old = tiny_config()
    with old.unlocked():
        del old.model["use_fast_variance"]  # as workdirs of before have it
    assert model_of(old) == model_of(tiny_config())
    assert full_precision(model_of(old)) == full_precision(exact) == exact


@pytest.mark.parametrize("method", ["sam", "looksam", "entropy_sgd"])
def test_a_config_read_from_its_folder_shares_the_compiled_functions(tmp_path, method):
    config = tiny_config(method__name=method).lock()  # as a command's config is
    workdirs.claim(tmp_path, config)
    read = workdirs.read_config(tmp_path)
    source, data = build.load_data(config)
    specs = [build.program_spec(c, source, len(data.train_labels)) for c in (config, read)]
    assert specs[0] == specs[1] and hash(specs[0]) == hash(specs[1])
    read.optimiser.piecewise.factors = [0.5, 0.25]  # a setting that differs is told apart
    assert build.program_spec(read, source, len(data.train_labels)) != specs[0]
