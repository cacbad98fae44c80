"""Records survive cuts, NaN and arrays."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from sam_jax.runs import records


def test_append_and_read(tmp_path):
    path = tmp_path / "deep" / "records.jsonl"
    assert records.read(path) == []
    records.append(path, {"loss": 0.1, "name": "é", "list": [1, 2]})
    records.append(path, {"array": jnp.arange(3), "scalar": np.float32(0.5), "count": np.int64(7)})
    assert records.read(path) == [
        {"loss": 0.1, "name": "é", "list": [1, 2]},
        {"array": [0, 1, 2], "scalar": 0.5, "count": 7},
    ]
    assert len(path.read_text().splitlines()) == 2


def test_numbers_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "records.jsonl"
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, float(np.float32(0.1))]
    records.append(path, {"values": values})
    assert [v.hex() for v in records.read(path)[0]["values"]] == [v.hex() for v in values]


def test_what_was_not_computed_stays_nan(tmp_path):
    path = tmp_path / "records.jsonl"
    records.append(path, {"a": math.nan, "b": jnp.nan, "c": [math.inf, 1.0]})
    (record,) = records.read(path)
    assert math.isnan(record["a"]) and math.isnan(record["b"]) and record["c"] == [math.inf, 1.0]


@pytest.mark.parametrize("kept", range(1, 13))
def test_a_cut_last_line_is_left_out(tmp_path, kept):
    path = tmp_path / "records.jsonl"
    records.append(path, {"epoch": 1})
    line = json.dumps({"epoch": 2})
    path.write_text(path.read_text() + line[: min(kept, len(line))])
    assert records.read(path) == [{"epoch": 1}]
    # What is appended afterwards does not grow together with it.
    records.append(path, {"epoch": 3})
    assert records.read(path) == [{"epoch": 1}, {"epoch": 3}]


def test_a_damaged_line_before_the_last_is_not_hidden(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(json.JSONDecodeError):
        records.read(path)


def test_rewrite_replaces_in_one_move(tmp_path):
    path = tmp_path / "records.jsonl"
    records.append(path, {"epoch": 1})
    records.rewrite(path, [{"epoch": 5}, {"value": np.arange(2)}])
    assert records.read(path) == [{"epoch": 5}, {"value": [0, 1]}]
    with pytest.raises(TypeError):  # fails while it is written, and leaves the old ones
        records.rewrite(path, [{"epoch": 6}, {1j: 0}])
    assert records.read(path) == [{"epoch": 5}, {"value": [0, 1]}]


def test_log_of_a_resumed_run_drops_what_comes_after_the_checkpoint(tmp_path):
    log = records.MetricsLog(tmp_path, first_epoch=0)
    for epoch in (1, 2, 3):
        log.write({"epoch": epoch, "loss": 1.0 / epoch, "test_loss": math.nan})
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 4, "lo')
    log = records.MetricsLog(tmp_path, first_epoch=2)
    assert [r["epoch"] for r in records.read(path)] == [1, 2]
    log.write({"epoch": 3, "loss": 0.25})
    log.close()
    assert [r["epoch"] for r in records.read(path)] == [1, 2, 3]
    assert records.read(path)[-1]["loss"] == 0.25
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_finite_numbers_of_a_record_are_one_event(tmp_path):
    log = records.MetricsLog(tmp_path, first_epoch=0)
    log.write({"epoch": 7, "loss": 0.5, "test_loss": math.nan, "step": 90})
    log.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, events = path.read_bytes(), []
    while data:  # length, its checksum, the event, its checksum
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    found = [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in events]
    assert [event for event in found if event[1]] == [(7, {"loss": 0.5, "step": 90.0})]
