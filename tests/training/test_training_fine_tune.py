"""Fine-tuning: what is restored and what is not, and a run that was cut."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_problems import assert_same_bits, tiny_config

from sam_jax import optim
from sam_jax.runs import checkpoints
from sam_jax.training import build
from sam_jax.training.device_data import replicated
from sam_jax.training.fine_tune import fitted, starting_state
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained

FEATURES = {"model__features": (4, 4), "model__strides": (2, 1)}


@pytest.fixture(scope="module")
def source_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("source")
    changes = {"checkpoint__every_epochs": 1, "checkpoint__keep": 2}
    train_and_evaluate(tiny_config(seed=3, **FEATURES, **changes), workdir)
    return workdir


def start(workdir, **changes):
    """Return the state before the first step, and that of a run that starts anew."""
    config = tiny_config(**FEATURES | changes)
    build.check(config)
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    key = jax.random.key(config.seed)
    return starting_state(config.fine_tune, program, key, workdir), program.init(key)


def equal(a, b):
    return jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_the_same_model_is_restored_whole_and_the_optimiser_anew(tmp_path, source_run, epoch):
    changes = {"fine_tune__workdir": str(source_run), "fine_tune__epoch": epoch}
    state, fresh = start(tmp_path, **changes, optimiser__name="adamw", method__name="none")
    before = load_trained(source_run, epoch or None)[1].state
    assert_same_bits(state.params, before.params)
    assert_same_bits(state.batch_stats, before.batch_stats)
    assert not jax.tree.all(equal(state.params, fresh.params))
    assert_same_bits(state.optimiser_state, fresh.optimiser_state)
    assert int(state.step) == 0
    report = json.loads((tmp_path / "fine_tune.json").read_text())
    wanted = {"workdir": str(source_run), "epoch": epoch or 2, "averaged": False}
    assert report == wanted | {"not_restored": [], "unused": []}


def test_what_does_not_fit_stays_fresh_and_is_listed(tmp_path, source_run):
    changes = {"fine_tune__workdir": str(source_run), "data__name": "cifar100"}
    state, fresh = start(tmp_path, **changes)
    before = load_trained(source_run)[1].state
    new = {"conv0/kernel", "classifier/dense/kernel", "classifier/dense/bias"}  # colours, classes
    report = json.loads((tmp_path / "fine_tune.json").read_text())
    assert {item["name"] for item in report["not_restored"]} == {f"params/{n}" for n in new}
    assert set(report["unused"]) == {f"params/{n}" for n in new}
    kernel = {"name": "params/conv0/kernel", "shape": [3, 3, 3, 4], "saved_shape": [3, 3, 1, 4]}
    assert kernel in report["not_restored"]
    for name in ("conv0", "classifier"):
        assert_same_bits(state.params[name], fresh.params[name])
    for name in ("conv1", "norm0", "norm1"):
        assert_same_bits(state.params[name], before.params[name])
    assert_same_bits(state.batch_stats, before.batch_stats)


def test_a_place_without_a_saved_name_and_the_dtype_of_the_place():
    fresh = {"a": {"b": jnp.zeros(2, jnp.bfloat16)}, "c": jnp.zeros(3)}
    result = fitted(fresh, {"a": {"b": np.full(2, 1.5), "d": np.ones(1)}})
    found = result.tree["a"]["b"]
    assert found.dtype == jnp.bfloat16 and found.tolist() == [1.5, 1.5]
    assert result.not_restored == [{"name": "c", "shape": [3], "saved_shape": None}]
    assert result.unused == ["a/d"]


def test_a_run_that_averages_weights_hands_the_average_on(tmp_path):
    average = {"weight_average__name": "ema", "weight_average__decay": 0.5}
    config = tiny_config(**FEATURES, **average)
    train_and_evaluate(config, tmp_path / "source")
    state, _ = start(tmp_path, fine_tune__workdir=str(tmp_path / "source"))
    _, trained = load_trained(tmp_path / "source")
    wanted = optim.averaged_params(trained.state.optimiser_state, trained.state.params)
    assert_same_bits(state.params, wanted)
    _, saved = checkpoints.read(tmp_path / "source", None, replicated())
    assert not jax.tree.all(equal(state.params, saved["params"]))
    assert json.loads((tmp_path / "fine_tune.json").read_text())["averaged"]


@pytest.mark.e2e
def test_a_cut_run_equals_an_uninterrupted_one_without_the_source(tmp_path, source_run):
    other = tmp_path / "other"
    shutil.copytree(source_run, other)
    changes = {"checkpoint__every_epochs": 1, "checkpoint__keep": 9, "epochs": 3}
    config = tiny_config(**FEATURES, **changes, fine_tune__workdir=str(other))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    record = train_and_evaluate(config, whole)
    anew = train_and_evaluate(tiny_config(**FEATURES, **changes), tmp_path / "anew")
    assert record["batch_loss"] != anew["batch_loss"]
    shutil.copytree(whole, cut)
    for epoch in (2, 3):
        shutil.rmtree(cut / "checkpoints" / str(epoch))
    shutil.rmtree(other)
    assert str(train_and_evaluate(config, cut)) == str(record)
    assert_same_bits(load_trained(cut)[1].state, load_trained(whole)[1].state)
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model__features": (5, 5)}, ValueError, "No kernel of the run in .* has the name and"),
        ({"fine_tune__epoch": 7}, FileNotFoundError, "holds no checkpoint of epoch 7"),
        ({"fine_tune__workdir": "nowhere"}, FileNotFoundError, "'nowhere' holds no checkpoint"),
        (
            {"fine_tune__epoch": -1},
            ValueError,
            "fine_tune.epoch must be a whole number from 0 on, got -1",
        ),
        (
            {"fine_tune__workdir": "", "fine_tune__epoch": 1},
            ValueError,
            "fine_tune.epoch = 1 needs fine_tune.workdir",
        ),
    ],
)
def test_what_cannot_be_started_from_is_named(tmp_path, source_run, changes, error, message):
    with pytest.raises(error, match=message):
        start(tmp_path, **{"fine_tune__workdir": str(source_run)} | changes)
    assert not (tmp_path / "fine_tune.json").exists()


def test_a_run_cannot_start_from_itself(source_run):
    with pytest.raises(ValueError, match="fine_tune.workdir = .* is the folder of this run itself"):
        start(source_run, fine_tune__workdir=str(source_run))
