"""A damaged checkpoint is noticed, and a run goes on from the newest whole one."""

import json
import logging
import shutil

import jax
import ml_collections
import orbax.checkpoint as ocp
import pytest
from damaging import as_before, data_file, flip
from training_problems import assert_same_bits, tiny_config

from sam_jax.runs import checkpoint_damage, checkpoints, records, workdirs
from sam_jax.runs.checkpoint_damage import DamagedCheckpoint
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained

CONFIG = {
    "model__features": (16, 32),  # the store keeps checksums of its own of what is smaller
    "model__strides": (2, 1),
    "epochs": 3,
    "checkpoint__every_epochs": 1,
    "checkpoint__keep": 3,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three epochs, and one of another seed."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (("run", {}), ("other", {"seed": 5})):
        train_and_evaluate(tiny_config(**CONFIG, **changes), folder / name)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(finished / "run", tmp_path / "run")


def checkpoint(run, epoch=3):
    return run / "checkpoints" / str(epoch)


def test_a_flipped_bit_of_an_array_is_noticed(run):
    assert checkpoint_damage.find(checkpoint(run)) == ""
    flip(data_file(checkpoint(run)))
    assert checkpoint_damage.find(checkpoint(run))
    with pytest.raises(DamagedCheckpoint, match="kernel.* differ .*other checkpoints here: 1, 2"):
        load_trained(run)
    assert load_trained(run, 2)[1].epoch == 2
    # Negative control: without its checksums the same checkpoint is read as if it were whole.
    as_before(run)
    assert checkpoint_damage.find(checkpoint(run)) == ""
    assert load_trained(run)[1].epoch == 3


@pytest.mark.parametrize("damaged", [(3,), (3, 2), (3, 2, 1)])
def test_a_run_goes_on_from_the_newest_whole_checkpoint(finished, run, damaged, caplog):
    for epoch in damaged:
        flip(data_file(checkpoint(run, epoch)))
    record = train_and_evaluate(tiny_config(**CONFIG), run)
    assert record == records.read(finished / "run/metrics.jsonl")[-1]
    assert (run / "metrics.jsonl").read_bytes() == (finished / "run/metrics.jsonl").read_bytes()
    assert_same_bits(*(load_trained(folder)[1].state for folder in (run, finished / "run")))
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["1", "2", "3", *(f"damaged_{epoch}" for epoch in sorted(damaged))]
    instead = min(damaged) - 1
    where = f"the checkpoint of epoch {instead}" if instead else "its start"
    told = [r.getMessage() for r in caplog.records if "is kept in" in r.getMessage()]
    assert len(told) == len(damaged)
    assert all(f"goes on from {where}" in text for text in told)


def test_a_finished_run_is_done_while_its_checkpoint_is_whole(finished, run, monkeypatch):
    def train(*_):
        raise AssertionError("it is not done")

    monkeypatch.setattr(checkpoints, "open_manager", train)
    train_and_evaluate(tiny_config(**CONFIG), run)
    flip(data_file(checkpoint(run)))
    with pytest.raises(AssertionError, match="not done"):
        train_and_evaluate(tiny_config(**CONFIG), run)


def test_what_runs_of_a_study_have_in_common_is_read_once(finished, run, monkeypatch):
    """Reading it loses memory in the store below orbax, for ever."""
    read, metadata = [], ocp.PyTreeCheckpointHandler.metadata

    def count(handler, folder):
        read.append(folder)
        return metadata(handler, folder)

    monkeypatch.setattr(checkpoint_damage, "_READABLE", set())
    monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "metadata", count)
    for folder in (run, finished / "run", finished / "other"):
        assert checkpoint_damage.find(checkpoint(folder)) == ""
    assert len(read) == 1
    words = checkpoint(run) / "default" / "_METADATA"
    words.write_bytes(words.read_bytes()[:-100])
    assert "cannot be read" in checkpoint_damage.find(checkpoint(run))


def test_what_a_checkpoint_says_about_itself_is_checked(run):
    path = checkpoint(run) / "about/about.json"
    found = json.loads(path.read_text())
    found["about"]["config"]["seed"] = 7
    path.write_text(json.dumps(found))
    assert "differs from its own checksum" in checkpoint_damage.find(checkpoint(run))
    path.unlink()
    assert "about.json is missing" in checkpoint_damage.find(checkpoint(run))
    shutil.rmtree(path.parent)
    assert "about.json is missing" in checkpoint_damage.find(checkpoint(run))


def test_a_checkpoint_of_another_run_is_refused(finished, run):
    shutil.rmtree(checkpoint(run))
    shutil.copytree(checkpoint(finished / "other"), checkpoint(run))
    for call in (lambda: load_trained(run), lambda: train_and_evaluate(tiny_config(**CONFIG), run)):
        with pytest.raises(ValueError, match=r"another config .*seed \(was 5, is 0\)"):
            call()
    as_before(run)
    assert load_trained(run)[1].epoch == 3  # negative control


def test_a_config_that_was_edited_is_refused_where_it_changes_weights(run, caplog):
    path = run / "config.json"
    config = json.loads(path.read_text())
    config["instruments"]["hessian"]["steps"] = 9
    path.write_text(json.dumps(config))
    assert load_trained(run)[1].epoch == 3
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "change no weight: instruments.hessian.steps (was 3, is 9)" in told
    config["optimiser"]["momentum"] = 0.0
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"optimiser.momentum \(was 0.9, is 0.0\)"):
        load_trained(run)


def test_accepted_changes_of_the_config_stay_accepted(run):
    shutil.rmtree(checkpoint(run))
    longer = tiny_config(**(CONFIG | {"epochs": 4}))
    with pytest.raises(ValueError, match="belongs to a run with another config"):
        train_and_evaluate(longer, run)
    workdirs.claim(run, longer, accept_config_changes=True)  # and is cut
    assert load_trained(run)[1].epoch == 2
    assert train_and_evaluate(longer, run)["epoch"] == 4
    assert load_trained(run, 2)[1].epoch == 2


def test_checkpoints_of_before_go_on_and_are_tried(finished, run):
    as_before(run)
    assert checkpoints.is_whole(run, 3)
    data_file(checkpoint(run)).write_bytes(b"")
    assert "cannot be read" in checkpoint_damage.find(checkpoint(run))
    train_and_evaluate(tiny_config(**CONFIG), run)
    assert (run / "metrics.jsonl").read_bytes() == (finished / "run/metrics.jsonl").read_bytes()
    assert_same_bits(*(load_trained(folder)[1].state for folder in (run, finished / "run")))


def test_a_wrong_shape_is_no_damage(run):
    with checkpoints.open_manager(run, keep=None) as manager:
        with pytest.raises(ValueError) as error:
            checkpoints.restore(manager, {"w": jax.ShapeDtypeStruct((3,), "float32")}, 3)
    assert not isinstance(error.value, DamagedCheckpoint)
    assert checkpoint(run).is_dir()


def test_a_config_that_is_none(run):
    for text in ("{", "[]", '{"data": 3}', "\0" * 40):
        (run / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json is damaged, or no config"):
            load_trained(run)
    for text in ('{"data": {"name": []}}', '{"__import__": "os.system(1)"}'):
        (run / "config.json").write_text(text)
        with pytest.raises(ValueError, match="is of no training"):
            load_trained(run)
    train_and_evaluate(ml_collections.ConfigDict(tiny_config(**CONFIG)), run, "again", True)
