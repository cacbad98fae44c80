"""Loss lines and the plane of a training run, as `evaluate` measures and keeps them."""

import jax
import numpy as np
import pytest
from measured_models import (
    KEY,
    SAME,
    columns_are_numbers,
    make_loss_fn,
    make_settings,
    make_trained,
)
from records_readme import differences
from training_problems import tiny_config

from sam_jax import metrics
from sam_jax.measuring import landscapes
from sam_jax.measuring.measure import measure_run, measurements
from sam_jax.runs.randomness import stream
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that kept its four checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(epochs=4, checkpoint__keep=4, checkpoint__every_epochs=1)
    train_and_evaluate(config, folder)
    return folder


def test_loss_lines(tmp_path):
    trained, settings = make_trained(0), make_settings()
    settings.loss_line.update({"num_directions": 2, "limit": 0.5, "points": 3})
    (wanted,) = measurements(trained, settings, ("sound",), ("loss_line",), tmp_path)
    assert not list(tmp_path.iterdir())  # nothing before it is taken
    record = wanted.take()
    folder = tmp_path / record["folder"]
    assert {path.name for path in folder.iterdir()} == {
        *("line_0.jsonl", "line_0.crc32", "line_1.jsonl", "line_1.crc32"),
        *("losses.png", "losses.svg"),
    }
    loss_fn, params = jax.jit(make_loss_fn(trained, published=False)), trained.state.params

    def loss_at(params, directions, number, distance, examples):
        moved = jax.tree.map(lambda w, d: w + distance * d[number], params, directions)
        return loss_fn(moved, examples)

    sets = {
        "train_loss": (trained.data.train_images, trained.data.train_labels),
        "test_loss": (trained.data.test_images, trained.data.test_labels),
    }
    directions = metrics.random_directions(
        stream(KEY, "directions"), params, 2, "gaussian", "filter"
    )
    rises = {name: [] for name in sets}
    for number in range(2):
        line = landscapes.read_line(folder / f"line_{number}.jsonl")
        assert line.distances.tolist() == [-0.5, 0.0, 0.5] and line.batch_norm == "running"
        for name, examples in sets.items():
            expected = [loss_at(params, directions, number, t, examples) for t in line.distances]
            np.testing.assert_allclose(line.values[name], expected, **SAME)
            rises[name].append((expected[0] + expected[2]) / 2 - expected[1])
    for name, found in rises.items():
        assert record[f"mean_{name}_rise"] == pytest.approx(np.mean(found), rel=1e-3)
    assert abs(rises["train_loss"][0] - rises["train_loss"][1]) > 1e-4  # two directions
    whole = wanted.about | record
    assert columns_are_numbers(whole) and differences(whole) == []
    assert not wanted.about.keys() & record.keys()
    # Another seed of the directions has a folder of its own, and so has another policy.
    folders = {record["folder"]}
    for change in ({"seed": 12}, {"loss_line.batch_norm": "recalibrated"}):
        settings.update_from_flattened_dict(change)
        (wanted,) = measurements(trained, settings, ("sound",), ("loss_line",), tmp_path)
        folders.add(wanted.take()["folder"])
    assert len(folders) == 3


def test_the_plane_of_a_training_run(run):
    (record,) = measure_run(run, measures=("trajectory_plane",))
    assert record["checkpoints"] == [1, 2, 3, 4] and columns_are_numbers(record)
    assert differences(record) == []
    states = [load_trained(run, epoch)[1] for epoch in record["checkpoints"]]
    plane = metrics.trajectory_plane([trained.state.params for trained in states])
    np.testing.assert_allclose(record["coordinates"], plane.coordinates, rtol=1e-6, atol=1e-9)
    assert record["first_share"] == pytest.approx(plane.explained[0])
    assert record["first_share"] > record["second_share"] > 0
    folder = run / record["folder"]
    measured = landscapes.read_plane(folder / "plane.jsonl")
    assert measured.batch_norm == "recalibrated" and measured.values["train_loss"].shape == (3, 3)
    assert (folder / "train_loss.png").exists()
    low, high = np.min(record["coordinates"], axis=0), np.max(record["coordinates"], axis=0)
    assert (measured.xs[0] < low[0]) and (measured.xs[-1] > high[0])
    assert (measured.ys[0] < low[1]) and (measured.ys[-1] > high[1])
    # Its points are those of the plane through the last checkpoint.
    y, x = measured.ys[2], measured.xs[0]
    weights = jax.tree.map(
        lambda w, a, b: np.float32(w + x * a + y * b),
        plane.origin,
        plane.first_axis,
        plane.second_axis,
    )
    norm = sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(weights))
    assert measured.values["squared_norm"][2, 0] == pytest.approx(norm, rel=1e-5)
    before = (run / "evaluations.jsonl").read_bytes()
    assert measure_run(run, measures=("trajectory_plane",)) == [record]
    assert (run / "evaluations.jsonl").read_bytes() == before


def test_an_earlier_epoch_knows_no_later_checkpoint(run):
    trained = load_trained(run, 3)[1]
    settings = tiny_config().instruments
    (wanted,) = measurements(trained, settings, ("sound",), ("trajectory_plane",), run)
    assert wanted.about["checkpoints"] == [1, 2, 3]
    trained = load_trained(run, 2)[1]
    with pytest.raises(ValueError, match=r"at least 3 checkpoints.*\[1, 2\].*checkpoint.keep"):
        measurements(trained, settings, ("sound",), ("trajectory_plane",), run)


def test_lines_that_cannot_be_measured(tmp_path):
    trained, settings = make_trained(0), make_settings()
    with pytest.raises(ValueError, match="loss_line keeps files .*workdir"):
        measurements(trained, settings, ("sound",), ("loss_line",))
    settings.loss_line.points = 4
    with pytest.raises(ValueError, match="loss_line.points must be odd and at least 3.*got 4"):
        measurements(trained, settings, ("sound",), ("loss_line",), tmp_path)
