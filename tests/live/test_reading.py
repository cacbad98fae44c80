"""What is read of runs that are being written: torn, damaged, cut, grown, and of every state."""

import json
import math
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from live_runs import append, make_run, record, speed

from sam_jax.live.curves import CHARTS, MOST_POINTS, curve, thinned
from sam_jax.live.folders import find
from sam_jax.live.logs import Log, read_object, read_on
from sam_jax.live.summary import STATES
from sam_jax.live.watch import Watch, everything
from sam_jax.runs import locks


def by_name(folder):
    return {run["name"]: run for run in everything(folder)["runs"]}


# --- files that grow ------------------------------------------------------------------------------


def test_only_new_bytes_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_on(path, Log()) == Log()
    append(path, record(1), record(2))
    first = read_on(path, Log())
    assert [r["epoch"] for r in first.records] == [1, 2] and first.lines == 2
    assert read_on(path, first) is first
    # The lines that were read may say anything by now: nobody reads them again.
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"x" * (size - 1))
    append(path, record(3))
    second = read_on(path, first)
    assert [r["epoch"] for r in second.records] == [1, 2, 3] and second.damaged == ()
    # The negative control: whoever begins anew sees them.
    assert read_on(path, Log()).damaged == (1,)


def test_a_torn_last_line_is_read_once_it_is_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    line = json.dumps(record(2)).encode()
    append(path, record(1))
    with path.open("ab") as file:
        file.write(line[:25])
    torn = read_on(path, Log())
    assert [r["epoch"] for r in torn.records] == [1] and torn.damaged == ()
    with path.open("ab") as file:
        file.write(line[25:] + b"\n")
    assert read_on(path, torn).records[1]["batch_loss"] == record(2)["batch_loss"]


def test_a_file_that_was_cut_or_replaced_is_read_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append(path, record(1), record(2), record(3))
    log = read_on(path, Log())
    kept = path.read_bytes().split(b"\n")[:1]
    path.with_suffix(".tmp").write_bytes(b"\n".join(kept) + b"\n")
    path.with_suffix(".tmp").replace(path)
    append(path, record(2, offset=1.0), record(3), record(4), record(5))
    again = read_on(path, log)
    assert [r["epoch"] for r in again.records] == [1, 2, 3, 4, 5]
    assert again.records[1] == pytest.approx(record(2, offset=1.0), nan_ok=True)
    os.truncate(path, len(kept[0]) + 1)
    assert [r["epoch"] for r in read_on(path, again).records] == [1]
    path.unlink()
    assert read_on(path, again) == Log()


