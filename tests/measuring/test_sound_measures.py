"""The instruments of the sound preset alone, against direct calls with losses made by hand."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from measured_models import KEY, SAME, make_loss_fn, make_settings, make_trained, select, take_all

from sam_jax import metrics
from sam_jax.runs.randomness import stream

MEASURES = ("asymmetry_index", "level_set_widths", "hessian")
RELATIVE = {"distribution": "gaussian", "normalisation": "filter"}
DIRECTIONS = stream(KEY, "directions")


@pytest.fixture(scope="module")
def models():
    return make_trained(0), make_trained(1)


@pytest.fixture(scope="module")
def measured(models):
    return [take_all(model, make_settings(), ("sound",), MEASURES) for model in models]


def make_set_loss(trained):
    """The loss over the whole training set in evaluation mode, in one pass."""
    loss_fn = make_loss_fn(trained, published=False)
    whole = trained.data.train_images, trained.data.train_labels
    return lambda params: loss_fn(params, whole)


def assert_mean(record, name, values):
    assert record[f"mean_{name}"] == pytest.approx(np.mean(values), rel=1e-5)
    stderr = np.std(values, ddof=1) / np.sqrt(len(values))
    assert record[f"mean_{name}_stderr"] == pytest.approx(stderr, rel=1e-4)


@pytest.mark.parametrize("number", [0, 1])
def test_asymmetry_index(models, measured, number):
    trained, record = models[number], select(measured[number], "asymmetry_index", "sound")
    loss_fn = make_set_loss(trained)

    def direct(params, **law):
        return metrics.asymmetry_index(
            loss_fn, params, 0.5, key=DIRECTIONS, num_directions=2, **law
        )

    result = jax.jit(lambda w: direct(w, **RELATIVE))(trained.state.params)
    assert {name: record[name] for name in RELATIVE} == RELATIVE
    assert record["distance"] == 0.5 and record["num_directions"] == 2
    for name in ("plus", "minus", "loss", "num_not_positive"):
        np.testing.assert_allclose(record[name], getattr(result, name), **SAME, err_msg=name)
    # Ratios of small differences: from the measured rises, whose rounding they amplify.
    plus, minus = np.array(record["plus"]), np.array(record["minus"])
    signed = (plus - minus) / (np.abs(plus) + np.abs(minus))
    np.testing.assert_allclose(record["signed"], signed, rtol=1e-4)
    assert record["index"] == pytest.approx(1 - np.mean(np.abs(signed)), rel=1e-4)
    assert_mean(record, "absolute_odd", np.abs(plus - minus) / 2)
    assert_mean(record, "even", (plus + minus) / 2)
    assert "odd" not in record and "even" not in record  # plus and minus say the same
    other = jax.jit(lambda w: direct(w))(trained.state.params)  # of unit norm
    assert np.max(np.abs(other.plus - plus)) > 100 * SAME["atol"]


@pytest.mark.parametrize("number", [0, 1])
def test_level_set_widths(models, measured, number):
    trained, record = models[number], select(measured[number], "level_set_widths", "sound")
    settings = make_settings().level_set_widths
    loss_fn = make_set_loss(trained)
    steps = {"doublings": settings.doublings, "bisections": settings.bisections}

    @jax.jit
    def direct(params):
        return metrics.level_set_widths(
            loss_fn,
            params,
            settings.rise,
            settings.max_distance,
            **{"key": DIRECTIONS, "num_directions": 3, **steps, **RELATIVE},
        )

    result = direct(trained.state.params)
    for name, value in result._asdict().items():
        np.testing.assert_allclose(record[name], value, **SAME, err_msg=name)
    assert record["rise"] == settings.rise and record["max_distance"] == settings.max_distance
    assert record["num_directions"] == 3 and record["num_censored"] == result.num_censored
    assert_mean(record, "width", np.add(record["plus"], record["minus"]) / 2)


def test_the_index_and_the_widths_follow_the_same_directions(models):
    settings = make_settings()
    settings.level_set_widths.bisections = 12
    (widths,) = take_all(models[1], settings, ("sound",), ("level_set_widths",))
    number = widths["plus_censored"].index(False)
    settings.asymmetry_index.num_directions = number + 1
    settings.asymmetry_index.distance = widths["plus"][number]
    (index,) = take_all(models[1], settings, ("sound",), ("asymmetry_index",))
    rise = settings.level_set_widths.rise  # at just that distance
    assert index["plus"][number] == pytest.approx(rise, rel=0.01)
    assert index["minus"][number] != pytest.approx(rise, rel=0.01)


def dense_hessian(trained, examples=slice(None)):
    """All second derivatives of the loss over some training examples, by plain autodiff."""
    loss_fn = make_loss_fn(trained, published=False)
    batch = trained.data.train_images[examples], trained.data.train_labels[examples]
    flat, unravel = jax.flatten_util.ravel_pytree(trained.state.params)
    return np.asarray(jax.jit(jax.hessian(lambda w: loss_fn(unravel(w), batch)))(flat), float)


@pytest.mark.parametrize("number", [0, 1])
def test_hessian(models, measured, number):
    trained, record = models[number], select(measured[number], "hessian", "sound")
    matrix = dense_hessian(trained)
    eigenvalues = np.linalg.eigvalsh(matrix)
    # 64 examples in batches of 40: the last one is half empty, and every example counts the same.
    assert len(trained.data.train_labels) == 64 and make_settings().batch_size == 40
    distances = np.abs(eigenvalues - record["top_eigenvalue"])
    assert distances.min() <= record["top_residual"] + 1e-5
    assert record["top_eigenvalue"] == pytest.approx(eigenvalues[-1], rel=1e-2)
    distances = np.abs(eigenvalues - record["bottom_eigenvalue"])
    assert distances.min() <= record["bottom_residual"] + 1e-5
    # The trace of the same random signs, from the dense matrix.
    result = metrics.hessian_trace(
        lambda w: 0.5 * w @ jnp.asarray(matrix, jnp.float32) @ w,
        jnp.zeros(len(matrix)),
        key=stream(stream(KEY, "hessian"), "trace"),
        draws=2,
    )
    assert record["trace"] == pytest.approx(float(result.trace), rel=1e-3)
    assert record["trace_stderr"] == pytest.approx(float(result.stderr), rel=1e-2)
    assert record["steps"] == 12 and record["draws"] == 2
    # Negative controls: another weighting of the two batches would be seen, and so would be
    # the loss in training mode.
    first, second = (dense_hessian(trained, part) for part in (slice(40), slice(40, None)))
    np.testing.assert_allclose((40 * first + 24 * second) / 64, matrix, atol=1e-4)
    wrong = np.linalg.eigvalsh((first + second) / 2)[-1]
    assert abs(wrong - eigenvalues[-1]) > 10 * abs(record["top_eigenvalue"] - eigenvalues[-1])


def test_one_direction_has_no_standard_error(models):
    settings = make_settings()
    settings.asymmetry_index.num_directions = settings.level_set_widths.num_directions = 1
    settings.hessian.draws = 1
    index, widths, hessian = take_all(models[0], settings, ("sound",), MEASURES)
    assert np.isnan([index["mean_even_stderr"], widths["mean_width_stderr"]]).all()
    assert np.isnan(hessian["trace_stderr"]) and np.isfinite(hessian["trace"])
