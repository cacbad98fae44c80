"""Examples held out of the training set: which they are, and what a run records of them."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_problems import assert_same_bits, tiny_config

from sam_jax.data import load_with_validation, streaming
from sam_jax.data.loading import _training_rows
from sam_jax.measuring import measure
from sam_jax.runs import records
from sam_jax.training import build
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_parts_are_disjoint_and_evenly_spaced(data):
    total = data.draw(st.integers(2, 300))
    held = data.draw(st.integers(0, total - 1))
    wanted = data.draw(st.integers(0, total - held))
    train, held_out = _training_rows("set", wanted, held, total)
    assert len(set(train)) == len(train) == (wanted or total - held)
    assert len(set(held_out)) == len(held_out) == held
    assert not set(train) & set(held_out) and set(train) | set(held_out) <= set(range(total))
    # The examples held out do not depend on how many are trained on.
    assert np.array_equal(held_out, _training_rows("set", 0, held, total)[1])
    for rows in (train, held_out):
        assert (np.diff(rows) > 0).all()
    if held > 1:  # spaced alike, to within one
        gaps = np.diff(held_out)
        assert gaps.max() - gaps.min() <= 1


def test_a_set_with_examples_held_out():
    _, whole = build.load_data(tiny_config())
    _, parts = build.load_data(tiny_config(data__validation_examples=4))
    held_out = [0, 21, 42, 63]
    images, labels = np.asarray(whole.train_images), np.asarray(whole.train_labels)
    assert np.array_equal(parts.validation_images, images[held_out])
    assert np.array_equal(parts.validation_labels, labels[held_out])
    others = np.delete(np.arange(64), held_out)
    assert np.array_equal(parts.train_images, images[others])
    assert np.array_equal(parts.test_images, whole.test_images)
    assert whole.validation_images is None
    _, few = build.load_data(tiny_config(data__validation_examples=4, data__train_examples=10))
    assert np.array_equal(few.validation_images, parts.validation_images)
    assert len(few.train_labels) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_examples": 64}, "data.validation_examples = 64, but digits has 64 training"),
        (
            {"validation_examples": 4, "train_examples": 61},
            "data.train_examples = 61, but digits has 60 training examples besides the 4",
        ),
    ],
)
def test_too_many_examples_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build.load_data(tiny_config(**{f"data__{k}": v for k, v in changes.items()}))
    with pytest.raises(ValueError, match="validation_examples must be 0 or positive, got -1"):
        load_with_validation("digits", validation_examples=-1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "data__validation_examples",
            -1,
            "data.validation_examples must be a whole number from 0 on, got -1",
        ),
        ("evaluation__top_k", (5, 1), "evaluation.top_k must be a tuple .* from 2 on, got"),
        ("evaluation__top_k", (2.5,), "evaluation.top_k must be .*from 2 on, got .2.5"),
    ],
)
def test_a_wrong_field_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        build.check(tiny_config(**{field: value}))


def test_a_top_k_above_the_number_of_classes_is_refused():
    config = tiny_config(evaluation__top_k=(5, 11))
    source, data = build.load_data(config)
    with pytest.raises(ValueError, match="evaluation.top_k must be at most the 10 classes"):
        build.make_program(config, source, len(data.train_labels))


def test_what_a_run_records_of_them(tmp_path):
    changes = {"evaluation__top_k": (2, 5), "evaluation__test_every_epochs": 0}
    config = tiny_config(data__validation_examples=30, **changes)
    record = train_and_evaluate(config, tmp_path)
    _, trained = load_trained(tmp_path)
    variables = {"params": trained.state.params, "batch_stats": trained.state.batch_stats}
    images = trained.program.inputs(trained.data.validation_images)
    logits = np.asarray(trained.program.model.apply(variables, images, train=False))
    labels = np.asarray(trained.data.validation_labels)
    rank = np.sum(logits > logits[np.arange(30), labels][:, None], axis=1)
    losses = np.asarray(-jax.nn.log_softmax(logits))[np.arange(30), labels]
    assert record["validation_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert record["validation_accuracy"] == pytest.approx(np.mean(rank < 1))
    assert record["validation_top2_accuracy"] == pytest.approx(np.mean(rank < 2))
    assert record["validation_top5_accuracy"] == pytest.approx(np.mean(rank < 5))
    assert record["step"] == 2  # 34 examples are one batch of 32, twice
    first, last = records.read(tmp_path / "metrics.jsonl")
    assert first.keys() == last.keys() and math.isnan(first["validation_top5_accuracy"])
    assert last["test_top5_accuracy"] >= last["test_top2_accuracy"] >= last["test_accuracy"]
    (measured,) = measure.measure_run(tmp_path, measures=("evaluation",))
    assert measured["validation_loss"] == record["validation_loss"]
    # A run without either has none of the fields.
    plain = train_and_evaluate(tiny_config(), tmp_path / "plain")
    assert not [name for name in plain if "validation" in name or "top" in name]


@pytest.mark.e2e
def test_a_streamed_run_holds_out_the_same_examples(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 10 * 64)  # blocks of ten digits
    states, found = [], []
    for how in ("never", "always"):
        changes = {"data__streaming": how, "data__validation_examples": 25, "batch_size": 8}
        config = tiny_config(**changes, data__train_examples=30, evaluation__batch_size=4)
        found.append(train_and_evaluate(config, tmp_path / how))
        states.append(load_trained(tmp_path / how)[1].state)
    assert_same_bits(*states)
    for name, number in found[0].items():
        assert found[1][name] == pytest.approx(number, rel=1e-5, nan_ok=True), name