@pytest.mark.parametrize(
    "line",
    [
        *(b"{", b"\xff\xfe", b"[1]", b"3", b"{}", b"{'a': 1}", b"[" * 100_000, b"\0" * 30),
        *(b'{"epoch": "2"}', b'{"epoch": true}', b'{"epoch": 1.5}', b'{"epoch": NaN}'),
        b'{"epoch": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda line: repr(line[:12]),
)
def test_a_damaged_line_is_a_note_at_its_run(tmp_path, line):
    run = make_run(tmp_path / "run", epochs=5, done=1)
    for name in ("metrics.jsonl", "speed.jsonl"):
        with (run / name).open("ab") as file:
            file.write(line + b"\n")
    append(run / "metrics.jsonl", record(3))
    found = by_name(tmp_path)["run"]
    assert found["curves"]["batch_loss"]["x"] == [1, 3] and found["epoch"] == 3
    assert [n for n in found["notes"] if "damaged" in n] == [
        "line 2 of metrics.jsonl is damaged",
        "line 2 of speed.jsonl is damaged",
    ]
    json.dumps(found, allow_nan=False)


def test_fields_of_another_kind_are_left_out(tmp_path):
    run = make_run(tmp_path / "run", epochs=5, done=1)
    values = ("0.1", None, [1.0], {"a": 1}, True, 10**400)
    for epoch, value in enumerate(values, start=2):
        append(run / "metrics.jsonl", {"epoch": epoch, "batch_loss": value, "sharpness": value})
    found = by_name(tmp_path)["run"]
    assert found["curves"]["batch_loss"]["x"] == [1, 7]
    assert found["curves"]["batch_loss"]["y"][1] is None  # what is beyond all floats
    assert found["notes"] == ["batch_loss is not finite at epoch 7"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_config_is_a_note(tmp_path, content):
    run = make_run(tmp_path / "run", epochs=5, done=3)
    (run / "config.json").write_bytes(content)
    (run / "nonfinite.json").write_bytes(content)
    assert read_object(run / "config.json") is None
    found = by_name(tmp_path)["run"]
    assert found["notes"] == ["config.json is damaged"]
    assert (found["epoch"], found["epochs"]) == (3, None)


def test_what_may_not_be_read_is_a_note(tmp_path):
    run = make_run(tmp_path / "run", epochs=5, done=3)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    (found,) = by_name(tmp_path).values()
    assert found["notes"] == ["metrics.jsonl cannot be read: Is a directory"]


# --- states ---------------------------------------------------------------------------------------


def dead_process():
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def lock(folder, process, host=None):
    (folder / "training.lock").write_text(f"process {process} on {host or socket.gethostname()}\n")


def state(folder):
    (run,) = by_name(folder).values()
    assert run["state"] in STATES
    return run["state"]


def test_every_state(tmp_path):
    run = make_run(tmp_path / "run", epochs=5, done=3)
    assert state(tmp_path) == "stopped"
    lock(run, dead_process())
    assert state(tmp_path) == "stopped"  # it was killed, and left its lock
    lock(run, os.getpid())
    assert state(tmp_path) == "training"
    (run / "nonfinite.json").write_text('{"step": 40, "epoch": 4}')
    assert state(tmp_path) == "training"  # again
    (run / "training.lock").unlink()
    assert state(tmp_path) == "failed"
    (found,) = by_name(tmp_path).values()
    assert found["notes"] == ["stopped by numbers that are not finite, at step 40 of epoch 4"]
    (run / "nonfinite.json").unlink()
    append(run / "metrics.jsonl", record(4), record(5))
    assert state(tmp_path) == "finished"


def test_states_before_the_first_epoch(tmp_path):
    run = make_run(tmp_path / "run", epochs=5, done=0)
    for name in ("metrics.jsonl", "speed.jsonl"):
        (run / name).unlink()
    assert state(tmp_path) == "waiting"
    (run / "interrupted").mkdir()
    assert state(tmp_path) == "stopped"
    lock(run, 1, host="another-host")
    assert state(tmp_path) == "training"


def test_the_lock_of_a_run_is_seen_and_not_taken(tmp_path):
    assert locks.holder(tmp_path, "training") == ""
    with locks.held(tmp_path, "training"):
        words = f"process {os.getpid()} on {socket.gethostname()}"
        assert locks.holder(tmp_path, "training") == words
        assert locks.holder(tmp_path, "evaluation") == ""
    assert locks.holder(tmp_path, "training") == ""


def test_the_time_that_is_left(tmp_path):
    run = make_run(tmp_path / "run", epochs=10, done=4)
    lock(run, os.getpid())
    (found,) = by_name(tmp_path).values()
    assert found["ends_at"] == 4 * 30.0 + 6 * 30.0  # as speed.jsonl says
    append(run / "speed.jsonl", speed(5) | {"seconds": math.nan})
    append(run / "metrics.jsonl", record(5))
    (found,) = by_name(tmp_path).values()
    assert found["ends_at"] == 5 * 30.0 + 5 * 30.0
    (run / "speed.jsonl").unlink()
    (found,) = by_name(tmp_path).values()
    assert found["ends_at"] is None and found["last"]["images_per_second"] is None


# --- numbers and curves ---------------------------------------------------------------------------


def test_numbers_that_are_not_finite(tmp_path):
    run = make_run(tmp_path / "run", epochs=10, done=4)
    more = {"batch_loss": math.nan, "gradient_norm": math.inf, "nonfinite_steps": 3}
    append(run / "metrics.jsonl", record(5, **more, diverged=True))
    (found,) = json.loads(Watch(tmp_path).answer())["runs"]
    assert found["curves"]["batch_loss"]["y"][-1] is None
    assert found["notes"] == [
        "batch_loss is not finite at epoch 5",
        "gradient_norm is not finite at epoch 5",
        "3 steps were not finite",
        "diverged at epoch 5",
    ]
    # A test loss that nobody asked for is NaN, too, and is no point.
    assert found["curves"]["test_loss"]["x"] == [2, 4]
    assert found["last"]["test_loss"] == pytest.approx(record(4)["test_loss"], rel=1e-5)


def test_a_field_that_no_run_has_is_no_curve(tmp_path):
    make_run(tmp_path / "old", done=4, old=True)
    make_run(tmp_path / "new", done=4)
    found = by_name(tmp_path)
    assert set(found["old"]["curves"]) == {"batch_loss", "test_loss", "test_accuracy"}
    assert set(found["new"]["curves"]) == {c.field for c in CHARTS} - {"sharpness"}


def test_the_curve_of_the_sharpness_has_its_errors():
    chart = next(chart for chart in CHARTS if chart.field == "sharpness")
    records = [record(epoch) for epoch in range(1, 11)]
    found = curve(records, chart)
    assert found["x"] == [5, 10] and found["error"] == [0.05, 0.05]
    assert found["y"] == pytest.approx([records[4]["sharpness"], records[9]["sharpness"]], rel=1e-5)


@pytest.mark.parametrize("count", [1, MOST_POINTS, MOST_POINTS + 1, 7777])
def test_long_curves_keep_their_ends_and_extremes(count):
    values = np.random.default_rng(count).normal(size=count)
    chosen = thinned(list(values))
    assert len(chosen) <= MOST_POINTS and chosen == sorted(set(chosen))
    assert {0, count - 1, int(values.argmin()), int(values.argmax())} <= set(chosen)


def test_a_peak_of_one_value_is_kept():
    values = np.zeros(10 * MOST_POINTS)
    values[[1234, 4001]] = 1.0, math.nan
    assert {1234, 4001} <= set(thinned(list(values)))
    assert not values[::10].any()  # the negative control: every tenth value misses both


# --- folders --------------------------------------------------------------------------------------


def test_runs_are_found_by_their_files(tmp_path):
    make_run(tmp_path / "models/sam/seed_10")
    make_run(tmp_path / "models/sam/seed_2", seed=2)
    make_run(tmp_path / "models/sam/seed_2/checkpoints/5")  # of a run: no run of its own
    make_run(tmp_path / ".hidden")
    (tmp_path / "config.json").write_text('{"training": {"epochs": 3}}')  # of the study
    (tmp_path / "models/none").mkdir()
    (tmp_path / "models/none/metrics.jsonl").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    assert [found.name for found in find(tmp_path)] == [
        *(".", "models/sam/seed_2", "models/sam/seed_10")
    ]
    found = by_name(tmp_path)
    assert list(found) == ["models/sam/seed_2", "models/sam/seed_10"]
    assert {run["arm"] for run in found.values()} == {"sam"}
    (itself,) = everything(tmp_path / "models/sam/seed_2")["runs"]
    assert (itself["name"], itself["arm"], itself["seed"]) == (".", "seed_2", 2)


def test_an_answer_has_what_is_new(tmp_path):
    one, two = (make_run(tmp_path / name, epochs=20, done=3) for name in ("one", "two"))
    watch = Watch(tmp_path)
    first = json.loads(watch.answer())
    assert [run["name"] for run in first["runs"]] == first["names"] == ["one", "two"]
    assert json.loads(watch.answer(first["version"]))["runs"] == []
    append(two / "metrics.jsonl", record(4))
    second = json.loads(watch.answer(first["version"]))
    assert [(run["name"], run["epoch"]) for run in second["runs"]] == [("two", 4)]
    assert second["version"] > first["version"]
    for path in one.iterdir():
        path.unlink()
    assert json.loads(watch.answer(second["version"]))["names"] == ["two"]
    # A page of another server, earlier or from nowhere, gets everything.
    for after in (0, 5, 10**18):
        assert len(json.loads(watch.answer(after))["runs"]) == 1
    assert len(json.loads(Watch(tmp_path).answer(second["version"]))["runs"]) == 1
