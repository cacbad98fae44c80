"""Signals: what they stop, what is kept, and that what was stopped ends as if it was not."""

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from real_commands import ROOT
from training_problems import assert_same_bits, tiny_config

from sam_jax.measuring.measure import Measurement, record_measurements
from sam_jax.mistakes import UserMistake
from sam_jax.runs import records, signals
from sam_jax.training import interruption
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import load_trained


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A slow machine does not end the process of the tests."""
    monkeypatch.setattr(signals, "PATIENCE", 600.0)


def send(number):
    """Send a signal to this process, and wait until it is heard."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 10
    while not signals.asked():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def config_of(**changes):
    """Return a training of two steps an epoch, each a call."""
    return tiny_config(epochs=3, steps_per_call=1, **changes)


def train(config, workdir, stop_before=()):
    """Train, and send a signal before each of these calls, counted over all starts."""
    from sam_jax.training import train_and_evaluate as module

    done, stops, calls = 0, list(stop_before), module.training_calls

    def counted(*arguments):
        nonlocal done
        for call in calls(*arguments):
            if done in stops:
                stops.remove(done)
                send(signal.SIGTERM)
            else:
                done += 1
            yield call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "training_calls", counted)
        while True:
            try:
                with signals.handled():
                    return train_and_evaluate(config, workdir)
            except signals.Stopped as stopped:
                assert stopped.code == 128 + signal.SIGTERM


@pytest.mark.parametrize("method", ["looksam", "average_sam"])  # states with a memory, and a key
def test_a_training_that_is_stopped_anywhere_ends_as_an_uninterrupted_one(tmp_path, method, capsys):
    config = config_of(method__name=method, checkpoint__every_epochs=2, checkpoint__keep=3)
    config.method.rho = 0.1
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, whole)
    # In the first epoch, at the end of one without a checkpoint and with one, and in the last one.
    train(config, cut, stop_before=[1, 2, 4, 5])
    output = capsys.readouterr().out
    assert f"stopped after step 1, epoch 0.5/3; the state is saved in {cut}/interrupted" in output
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    names = [sorted(p.name for p in folder.iterdir()) for folder in (whole, cut)]
    assert names[0] == names[1]
    saved = [sorted(p.name for p in folder.glob("checkpoints/*")) for folder in (whole, cut)]
    assert saved[0] == saved[1] == ["2", "3"]
    assert_same_bits(*(load_trained(folder)[1].state for folder in (whole, cut)))


def test_what_was_stopped_under_another_config_begins_at_the_last_checkpoint(tmp_path, capsys):
    config = config_of(checkpoint__every_epochs=1)
    with signals.handled(), pytest.raises(signals.Stopped):
        send(signal.SIGHUP)
        train_and_evaluate(config, tmp_path)
    assert "stopped before its first step" in capsys.readouterr().out
    assert not (tmp_path / "interrupted").exists()
    stopped(config, tmp_path, after=3)
    assert (tmp_path / "interrupted").exists()
    config.batch_size //= 2
    with pytest.raises(ValueError, match="batch_size"):
        train_and_evaluate(config, tmp_path)
    last = train_and_evaluate(config, tmp_path, accept_config_changes=True)
    assert last["step"] == 2 + 2 * 4 and not (tmp_path / "interrupted").exists()


def stopped(config, workdir, after):
    """Train until a signal comes after so many calls."""
    with pytest.raises(StopIteration), pytest.MonkeyPatch.context() as patch:
        stop_after(patch, after)
        with signals.handled():
            train_and_evaluate(config, workdir)


def test_a_training_that_was_stopped_before_norms_were_kept_goes_on(tmp_path, monkeypatch):
    config = config_of(checkpoint__every_epochs=1)
    save = interruption.save

    def save_as_before(workdir, step, state, metrics):
        kept = [{n: x for n, x in m._asdict().items() if n != "perturbation_norm"} for m in metrics]
        save(workdir, step, state, tuple(kept))

    with monkeypatch.context() as patch:
        patch.setattr(interruption, "save", save_as_before)
        stopped(config, tmp_path / "cut", after=3)
    train_and_evaluate(config, tmp_path / "cut")
    train_and_evaluate(config, tmp_path / "whole")
    cut, whole = (records.read(tmp_path / x / "metrics.jsonl") for x in ("cut", "whole"))
    norms = [record["perturbation_norm"] for record in cut]
    assert math.isnan(norms[1]) and not math.isnan(norms[0] + norms[2])
    assert cut[2] == whole[2] and cut[1]["gradient_norm"] == whole[1]["gradient_norm"]


