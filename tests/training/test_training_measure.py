"""The instruments on a trained model, against direct calls with loss functions made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_problems import count_compilations, tiny_config

from sam_jax import metrics
from sam_jax.training import build, loop, measure
from sam_jax.training.randomness import stream

M, RHOS, AVERAGE_RHOS = (8, 16), (0.05, 0.1), (0.5, 1.0)
EXAMPLES, BATCHES = 48, 2  # of 64
KEY = jax.random.key(11)  # of the instruments, not of the runs
SAME = {"rtol": 1e-5, "atol": 1e-6}  # two compilations of one float32 computation


def make_settings():
    settings = tiny_config().instruments
    settings.seed, settings.examples, settings.batch_size = 11, EXAMPLES, 40
    settings.adversarial.m, settings.adversarial.rho = M, RHOS
    settings.adversarial.batches = settings.average.batches = BATCHES
    settings.average.m, settings.average.rho = M, AVERAGE_RHOS
    settings.asymmetry.distance, settings.curve.limit = 1.0, 2.0
    return settings


def make_trained(seed):
    """A model whose running statistics are not those of any batch; training it is not needed."""
    config = tiny_config(seed=seed)
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    state = program.init(jax.random.key(seed))
    stats = jax.tree.map(lambda x: 0.7 * x + 0.1, state.batch_stats)
    return loop.Trained(state._replace(batch_stats=stats), program, data, source, epoch=1)


@pytest.fixture(scope="module")
def models():
    return make_trained(0), make_trained(1)


@pytest.fixture(scope="module")
def measured(models):
    """Records by preset, of both models, and the compilations that the second one needed."""
    presets = ("sound", "published")
    first = list(measure.instrument_records(models[0], make_settings(), presets))
    with count_compilations() as compiled:
        second = list(measure.instrument_records(models[1], make_settings(), presets))
    return first, second, compiled


def select(records, measure, preset, **where):
    chosen = [
        r
        for r in records
        if r["measure"] == measure
        and r["preset"] == preset
        and all(r[name] == value for name, value in where.items())
    ]
    assert len(chosen) == 1
    return chosen[0]


def make_loss_fn(trained, published):
    """The mean loss of (params, (images, labels)), from the model's apply alone."""
    mean, std = ((0.0,), (1.0,)) if published else (trained.source.mean, trained.source.std)

    def loss_fn(params, batch):
        images, labels = batch
        x = (jnp.asarray(images, jnp.float32) / 255 - jnp.array(mean)) / jnp.array(std)
        variables = {"params": params, "batch_stats": trained.state.batch_stats}
        if published:  # in training mode: on the statistics of the batch
            logits, _ = trained.program.model.apply(
                variables, x, train=True, mutable=["batch_stats"]
            )
        else:
            logits = trained.program.model.apply(variables, x, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss_fn


def make_batches(trained, published, m):
    examples = BATCHES * m if published else EXAMPLES
    among = examples if published else len(trained.data.train_labels)
    rows = np.asarray(jax.random.permutation(stream(KEY, "examples"), among))[:examples]
    if published:
        assert sorted(rows) == list(range(BATCHES * m))  # the first ones, and more for a larger m
    else:
        assert len(set(rows.tolist())) == EXAMPLES and max(rows) >= EXAMPLES  # a random sample
    images, labels = np.asarray(trained.data.train_images), np.asarray(trained.data.train_labels)
    shape = (-1, m)
    return images[rows].reshape(*shape, 8, 8, 1), labels[rows].reshape(shape)


def assert_fields(record, result):
    for name, value in result._asdict().items():
        np.testing.assert_allclose(record[name], value, **SAME, err_msg=name)


@pytest.mark.parametrize("preset", ["sound", "published"])
@pytest.mark.parametrize("m", M)
def test_adversarial_sharpness(models, measured, preset, m):
    trained, published = models[0], preset == "published"
    loss_fn, other = (make_loss_fn(trained, p) for p in (published, not published))
    batches = make_batches(trained, published, m)
    record = select(measured[0], "adversarial_sharpness", preset, m=m, measured_rho=0.1)
    direct = jax.jit(lambda w: metrics.adversarial_sharpness(loss_fn, w, batches, rho=0.1))
    assert_fields(record, direct(trained.state.params))
    assert record["n"] == (BATCHES if published else EXAMPLES // m)
    wrong = np.mean([other(trained.state.params, b) for b in zip(*batches, strict=True)])
    assert abs(wrong - record["loss"]) > 1e-3  # the mode of batch norm and the images matter


@pytest.mark.parametrize("preset", ["sound", "published"])
def test_average_sharpness(models, measured, preset):
    trained, published = models[0], preset == "published"
    distribution = "gaussian" if published else "sphere"
    loss_fn = make_loss_fn(trained, published)
    direct = jax.jit(
        lambda w, batches: metrics.average_sharpness(
            loss_fn,
            w,
            batches,
            rho=0.5,
            key=stream(KEY, "average sharpness"),
            draws=3,
            distribution=distribution,
        )
    )
    for m in M:
        record = select(measured[0], "average_sharpness", preset, m=m, measured_rho=0.5)
        result = direct(trained.state.params, make_batches(trained, published, m))
        assert_fields(record, result)
        assert record["distribution"] == distribution and record["draws"] == 3
    # With running statistics and the same examples m plays no part, and it is measured once.
    small, large = (
        select(measured[0], "average_sharpness", preset, m=m, measured_rho=0.5)["sharpness"]
        for m in M
    )
    assert (small == large) is (not published)


@pytest.mark.parametrize("preset", ["sound", "published"])
@pytest.mark.parametrize("number", [0, 1])
def test_asymmetry_and_curve_along_the_same_directions_for_every_model(
    models, measured, preset, number
):
    trained = models[number]
    law = "uniform" if preset == "published" else "gaussian"
    loss_fn = make_loss_fn(trained, published=False)  # the whole set, in evaluation mode
    whole = trained.data.train_images, trained.data.train_labels

    @jax.jit
    def direct(params):
        # Drawn with the parameters of the first model: they do not depend on the model.
        directions = metrics.random_directions(
            stream(KEY, "directions"), models[0].state.params, 3, law
        )
        asymmetry = metrics.asymmetry_factor(
            lambda w: loss_fn(w, whole), params, distance=1.0, directions=directions
        )
        first = jax.tree.map(lambda x: x[0], directions)
        distances = np.linspace(-2, 2, 5)
        return asymmetry, metrics.loss_curve(lambda w: loss_fn(w, whole), params, first, distances)

    asymmetry, curve = direct(trained.state.params)
    record = select(measured[number], "asymmetry_factor", preset)
    for name in ("plus", "minus", "loss"):
        np.testing.assert_allclose(record[name], getattr(asymmetry, name), **SAME)
    # A ratio of small differences: their relative errors, and not those of the losses, count.
    ratios = np.minimum(record["plus"], record["minus"]) / np.maximum(
        record["plus"], record["minus"]
    )
    np.testing.assert_allclose(record["ratios"], ratios, rtol=1e-5)
    assert record["factor"] == pytest.approx(np.mean(ratios), rel=1e-5)
    assert record["distribution"] == law and record["distance"] == 1.0
    drawn = select(measured[number], "loss_curve", preset)
    assert drawn["distances"] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    np.testing.assert_allclose(drawn["losses"], curve, **SAME)
    # The middle is the model itself, and the inner points are the first direction's.
    rises = np.subtract(drawn["losses"], drawn["losses"][2])
    np.testing.assert_allclose(
        [rises[3], rises[1]], [record["plus"][0], record["minus"][0]], **SAME
    )


def test_one_compilation_for_two_models(measured):
    first, second, compiled = measured
    assert compiled == []
    assert [(r["measure"], r["preset"]) for r in first] == [
        (r["measure"], r["preset"]) for r in second
    ]
    assert first != second
    measures = [r["measure"] for r in first if r["preset"] == "sound"]
    assert {name: measures.count(name) for name in measures} == {
        "adversarial_sharpness": 4,
        "average_sharpness": 4,
        "asymmetry_factor": 1,
        "loss_curve": 1,
    }


def test_evaluation_record(models):
    trained = models[0]
    record = measure.evaluation_record(trained)
    loss_fn = make_loss_fn(trained, published=False)
    train = loss_fn(trained.state.params, (trained.data.train_images, trained.data.train_labels))
    test = loss_fn(trained.state.params, (trained.data.test_images, trained.data.test_labels))
    np.testing.assert_allclose([record["train_loss"], record["test_loss"]], [train, test], **SAME)
    assert 0 <= record["train_accuracy"] <= 1 and record["train_accuracy"] != train


def test_wishes_that_cannot_be_met(models):
    with pytest.raises(ValueError, match=r"unknown presets \['mine'\].*published.*sound"):
        list(measure.instrument_records(models[0], make_settings(), ("sound", "mine")))
    settings = make_settings()
    settings.examples = 65
    with pytest.raises(ValueError, match="want 65 training examples .* there are 64"):
        next(measure.instrument_records(models[0], settings, ("sound",)))
    settings = make_settings()
    settings.adversarial.m = (64,)
    with pytest.raises(ValueError, match="want 128 training examples in batches of m = 64"):
        next(measure.instrument_records(models[0], settings, ("published",)))
