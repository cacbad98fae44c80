"""The instruments on a trained model, against direct calls with loss functions made by hand."""

import jax
import numpy as np
import pytest
from measured_models import (
    AVERAGE_RHOS,
    BATCHES,
    EXAMPLES,
    KEY,
    SAME,
    M,
    make_loss_fn,
    make_settings,
    make_trained,
    select,
    take_all,
)
from training_problems import count_compilations

from sam_jax import metrics
from sam_jax.measuring import registry
from sam_jax.measuring.instruments import average_sharpness
from sam_jax.measuring.measure import measurements
from sam_jax.measuring.measured import as_measured
from sam_jax.runs.randomness import stream


@pytest.fixture(scope="module")
def models():
    return make_trained(0), make_trained(1)


@pytest.fixture(scope="module")
def measured(models):
    """Records by preset, of both models, and the compilations that the second one needed."""
    presets = ("sound", "published")
    first = take_all(models[0], make_settings(), presets)
    with count_compilations() as compiled:
        second = take_all(models[1], make_settings(), presets)
    return first, second, compiled


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
    kinds = [(r["measure"], r.get("preset")) for r in first]
    assert kinds == [(r["measure"], r.get("preset")) for r in second]
    assert first != second
    several = {"adversarial_sharpness": 4, "average_sharpness": 4}
    expected = {
        (instrument.name, preset): several.get(instrument.name, 1)
        for instrument in registry.chosen()
        for preset in instrument.presets or (None,)
    }
    assert {kind: kinds.count(kind) for kind in kinds} == expected


def test_the_evaluation_comes_first(models, measured):
    trained, record = models[0], measured[0][0]
    assert record["measure"] == "evaluation"
    loss_fn = make_loss_fn(trained, published=False)
    train = loss_fn(trained.state.params, (trained.data.train_images, trained.data.train_labels))
    test = loss_fn(trained.state.params, (trained.data.test_images, trained.data.test_labels))
    np.testing.assert_allclose([record["train_loss"], record["test_loss"]], [train, test], **SAME)
    assert 0 <= record["train_accuracy"] <= 1 and record["train_accuracy"] != train


def test_nothing_is_computed_before_it_is_taken(models, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it was gathered")

    monkeypatch.setattr(jax.random, "permutation", refuse)
    with count_compilations() as compiled:
        wanted = measurements(models[0], make_settings(), ("sound", "published"))
    assert compiled == [] and len(wanted) == 24
    with pytest.raises(AssertionError, match="it was gathered"):  # now it is
        next(m for m in wanted if m.about["measure"] == "adversarial_sharpness").take()


def test_one_measurement_stands_for_every_m(models, monkeypatch):
    calls = []

    def count(*arguments):
        calls.append(arguments)
        return instrument(*arguments)

    instrument = average_sharpness._jit(
        as_measured(models[0]).network,
        metrics.SOUND.average,
        make_settings().average.draws,
        "sphere",
    )
    monkeypatch.setattr(average_sharpness, "_jit", lambda *_: count)
    taken = take_all(models[0], make_settings(), ("sound",), ("average_sharpness",))
    assert len(taken) == len(M) * len(AVERAGE_RHOS) and len(calls) == len(AVERAGE_RHOS)


def test_only_the_wanted_measures(models):
    settings = make_settings()
    settings.examples = 65  # more than there are, which only the sharpness would notice
    wanted = measurements(models[0], settings, ("published", "sound"), ("hessian", "loss_curve"))
    assert [(m.about["measure"], m.about["preset"]) for m in wanted] == [
        ("loss_curve", "published"),
        ("loss_curve", "sound"),
        ("hessian", "sound"),
    ]


def test_wishes_that_cannot_be_met(models):
    settings = make_settings()
    with pytest.raises(ValueError, match=r"unknown presets \['mine'\].*published.*sound"):
        measurements(models[0], settings, ("sound", "mine"))
    with pytest.raises(ValueError, match="presets must be a tuple of names, got the string 'soun"):
        measurements(models[0], settings, "sound")
    with pytest.raises(ValueError, match=r"unknown measures \['hesian'\]; .*'hessian'"):
        measurements(models[0], settings, ("sound",), ("hesian", "evaluation"))
    with pytest.raises(ValueError, match=r"'hessian' exists under the presets \['sound'\]"):
        measurements(models[0], settings, ("published",), ("hessian", "loss_curve"))
    settings.examples = 65
    with pytest.raises(ValueError, match="want 65 training examples .* there are 64"):
        measurements(models[0], settings, ("sound",))
    settings = make_settings()
    settings.adversarial.m = (64,)
    with pytest.raises(ValueError, match="want 128 training examples in batches of m = 64"):
        measurements(models[0], settings, ("published",))


def test_an_older_run_is_measured_with_the_defaults(models):
    settings = make_settings()
    with settings.unlocked():
        del settings.level_set_widths, settings.hessian.draws
    widths, hessian = measurements(models[0], settings, ("sound",), ("level_set_widths", "hessian"))
    defaults = registry.by_name()["level_set_widths"].settings
    assert defaults.items() <= widths.about.items()
    assert (hessian.about["steps"], hessian.about["draws"]) == (12, 10)
    assert "level_set_widths" not in settings  # the run's own config stays as it is
