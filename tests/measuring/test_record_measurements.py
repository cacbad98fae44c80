"""Measurements are written as they come, and a cut run continues to the same file."""

import io
import json
import math
import time

import numpy as np
import pytest

from sam_jax.measuring.measure import Measurement, record_measurements
from sam_jax.runs import progress, records
from sam_jax.runs.records import digest

ABOUT = {"seed": 0, "settings": "abc"}


class Instruments:
    """Counts what is measured; number `broken` fails."""

    def __init__(self, broken=None):
        self.taken, self.broken = [], broken

    def measurements(self, count=4):
        return [
            Measurement({"measure": "m", "preset": "sound", "rho": k / 4}, self.take(k))
            for k in range(count)
        ]

    def take(self, number):
        def take():
            if number == self.broken:
                raise KeyboardInterrupt
            self.taken.append(number)
            return {"value": np.float32(number) / 3, "list": np.arange(2), "nan": math.nan}

        return take


@pytest.fixture
def complete(tmp_path):
    """The file of a run that was not cut."""
    path = tmp_path / "complete.jsonl"
    record_measurements(path, Instruments().measurements(), ABOUT, "model")
    return path


def test_every_measurement_is_written_with_what_it_is_about(tmp_path):
    path = tmp_path / "deep" / "records.jsonl"
    taken = record_measurements(path, Instruments().measurements(2), ABOUT, "model")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert repr(taken) == repr(lines)  # as text, where NaN equals itself
    third = float(np.float32(1) / 3)
    assert lines[1].pop("nan") != 0
    assert lines[1] == {
        **{"seed": 0, "settings": "abc", "measure": "m", "preset": "sound", "rho": 0.25},
        **{"value": third, "list": [0, 1], "not_finite": ["nan"]},
    }


def test_a_result_that_is_not_finite_says_where(tmp_path, caplog):
    def take():
        return {"factor": np.float32("nan"), "ratios": np.array([[1.0, 2.0], [np.inf, 1.0]])}

    measurement = Measurement({"measure": "asymmetry", "distance": 5.0}, take)
    (record,) = record_measurements(tmp_path / "r.jsonl", [measurement], {"seed": 1}, "epoch 3")
    assert record["not_finite"] == ["factor", "ratios[1][0]"]
    text = "epoch 3: asymmetry (seed 1, distance 5.0) is not finite at factor, ratios[1][0]."
    assert text in caplog.text
    finite = measurement._replace(about={"measure": "other"}, take=lambda: {"stderr": math.nan})
    (record,) = record_measurements(tmp_path / "r.jsonl", [finite], {"seed": 1}, "epoch 3")
    assert "not_finite" not in record  # a single draw has no standard error


def test_nothing_is_measured_twice(complete):
    before = complete.read_bytes()
    again = Instruments()
    records = record_measurements(complete, again.measurements(), ABOUT, "model")
    assert again.taken == [] and complete.read_bytes() == before
    assert [record["rho"] for record in records] == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("broken", range(4))
def test_a_run_that_fails_in_one_keeps_those_before_it(tmp_path, complete, broken):
    path = tmp_path / "records.jsonl"
    with pytest.raises(KeyboardInterrupt):
        record_measurements(path, Instruments(broken).measurements(), ABOUT, "model")
    again = Instruments()
    record_measurements(path, again.measurements(), ABOUT, "model")
    assert again.taken == list(range(broken, 4))
    assert path.read_bytes() == complete.read_bytes()


@pytest.mark.parametrize("kept", [0, 10, 100, 260, 400])
def test_a_run_that_was_cut_while_it_wrote(tmp_path, complete, kept):
    path = tmp_path / "records.jsonl"
    whole = complete.read_bytes()
    path.write_bytes(whole[:kept])
    again = Instruments()
    record_measurements(path, again.measurements(), ABOUT, "model")
    assert path.read_bytes() == whole
    assert len(again.taken) == 4 - whole[:kept].count(b"\n")


def test_what_is_about_something_else_is_measured_and_kept(complete):
    before = complete.read_bytes()
    again = Instruments()
    others = [("seed", 1), ("settings", "abd"), ("epoch", 3)]
    for name, value in others:
        record_measurements(complete, again.measurements(1), ABOUT | {name: value}, "model")
    assert again.taken == [0, 0, 0]
    assert complete.read_bytes().startswith(before)
    # A record with more fields than are asked for is the one.
    record_measurements(complete, again.measurements(1), {"epoch": 3}, "model")
    assert again.taken == [0, 0, 0]


def test_the_last_of_several_records_counts(complete):
    first = json.loads(complete.read_text().splitlines()[0])
    records.append(complete, first | {"value": 7.0})
    found = record_measurements(complete, Instruments().measurements(), ABOUT, "model")
    assert [record["value"] for record in found][0] == 7.0 and len(found) == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [((1, 2), [1.0, 2]), (1, 1.0), (np.float32(0.5), 0.5), ({"a": (1,)}, {"a": [1]})],
)
def test_what_json_does_not_tell_apart_is_the_same(tmp_path, first, second):
    path = tmp_path / "records.jsonl"
    taken = []
    for value in (first, second):
        one = Measurement({"measure": "m", "mine": value}, lambda: taken.append(1) or {"x": 1})
        record_measurements(path, [one], {}, "model")
    assert taken == [1]


def test_digest():
    assert digest({"a": (1, 2), "b": np.float64(0.5)}) == digest({"b": 0.5, "a": [1, 2]})
    assert digest({"a": 1}) != digest({"a": 2}) and len(digest({})) == 8


def test_lines_with_the_time_left(tmp_path, capsys, monkeypatch):
    # The start, and the end of every measurement.
    clock = iter([0.0, 6.0, 12.0, 20.0, 30.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    record_measurements(tmp_path / "r.jsonl", Instruments().measurements(), ABOUT, "model")
    assert capsys.readouterr().out.splitlines() == [
        "model measuring: 2/4, 12 s, 12 s left",
        "model measuring: 4/4, 30 s, 0 s left",
    ]


def test_no_lines_where_all_is_there(complete, capsys):
    start = time.perf_counter()
    record_measurements(complete, Instruments().measurements(), ABOUT, "model")
    assert capsys.readouterr().out == "" and time.perf_counter() - start < 5
