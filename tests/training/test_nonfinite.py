"""Numbers that are not finite: a training stops at their step, skips it, or goes on."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from jax.sharding import Mesh
from training_problems import Linear, assert_same_bits, make_sgd, random_batch, tiny_config

from sam_jax import optim
from sam_jax.runs import records
from sam_jax.training import losses
from sam_jax.training.nonfinite import NonFiniteStepError, growth, watch_steps
from sam_jax.training.replay import NonFiniteError
from sam_jax.training.replay_run import lines, replay_run
from sam_jax.training.step import (
    DEVICES,
    StepMetrics,
    TrainState,
    make_run_steps,
    order_after_previous,
    train_step,
)
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained

eight_devices = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
# Weight decay alone multiplies the weights by about 1e4 a step, so that the loss overflows in the
# second epoch of four steps.
GROWING = {
    "optimiser__learning_rate": 1e2,
    "optimiser__weight_decay": 1e2,
    "optimiser__momentum": 0.0,
    "optimiser__schedule": "constant",
    "optimiser__clip_norm": 1.0,
}


def run_of(rows, images, labels, method, skip, learning_rate=0.1):
    """The state and the metrics of a call of one step a row, on one device."""
    model, optimiser = Linear(), make_sgd(learning_rate, momentum=0.9)
    over_devices = optim.m_sam(method, m=4, axis_name=DEVICES)
    params = model.init(jax.random.key(1), images[:1])["params"]
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero, params, {}, over_devices.init(params), optimiser.init(params))

    def step(state, inputs, traced):
        def functions(stats):
            return losses.make_functions(model, stats)

        return train_step(state, inputs, functions, over_devices, optimiser, skip_nonfinite=skip)

    mesh = Mesh(np.array(jax.devices()[:1]), (DEVICES,))
    run_steps = make_run_steps(step, lambda key, images: images, mesh)
    order = jnp.asarray([rows[0], *rows], jnp.int32)
    return run_steps(state, images, labels, order, jax.random.key(0), {})


@pytest.mark.parametrize(
    "method",
    [optim.sam(0.1), optim.looksam(0.1, 2, 0.2), optim.average_sam(0.1, key=jax.random.key(3))],
    ids=["sam", "looksam", "average_sam"],
)
def test_a_skipped_step_changes_nothing_but_its_number(method):
    images, labels = map(jnp.asarray, random_batch(16))
    images = images.astype(jnp.float32).at[6].set(jnp.nan)  # of the second batch
    rows = np.arange(16).reshape(4, 4)
    state, metrics = run_of(rows, images, labels, method, skip=True)
    expected, _ = run_of(rows[[0, 2, 3]], images, labels, method, skip=True)
    np.testing.assert_array_equal(metrics.finite, [True, False, True, True])
    np.testing.assert_array_equal(metrics.skipped, [False, True, False, False])
    assert int(state.step) == 4 and int(expected.step) == 3
    assert_same_bits(state._replace(step=0 * state.step), expected._replace(step=0 * state.step))
    spoilt, metrics = run_of(rows, images, labels, method, skip=False)
    np.testing.assert_array_equal(metrics.finite, [True, False, False, False])
    assert not metrics.skipped.any() and np.isnan(spoilt.params["dense"]["kernel"]).any()


@pytest.mark.parametrize("skip", [False, True])
def test_an_update_that_overflows_is_seen_at_the_end_of_a_call(skip):
    images, labels = map(jnp.asarray, random_batch(8))
    images = 100 * images.astype(jnp.float32)
    rows = np.arange(8).reshape(2, 4)
    state, metrics = run_of(rows[:1], images, labels, optim.sam(0.1), skip, learning_rate=3e38)
    assert np.isfinite(metrics.loss[0]) and np.isfinite(metrics.gradient_norm[0])
    np.testing.assert_array_equal(metrics.finite, [False])
    assert bool(np.isfinite(state.params["dense"]["kernel"]).all()) is skip


def test_a_run_stops_at_its_step_and_can_be_replayed(tmp_path):
    config = tiny_config(epochs=4, batch_size=16, checkpoint__every_epochs=1, **GROWING)
    with pytest.raises(NonFiniteError, match="stopped at step") as error:
        train_and_evaluate(config, tmp_path)
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    step, epoch = found["step"], found["epoch"]
    assert epoch == (step - 1) // 4 + 1 > 1
    assert not math.isfinite(found["loss"] + found["gradient_norm"])
    # What came before is kept, and nothing of the epoch is written.
    assert [record["epoch"] for record in records.read(tmp_path / "metrics.jsonl")] == [
        *range(1, epoch)
    ]
    assert found["checkpoint_epoch"] == load_trained(tmp_path)[1].epoch == epoch - 1
    order = order_after_previous(jax.random.key(config.seed), epoch - 1, 64, 16)
    assert found["indices"] == order[step - 4 * (epoch - 1)].tolist()
    first = found["first"]
    for text in (f"step {step}", first["quantity"], f"checkpoint of epoch {epoch - 1} stays"):
        assert text in str(error.value)
    # The replay finds the same, and everything before it finite.
    steps = replay_run(tmp_path)
    quantities = [(s.step, quantity) for s in steps for quantity in s.quantities]
    place = next(i for i, (_, quantity) in enumerate(quantities) if quantity.nonfinite)
    at, quantity = quantities[place]
    assert (at, quantity.name, list(quantity.nonfinite)) == (
        first["step"],
        first["quantity"],
        first["paths"],
    )
    shown = [line for s in steps for line in lines(s)]
    assert f"step {step}" in shown and sum("not finite" in line for line in shown) > 3
    # Another choice needs no leave to go on; what has been written stays, and the file goes.
    config.on_nonfinite = "skip"
    last = train_and_evaluate(config, tmp_path)
    assert last["skipped_steps"] == last["nonfinite_steps"] == 4 and last["step"] == 16
    assert math.isnan(last["batch_loss"]) and math.isfinite(last["start_loss"])
    assert all(
        np.isfinite(x).all() for x in jax.tree.leaves(load_trained(tmp_path)[1].state.params)
    )
    assert not (tmp_path / "nonfinite.json").exists()
    with pytest.raises(FileNotFoundError, match="no nonfinite.json, so no step stopped it"):
        replay_run(tmp_path)


def test_a_replay_names_the_parameter_where_a_gradient_overflows(tmp_path):
    config = tiny_config(epochs=1, batch_size=16, method__name="none", **GROWING)
    config.optimiser.weight_decay, config.optimiser.learning_rate = 100.0, 3e38
    with pytest.raises(NonFiniteError, match="the update at .*/.* in step 1. There is no checkp"):
        train_and_evaluate(config, tmp_path)


def test_a_run_that_goes_on_counts_and_says_it(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    config = tiny_config(epochs=3, batch_size=16, on_nonfinite="continue", **GROWING)
    train_and_evaluate(config, tmp_path)
    history = records.read(tmp_path / "metrics.jsonl")
    assert [record["nonfinite_steps"] for record in history][0::2] == [0, 4]
    assert [record["skipped_steps"] for record in history] == [0, 0, 0]
    assert math.isnan(history[-1]["batch_loss"])  # never averaged away
    assert history[-1]["diverged"] and len({record["start_loss"] for record in history}) == 1
    diverged = [text for text in said if "diverges" in text]
    assert len(diverged) == 1 and "was 2." in diverged[0]  # once, and log 10 at the start
    assert any(text.endswith("; 4 of 4 steps are not finite.") for text in said)


@pytest.mark.devices
@eight_devices
@pytest.mark.parametrize(
    "form",
    [{"step_form": "shard_map"}, {"step_form": "jit", "split_parameters": ("data",)}],
    ids=["shard_map", "split"],
)
def test_skips_on_devices_go_on_bit_for_bit(tmp_path, form):
    changes = {"batch_size": 16, "checkpoint__every_epochs": 1, "checkpoint__keep": 9}
    config = tiny_config(epochs=3, on_nonfinite="skip", **changes, **GROWING)
    for name, value in form.items():
        config[name] = value
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_and_evaluate(config, whole)
    history = records.read(whole / "metrics.jsonl")
    assert history[0]["skipped_steps"] == 0 and history[-1]["skipped_steps"] == 4
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "3")
    train_and_evaluate(config, cut)
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    states = [load_trained(folder, epoch)[1].state for folder, epoch in ((whole, 3), (cut, 3))]
    assert_same_bits(*states)
    _, second = load_trained(whole, 2)
    assert_same_bits(states[0].params, second.state.params)
    before, step = replay_run(whole, 12)
    assert (before.step, step.step) == (11, 12) and step.first_nonfinite() is not None
    assert len(step.quantities) > 10 and step.quantities[0].nonfinite == ()


@pytest.mark.parametrize(
    ("loss", "factor", "diverged"),
    [(19.0, 10.0, False), (21.0, 10.0, True), (math.nan, 10.0, True), (1e9, 0.0, False)],
)
def test_what_diverges(loss, factor, diverged):
    assert growth(2.0, loss, factor) == (2.0, diverged)


def test_the_first_step_of_a_call_is_named():
    numbers = jnp.array([1.0, jnp.inf, jnp.nan])
    metrics = StepMetrics(numbers, numbers, numbers, numbers, jnp.isfinite(numbers), numbers < 0)
    with pytest.raises(NonFiniteStepError, match="step 12 has the loss inf"):
        watch_steps("stop")(10, metrics)
    watch_steps("skip")(10, metrics)
    watch_steps("stop")(10, metrics._replace(finite=jnp.ones(3, bool)))
