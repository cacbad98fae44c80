"""Runs, measurements, curves, ensembles and lines that an earlier version wrote are still read.

Each of them is whole: whoever calls for it again gets it from the files, and no file changes.
"""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from training_problems import tiny_config

from sam_jax.measuring import landscapes, measure
from sam_jax.paths import collect_members, evaluate_curve, find_curve
from sam_jax.runs import records
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained

WORKDIRS = pathlib.Path(__file__).parents[1] / "runs/workdirs"


def contents(folder):
    """The bytes of all files but the configs, to which a later version adds its fields."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "config.json")
    names = {path.relative_to(folder): path.read_bytes() for path in files}
    return {name: data for name, data in names.items() if "tensorboard" not in name.parts}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shutil.copytree(WORKDIRS, tmp_path_factory.mktemp("old") / "workdirs")


@pytest.fixture(scope="module")
def trained(folder):
    return [load_trained(folder / name)[1] for name in ("trained", "other")]


@pytest.fixture(autouse=True)
def nothing_is_written(folder):
    before = contents(folder)
    yield
    assert contents(folder) == before


@pytest.mark.parametrize(("name", "seed"), [("trained", 0), ("other", 1)])
def test_a_run_is_whole_and_has_the_losses_of_its_record(folder, name, seed):
    last = records.read(folder / name / "metrics.jsonl")[-1]
    assert train_and_evaluate(tiny_config(seed=seed), folder / name) == last
    _, run = load_trained(folder / name)
    (again,) = measure.measurements(run, tiny_config(seed=seed).instruments, (), ("evaluation",))
    # Another processor may round otherwise.
    assert again.take()["test_loss"] == pytest.approx(last["test_loss"], rel=1e-5)


def test_what_was_measured_is_not_measured_again(folder):
    found = measure.measure_run(folder / "trained", presets=("sound", "published"))
    held = records.read(folder / "trained" / measure.EVALUATIONS)
    assert len(found) == len(held) > 20
    assert all(record in held for record in found)


def test_a_curve(folder, trained):
    settings = find_curve.CurveSettings(epochs=2, batch_size=16)
    controls = find_curve.find_curve(*trained, folder / "curve", settings)
    found = evaluate_curve.evaluate_curve(
        trained[0], controls, points=3, path=folder / "curve/points.jsonl"
    )
    assert np.shape(found.positions) == (3,)


def test_an_ensemble(folder, trained):
    settings = collect_members.EnsembleSettings(epochs=2, cycle_epochs=2, batch_size=16)
    members = collect_members.collect_members(trained[0], folder / "ensemble", settings)
    assert {len(leaf) for leaf in jax.tree.leaves(members)} == {1}


def test_a_line(folder, trained):
    params = trained[0].state.params
    distances = np.linspace(-1, 1, 3)
    line = landscapes.measure_line(trained[0], params, distances, folder / "line.jsonl")
    np.testing.assert_array_equal(line.distances, distances)
