"""A set that streams from disk trains the model that it trains in memory, bit for bit."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from training_problems import assert_same_bits, tiny_config

from sam_jax.data import streaming
from sam_jax.measuring import measure
from sam_jax.training import build
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained

pytestmark = pytest.mark.e2e  # whole trainings
TINY = {"data__name": "tiny_shapes", "data__synthetic_examples": 0, "batch_size": 8}


def train(workdir, streaming, **changes):
    """The record of a run, and its model as it is evaluated."""
    record = train_and_evaluate(tiny_config(data__streaming=streaming, **changes), workdir)
    return record, load_trained(workdir)[1]


def assert_close_records(streamed, held):
    """Sums over blocks are rounded otherwise: by 1e-7 for each of few batches."""
    assert streamed.keys() == held.keys()
    for name in held:
        assert streamed[name] == pytest.approx(held[name], rel=1e-5, nan_ok=True), name


@pytest.mark.parametrize(
    ("method", "m", "steps_per_call"),
    [
        ("sam", 0, 0),
        ("previous_batch_sam", 8, 3),  # also where the batch before is in the block before
        ("saf", 8, 0),  # remembers its predictions of each example
    ],
)
def test_a_streamed_run_equals_one_in_memory(tmp_path, method, m, steps_per_call, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 40 * 64)  # five batches of digits; 8 an epoch
    changes = {"method__name": method, "method__m": m, "batch_size": 8}
    changes["steps_per_call"] = steps_per_call
    held_record, held = train(tmp_path / "held", "never", **changes)
    record, streamed = train(tmp_path / "streamed", "always", **changes)
    assert isinstance(streamed.data.train_images, streaming.StreamedColumn)
    assert_same_bits(streamed.state, held.state)
    assert_close_records(record, held_record)
    # Negative control: with other batches it is another model.
    _, other = train(tmp_path / "other", "always", **changes, seed=1)
    with pytest.raises(AssertionError):
        assert_same_bits(other.state, held.state)


@pytest.mark.parametrize("name", ["swa", "ema"])
def test_statistics_of_averaged_weights_are_those_of_the_whole_set(tmp_path, name, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 40 * 64)
    changes = {"weight_average__name": name, "weight_average__start": 0.5, "batch_size": 16}
    changes["evaluation__train_every_epochs"] = 1
    held_record, held = train(tmp_path / "held", "never", **changes)
    record, streamed = train(tmp_path / "streamed", "always", **changes)
    assert_same_bits(streamed.state.params, held.state.params)
    assert_same_bits(streamed.state.optimiser_state, held.state.optimiser_state)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        *(x.state.batch_stats for x in (streamed, held)),
    )
    assert_close_records(record, held_record)


def test_a_streamed_run_that_was_cut_equals_an_uninterrupted_one(tiny_tfds_dir, tmp_path):
    changes = TINY | {"data__data_dir": str(tiny_tfds_dir), "epochs": 3}
    changes |= {"checkpoint__every_epochs": 1, "checkpoint__keep": 9}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    record, trained = train(whole, "always", **changes)
    shutil.copytree(whole, cut)
    for epoch in (2, 3):
        shutil.rmtree(cut / "checkpoints" / str(epoch))
    resumed_record, resumed = train(cut, "always", **changes)
    assert_same_bits(resumed.state, trained.state)
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert str(resumed_record) == str(record)


def test_a_set_of_several_sizes_is_trained_on_and_a_cut_run_goes_on(tiny_imagenet_dir, tmp_path):
    changes = TINY | {"data__name": "imagenet2012", "data__data_dir": str(tiny_imagenet_dir)}
    changes |= {"data__image_size": 16, "epochs": 3, "checkpoint__every_epochs": 1}
    changes |= {"checkpoint__keep": 9, "method__name": "previous_batch_sam"}
    whole, cut, other = (tmp_path / name for name in ("whole", "cut", "other"))
    _, trained = train(whole, "auto", **changes)
    assert isinstance(trained.data.train_images, streaming.StreamedColumn)
    shutil.copytree(whole, cut)
    for epoch in (2, 3):
        shutil.rmtree(cut / "checkpoints" / str(epoch))
    _, resumed = train(cut, "auto", **changes)
    assert_same_bits(resumed.state, trained.state)
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    # A call takes as many steps as it likes.
    _, in_pieces = train(tmp_path / "pieces", "auto", **changes, steps_per_call=4)
    assert_same_bits(in_pieces.state, trained.state)
    _, reseeded = train(other, "auto", **changes, seed=1)  # negative control
    with pytest.raises(AssertionError):
        assert_same_bits(reseeded.state, trained.state)


def run_processes(processes):
    """What each of so many processes printed, which share two devices."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    here = pathlib.Path(__file__).parent
    path = os.pathsep.join(map(str, (here.parents[1], here.parent)))
    devices = f"--xla_force_host_platform_device_count={2 // processes}"
    running = [
        subprocess.Popen(
            [sys.executable, here / "streamed_process.py", *map(str, (index, processes, port))],
            env=os.environ | {"PYTHONPATH": path, "XLA_FLAGS": devices},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    outputs = [process.communicate(timeout=300) for process in running]
    assert not any(process.returncode for process in running), outputs
    return [json.loads(out.strip().splitlines()[-1]) for out, _ in outputs]


@pytest.mark.commands
def test_two_processes_read_half_of_every_batch_and_set_and_train_the_same_model():
    (alone,) = run_processes(1)
    together = run_processes(2)
    assert alone.pop("reads") == 8 * (1 + 8)  # the first batch also stands before itself
    assert [x.pop("reads") for x in together] == [4 * (1 + 8)] * 2
    assert alone.pop("evaluated") == 16
    assert [x.pop("evaluated") for x in together] == [8, 8]
    # The mean of two numbers is the same in either order, so that the bits are.
    assert together == [alone, alone]


def test_a_set_that_no_file_names_is_trained_on_by_its_name(tiny_tfds_dir, tmp_path):
    changes = TINY | {"data__data_dir": str(tiny_tfds_dir), "epochs": 6}
    record, held = train(tmp_path / "held", "auto", **changes)
    assert isinstance(held.data.train_images, jax.Array)  # it is small
    assert held.data.train_images.shape == (72, 12, 10, 3)
    assert len(held.data.test_labels) == 21 and held.source.num_classes == 3
    assert record["test_accuracy"] > 0.6  # a third by chance
    _, streamed = train(tmp_path / "streamed", "always", **changes)
    assert_same_bits(streamed.state, held.state)


def test_a_streamed_model_is_measured_on_batches_and_refuses_what_needs_the_whole_set(tmp_path):
    held, streamed = (
        train(tmp_path / streaming, streaming, epochs=1)[1] for streaming in ("never", "always")
    )
    settings = tiny_config().instruments
    names = ("evaluation", "adversarial_sharpness", "average_sharpness")
    found, expected = (
        [x.take() for x in measure.measurements(trained, settings, ("sound",), names)]
        for trained in (streamed, held)
    )
    assert len(found) > 3
    for one, other in zip(found, expected, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), one, other)
    (refused, *_) = measure.measurements(streamed, settings, ("sound",), ("asymmetry_factor",))
    with pytest.raises(ValueError, match="all 64 examples on the device at once.*--measures="):
        refused.take()


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="data.streaming must be one of auto, never, always"):
        build.check(tiny_config(data__streaming="yes"))
