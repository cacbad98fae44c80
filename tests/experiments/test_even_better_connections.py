"""A connection of two models that are not trained: cut in the middle of an evaluation."""

import jax
import pytest

from configs.even_better import digits
from experiments.even_better import arms
from experiments.even_better.run import connection
from sam_jax.runs import records
from sam_jax.training import build
from sam_jax.training.trained import Trained


@pytest.fixture(scope="module")
def config():
    return digits.get_config("smoke")


@pytest.fixture
def connect(config, monkeypatch):
    """Return `connect(workdir)`, with models of two seeds in the place of the trained ones."""
    pair = arms.plan(config).pairs[0]
    config.curve.points = 10  # two lines of a file on eight devices
    source, data = build.load_data(config.training)
    program = build.make_program(config.training, source, len(data.train_labels))

    def load_trained(folder):
        seed = [model.name for model in pair].index(folder.parent.name)
        state = program.init(jax.random.key(seed))
        return config.training, Trained(state, program, data, source, epoch=1)

    monkeypatch.setattr(connection, "load_trained", load_trained)
    return lambda workdir: connection.run_connection(config, workdir, pair, (1, 1), 0, "curve")


def files(workdir):
    return {path.name: path.read_bytes() for path in workdir.glob("curves/*/seed_0/*.jsonl")}


@pytest.mark.devices
@pytest.mark.parametrize("cut_shape", ["curve", "line"])
def test_a_cut_evaluation_goes_on_where_it_was(connect, tmp_path, monkeypatch, cut_shape):
    connect(tmp_path / "whole")
    whole = files(tmp_path / "whole")
    assert whole.keys() == {"records.jsonl", "plane.jsonl"}
    append, written = records.append, []

    def cut(path, record, **options):
        if path.name == f"{cut_shape}.jsonl" and record.get("first_point") == 8:
            raise KeyboardInterrupt
        append(path, record, **options)

    def note(path, record, **options):
        written.append((path.name, record.get("first_point")))
        append(path, record, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records, "append", cut)
        connect(tmp_path / "cut")
    assert f"{cut_shape}.jsonl" in files(tmp_path / "cut")
    monkeypatch.setattr(records, "append", note)
    connect(tmp_path / "cut")
    assert files(tmp_path / "cut") == whole
    measured = [first for name, first in written if name == f"{cut_shape}.jsonl"]
    assert measured == [8]
    # What is finished is not touched.
    written.clear()
    connect(tmp_path / "cut")
    assert written == []


def test_points_of_another_config_are_measured_anew(config, connect, tmp_path):
    connect(tmp_path)
    [folder] = tmp_path.glob("curves/*/seed_0")
    (folder / "records.jsonl").unlink()
    records.append(folder / "curve.jsonl", {"measure": "curve", "positions": [0.0, 1.0]})
    with pytest.raises(ValueError, match="another measurement"):
        connect(tmp_path)  # the same config did not leave this
    config.curve.points = 11
    connect(tmp_path)
    assert [len(r["positions"]) for r in records.read(folder / "records.jsonl")] == [11, 11]


def test_the_augmentation_is_that_of_the_first_model(connect, tmp_path):
    connect(tmp_path)
    [path] = tmp_path.glob("curves/*/seed_0/training/config.json")
    assert '"augmentation": "crop_zero; pad 1, cutout 4"' in path.read_text()


def test_more_than_one_bend_lies_off_the_plane():
    config = digits.get_config("smoke")
    config.curve.bends = 2
    with pytest.raises(ValueError, match=r"curve.bends must be 1, got 2"):
        arms.plan(config)
