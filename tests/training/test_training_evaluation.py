"""Evaluation over a whole set, exact for every batch size and without augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records_readme import TEXT, named
from training_problems import NormNet, tiny_config

from sam_jax.training import build, evaluation
from sam_jax.training.evaluation import (
    Inputs,
    evaluate_set,
    make_logits_fn,
    noisy_evaluation,
    noisy_means,
    unnormalised,
)
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import evaluate_sets, load_trained

N, CLASSES = 23, 4


def random_set():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (N, 2, 3, 1)).astype(np.uint8)
    return images, random.integers(0, CLASSES, N), random.normal(size=(6, CLASSES)) / 64


def mean_loss_and_accuracy(logits, labels):
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    losses = log_sum - logits[np.arange(len(labels)), labels]
    return losses.mean(), np.mean(logits.argmax(axis=1) == labels)


@pytest.mark.parametrize("batch_size", [1, 7, N - 1, N, N + 1, 100])
def test_evaluation_is_the_plain_mean_for_every_batch_size(batch_size):
    images, labels, weights = random_set()
    sizes = []

    def logits_fn(batch):
        sizes.append(batch.shape[0])
        return batch.reshape(len(batch), -1).astype(jnp.float64) @ weights

    with jax.enable_x64(True):
        result = evaluate_set(logits_fn, jnp.asarray(images), jnp.asarray(labels), batch_size)
    loss, accuracy = mean_loss_and_accuracy(images.reshape(N, -1) @ weights, labels)
    np.testing.assert_allclose(result.loss, loss, rtol=1e-13)
    assert float(result.accuracy) == pytest.approx(accuracy, rel=1e-15)
    assert set(sizes) == {min(batch_size, N)}  # the bound on the memory holds
    # A mean of the batches' means would be another number where the last batch is smaller.
    if N % batch_size and batch_size < N:
        parts = [
            mean_loss_and_accuracy(
                images[i : i + batch_size].reshape(-1, 6) @ weights, labels[i : i + batch_size]
            )[0]
            for i in range(0, N, batch_size)
        ]
        assert abs(np.mean(parts) - loss) > 1e-6


@pytest.mark.parametrize(
    ("backend", "options", "size"),
    [
        ("cpu", {}, 2),
        ("cpu", {"multiple": 3}, 6),  # the share of each of three devices
        ("cpu", {"fill": False}, 20),  # batch statistics are those of the batch that is asked for
        ("gpu", {}, 20),
    ],
)
def test_cpus_take_as_many_images_at_once_as_caches_hold(monkeypatch, backend, options, size):
    monkeypatch.setattr(evaluation, "PIXELS_OF_PASS", 2**15 + 100)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    sizes = []

    def logits_fn(batch):
        sizes.append(len(batch))
        return jnp.sum(batch, (1, 2)) / 1e4

    images = jnp.arange(20 * 2**14).astype(jnp.uint8).reshape(20, 128, 128, 1)
    images = jnp.concatenate([images, 255 - images], -1)
    result = evaluate_set(logits_fn, images, jnp.arange(20) % 2, 20, **options)
    assert set(sizes) == {size}
    loss, accuracy = mean_loss_and_accuracy(np.sum(images, (1, 2)) / 1e4, np.arange(20) % 2)
    np.testing.assert_allclose(result[:2], [loss, accuracy], rtol=1e-5)


@pytest.mark.parametrize(
    ("logits", "loss", "accuracy"),
    [
        ([1.0, np.nan, 0.0, 0.0], np.nan, np.nan),
        ([np.inf, 1.0, 0.0, 0.0], np.nan, np.nan),
        ([1e38, 0.0, 0.0, 0.0], np.inf, (N - 4) / N),  # four losses of 1e38: the sum overflows
    ],
)
def test_the_accuracy_of_logits_that_are_not_finite_is_unknown(logits, loss, accuracy):
    bad = np.array([0, 8, 15, N - 1])
    labels = jnp.zeros(N, jnp.int32).at[bad].set(1)  # argmax takes NaN for the largest: "right"
    images = jnp.zeros((N, 1, 1, 1), jnp.uint8).at[bad].set(1)
    rows = jnp.array([[1.0, 0.0, 0.0, 0.0], logits])
    result = evaluate_set(lambda batch: rows[batch[:, 0, 0, 0].astype(int)], images, labels, 7)
    np.testing.assert_allclose(result[:2], [loss, accuracy], rtol=1e-6)


@pytest.mark.parametrize(("examples", "batch_size"), [(0, 7), (N, 0), (N, -1)])
def test_a_set_without_examples_or_batches_is_refused(examples, batch_size):
    images, labels, _ = random_set()
    message = f"{examples} examples and batch_size = {batch_size}"
    with pytest.raises(ValueError, match=message):
        evaluate_set(lambda batch: batch, images[:examples], labels[:examples], batch_size)


def test_inputs():
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    inputs = Inputs((0.5,), (0.25,))
    np.testing.assert_allclose(np.ravel(inputs(images)), [-2.0, -1.2, 2.0], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(unnormalised(inputs)(images)), [0.0, 0.2, 1.0], rtol=1e-6)


def test_logits_fn_normalises_with_running_or_batch_statistics():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 2, 2, 1)).astype(np.uint8)
    model, inputs = NormNet(), Inputs((0.3,), (0.2,))
    x = (images / 255 - 0.3) / 0.2
    variables = model.init(jax.random.key(0), jnp.asarray(x, jnp.float32))
    params = variables["params"]
    stats = {"norm": {"mean": jnp.full(4, 0.3), "var": jnp.full(4, 2.5)}}

    def by_hand(mean, var):
        h = x.reshape(8, -1) @ np.asarray(params["first"]["kernel"])
        h = (h - mean) / np.sqrt(var + 1e-5)
        return np.tanh(h) @ np.asarray(params["second"]["kernel"])

    h = x.reshape(8, -1) @ np.asarray(params["first"]["kernel"])
    expected = {"running": by_hand(0.3, 2.5), "batch": by_hand(h.mean(axis=0), h.var(axis=0))}
    for batch_norm, logits in expected.items():
        actual = make_logits_fn(model, inputs, batch_norm)(params, stats, images)
        np.testing.assert_allclose(actual, logits, rtol=1e-4, atol=1e-5)
    assert np.abs(expected["running"] - expected["batch"]).max() > 0.01
    assert float(stats["norm"]["mean"][0]) == pytest.approx(0.3)


def test_unknown_batch_norm_is_refused():
    with pytest.raises(ValueError, match='"running" or "batch", got \'eval\''):
        make_logits_fn(NormNet(), Inputs((0.0,), (1.0,)), "eval")


def test_a_config_evaluates_its_training_set_without_augmentation():
    config = tiny_config(evaluation__batch_size=48)  # 64 = 48 + 16
    source, data = build.load_data(config)
    assert build.augmentation_of(config, source).names
    program = build.make_program(config, source, len(data.train_labels))
    state = program.init(jax.random.key(0))
    result = program.evaluate(state.params, state.batch_stats, data.train_images, data.train_labels)
    x = (np.asarray(data.train_images) / 255 - source.mean) / source.std
    logits = program.model.apply(
        {"params": state.params, "batch_stats": state.batch_stats}, x.astype(np.float32)
    )
    loss, accuracy = mean_loss_and_accuracy(logits, np.asarray(data.train_labels))
    np.testing.assert_allclose(result.loss, loss, rtol=1e-5)
    assert float(result.accuracy) == pytest.approx(accuracy)


def noisy_set(share):
    images, true, weights = random_set()
    given = np.where(np.arange(N) < round(share * N), (true + 1) % CLASSES, true)
    return images, np.stack([given, true], axis=1), weights


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("batch_size", [7, N])
def test_clean_and_noisy_examples_are_told_apart(share, batch_size):
    images, pairs, weights = noisy_set(share)
    logits = images.reshape(N, -1) @ weights

    def logits_fn(batch):
        return batch.reshape(len(batch), -1).astype(jnp.float64) @ weights

    with jax.enable_x64(True):
        found = noisy_evaluation(
            noisy_means(logits_fn, jnp.asarray(images), jnp.asarray(pairs), batch_size)
        )
        found = found._replace(**{k: np.asarray(x) for k, x in found._asdict().items()})
    given, true = pairs.T
    noisy = given != true
    assert noisy.sum() == round(share * N)
    wanted = {}
    for part, rows, labels in (
        ("", given == given, given),
        ("clean_", ~noisy, given),
        ("noisy_", noisy, given),
        ("noisy_true_", noisy, true),
    ):
        loss = accuracy = np.nan
        if rows.any():
            loss, accuracy = mean_loss_and_accuracy(logits[rows], labels[rows])
        wanted |= {f"{part}loss": loss, f"{part}accuracy": accuracy}
    del wanted["noisy_true_loss"]
    assert wanted.keys() == found._asdict().keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-12, err_msg=name)
    if share == 0.4:
        assert wanted["noisy_accuracy"] != wanted["noisy_true_accuracy"]


@pytest.mark.e2e
def test_a_run_with_noisy_labels_records_both_kinds_of_examples(tmp_path):
    changes = {"data__label_noise": 0.5, "evaluation__train_every_epochs": 1}
    record = train_and_evaluate(tiny_config(**changes), tmp_path / "held")
    plain = train_and_evaluate(tiny_config(), tmp_path / "plain")
    own = record.keys() - plain.keys()
    assert own == named(TEXT, "Noisy labels").keys()
    assert plain.keys() < record.keys()
    half = (record["train_clean_loss"] + record["train_noisy_loss"]) / 2
    assert record["train_loss"] == pytest.approx(half, rel=1e-5)
    trained = load_trained(tmp_path / "held")[1]
    none = evaluate_sets(trained.program, trained.data, trained.state, ("test",))
    assert all(np.isnan(none[name]) for name in own)
    # Streamed, the same labels come as they are read.
    streamed = train_and_evaluate(
        tiny_config(**changes, data__streaming="always"), tmp_path / "streamed"
    )
    assert streamed == pytest.approx(record, rel=1e-5)
    assert record["train_noisy_loss"] != pytest.approx(record["train_clean_loss"], rel=1e-3)


@pytest.mark.parametrize("batch_size", [7, N])
@pytest.mark.parametrize("fill", [True, False])
def test_top_k_accuracies_are_those_of_the_sorted_logits(batch_size, fill):
    images, labels, weights = random_set()
    logits = images.reshape(N, -1) @ weights
    rank = np.sum(logits > logits[np.arange(N), labels][:, None], axis=1)

    def logits_fn(batch):
        return batch.reshape(len(batch), -1).astype(jnp.float64) @ weights

    with jax.enable_x64(True):
        result = evaluate_set(
            logits_fn,
            jnp.asarray(images),
            jnp.asarray(labels),
            batch_size,
            fill=fill,
            top_k=(1, 2, 4),
        )
    first, second, all_classes = map(float, result.top_k_accuracies)
    assert first == float(result.accuracy) and all_classes == 1
    assert second == pytest.approx(np.mean(rank < 2)) and first < second < 1


def test_of_equal_logits_the_first_count_as_larger_and_nan_says_nothing():
    labels, images = jnp.array([0, 1, 2, 3]), jnp.zeros((4, 1, 1, 1), jnp.uint8)
    equal = evaluate_set(lambda batch: jnp.zeros((len(batch), 4)), images, labels, 4, top_k=(2,))
    assert float(equal.accuracy) == 0.25 and float(equal.top_k_accuracies[0]) == 0.5
    unknown = evaluate_set(
        lambda batch: jnp.full((len(batch), 4), jnp.nan), images, labels, 4, top_k=(2,)
    )
    assert np.isnan(unknown.top_k_accuracies[0])
