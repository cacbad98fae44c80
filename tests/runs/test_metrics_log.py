"""The log of a run is held to its checkpoints."""

import math
import os
import subprocess

import jax
import pytest
from damaging import as_before
from tensorboardX.proto.event_pb2 import Event
from training_problems import tiny_config

from sam_jax.runs import checkpoints, metrics_log, records
from sam_jax.training.train_and_evaluate import train_and_evaluate

EPOCHS = 5


def a_run(workdir, saved=(2, 4)):
    """A log of five epochs with checkpoints at some of them."""
    log = metrics_log.MetricsLog(workdir, first_epoch=0)
    with checkpoints.open_manager(workdir, keep=9) as manager:
        for epoch in range(1, EPOCHS + 1):
            log.write({"epoch": epoch, "batch_loss": 1.0 / epoch})
            if epoch in saved:
                checkpoints.save(manager, epoch, {"w": 1.0 * epoch * jax.numpy.ones(3)})
    log.close()
    return workdir / "metrics.jsonl"


def without(lines, index):
    return lines[:index] + lines[index + 1 :]


NULS = b"\0" * 30 + b"\n"
# What happens to the lines, the line that is named, and the epoch of the checkpoint to go on from.
DAMAGE = {
    "first missing": (lambda x: x[1:], 1, 0),
    "middle missing": (lambda x: without(x, 2), 3, 2),
    "last of the checkpoint missing": (lambda x: x[:3], 4, 2),
    "doubled": (lambda x: [*x[:3], x[2], *x[3:]], 4, 2),
    "last doubled": (lambda x: [*x, x[-1]], 6, 4),
    "reordered": (lambda x: [x[0], x[2], x[1], *x[3:]], 2, 0),
    "foreign": (lambda x: [*x[:3], b'{"epoch": 4, "batch_loss": 0.26}\n', x[4]], 4, 2),
    "nuls": (lambda x: [*x[:2], NULS, *x[3:]], 3, 2),
    "no record": (lambda x: [*x[:2], b"[3]\n", *x[3:]], 3, 2),
    "not finite": (lambda x: [*x[:4], b'{"epoch": NaN, "batch_loss": 0.1}\n'], 5, 4),
    "a text": (lambda x: [*x[:4], b'{"epoch": "5", "batch_loss": 0.1}\n'], 5, 4),
}


@pytest.mark.parametrize("before", [False, True])  # checkpoints had checksums
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_with_its_line_and_what_to_do(tmp_path, name, before):
    damage, number, whole = DAMAGE[name]
    path = a_run(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    if before:
        as_before(tmp_path)
    assert len(metrics_log.read(tmp_path)) == EPOCHS
    path.write_bytes(b"".join(damage(lines)))
    if before and name == "foreign":  # what only checksums can tell
        assert len(metrics_log.read(tmp_path)) == EPOCHS
        return
    with pytest.raises(ValueError) as error:
        metrics_log.MetricsLog(tmp_path, 4)
    message = str(error.value)
    assert f"Line {number} of {path} is damaged" in message
    if not whole:
        assert "train again in another --workdir" in message
        return
    subprocess.run(["bash", "-c", message[message.index("sed -i") :]], check=True)
    kept = whole if number <= 4 else min(number - 1, EPOCHS)
    assert [record["epoch"] for record in metrics_log.read(tmp_path)] == [*range(1, kept + 1)]
    assert checkpoints.exists(tmp_path, whole)


@pytest.mark.parametrize("tail", [b"{", b'{"epoch": 6, "lo', b"\0" * 99])
def test_a_torn_tail_is_repaired(tmp_path, tail):
    path = a_run(tmp_path)
    before = path.read_bytes()
    path.write_bytes(before + tail)
    assert len(metrics_log.read(tmp_path)) == EPOCHS
    log = metrics_log.MetricsLog(tmp_path, EPOCHS)
    log.close()
    assert path.read_bytes() == before


def test_a_log_that_is_gone(tmp_path):
    a_run(tmp_path).unlink()
    with pytest.raises(ValueError, match="Line 1 of .* is missing, .*train again in another"):
        metrics_log.MetricsLog(tmp_path, 4)


def test_both_commands_say_what_is_wrong_with_a_log(tmp_path):
    config = tiny_config(epochs=2)
    train_and_evaluate(config, tmp_path)
    path = tmp_path / "metrics.jsonl"
    first, _ = path.read_text().splitlines(keepends=True)
    path.write_text(first + first)
    with pytest.raises(ValueError, match=f"Line 2 of {path} is damaged: it has epoch 1 in the"):
        train_and_evaluate(config, tmp_path)


def test_log_of_a_resumed_run_drops_what_comes_after_the_checkpoint(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, first_epoch=0)
    for epoch in (1, 2, 3):
        log.write({"epoch": epoch, "loss": 1.0 / epoch, "test_loss": math.nan})
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 4, "lo')
    log = metrics_log.MetricsLog(tmp_path, first_epoch=2)
    assert [r["epoch"] for r in records.read(path)] == [1, 2]
    log.write({"epoch": 3, "loss": 0.25})
    log.close()
    assert [r["epoch"] for r in records.read(path)] == [1, 2, 3]
    assert records.read(path)[-1]["loss"] == 0.25
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_finite_numbers_of_a_record_are_one_event(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, first_epoch=0)
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


def test_the_disk_holds_the_lines_that_a_checkpoint_demands(tmp_path, monkeypatch):
    path, held = tmp_path / "metrics.jsonl", []

    def fsync(number):
        if path.exists() and os.path.samestat(os.fstat(number), path.stat()):
            held.append(path.read_bytes().count(b"\n"))
        real(number)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    a_run(tmp_path, saved=(2, 5))
    assert held == [2, 5]