def test_the_state_of_another_run_is_refused(tmp_path):
    config, other = config_of(), config_of(seed=5)
    for name, its in (("run", config), ("other", other)):
        stopped(its, tmp_path / name, after=3)
    run, state = tmp_path / "run", tmp_path / "run" / "interrupted"
    mine = state.rename(tmp_path / "mine")
    shutil.copytree(tmp_path / "other" / "interrupted", state)
    with pytest.raises(UserMistake, match=r"rupted/.* seed \(was 5, is 0\).* Or delete .*/int"):
        train_and_evaluate(config, run)
    shutil.rmtree(state)
    mine.rename(state)
    assert train_and_evaluate(config, run)["step"] == 6  # negative control


@pytest.mark.parametrize("lost", [False, True])
def test_a_state_whose_log_was_changed_is_left_for_the_last_checkpoint(tmp_path, lost, caplog):
    config = config_of(checkpoint__every_epochs=1)
    whole = train_and_evaluate(config, tmp_path / "whole")
    config = config_of(checkpoint__every_epochs=0)
    stopped(config, tmp_path / "run", after=3)
    log = tmp_path / "run" / "metrics.jsonl"
    line = log.read_text()
    log.write_text("" if lost else line.replace("loss", "lost", 1))
    stopped(config, tmp_path / "run", after=1)
    kept = (tmp_path / "run" / "interrupted" / "checkpoints").iterdir()
    assert [path.name for path in kept if path.name.isdigit()] == ["1"]  # an earlier step
    last = train_and_evaluate(config, tmp_path / "run")
    assert "is not what it was when a signal stopped the run after step 3" in caplog.text
    assert log.read_text().startswith(line) and last == whole


def stop_after(patch, calls):
    """Send a signal after so many calls of a training, and raise StopIteration for `Stopped`."""
    asked = 0

    def heard():
        nonlocal asked
        asked += 1
        return signal.SIGINT if asked > calls else 0

    class Ended(StopIteration):
        def __init__(self, number):
            assert number == signal.SIGINT

    patch.setattr(signals, "asked", heard)
    patch.setattr(signals, "Stopped", Ended)


def test_records_are_kept_one_by_one(tmp_path):
    path = tmp_path / "records.jsonl"

    def take(number):
        def measure():
            if number == 1 and not stopped:
                send(signal.SIGINT)
                stopped.append(number)
            return {"value": number}

        return Measurement({"measure": f"m{number}"}, measure)

    stopped = []
    wanted = [take(number) for number in range(4)]
    with signals.handled(), pytest.raises(signals.Stopped) as error:
        record_measurements(path, wanted, {}, "model")
    assert error.value.code == 130
    assert [r["value"] for r in records.read(path)] == [0, 1]
    found = record_measurements(path, wanted, {}, "model")
    assert [r["value"] for r in found] == [0, 1, 2, 3]


def test_without_a_command_signals_are_left_alone():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with signals.handled():
        assert [signal.getsignal(number) for number in signals.SIGNALS] != before
        with signals.handled():  # a study in a command
            assert not signals.asked()
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
    inside = []
    thread = threading.Thread(target=lambda: inside.append(enter_and_leave()))
    thread.start()
    thread.join()
    assert inside == [0]


def enter_and_leave():
    with signals.handled():
        return signals.asked()


# How a process ends whose main thread waits: it says so, is told twice, or is told once.
WAITING = """
import os, signal, threading, time
from sam_jax.runs import signals
signals.PATIENCE, signals.ONE_PRESS = float(os.environ["PATIENCE"]), 0.2
signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in the background of a shell
with signals.handled():
    print("ready", flush=True)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()  # no handler of Python runs in here before it has the lock
"""


@pytest.mark.parametrize(
    ("patience", "sent", "code", "says"),
    [
        (60, [signal.SIGTERM, signal.SIGTERM], 143, "SIGTERM: ended at once"),
        (60, [signal.SIGHUP, signal.SIGINT], 130, "SIGINT: ended at once"),
        (0.3, [signal.SIGHUP], 129, "fewer steps_per_call"),
    ],
)
def test_a_second_signal_and_a_long_call_end_at_once(patience, sent, code, says):
    environment = os.environ | {"PATIENCE": str(patience)}
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    for number in sent:
        process.send_signal(number)
        time.sleep(0.3)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code and says in errors
    assert "a second signal ends at once" in errors
