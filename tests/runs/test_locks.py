"""Locks on what a command writes: who is refused, what the death of a process leaves."""

import fcntl
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest
from real_commands import ROOT, run_here
from training_problems import tiny_config

from sam_jax.runs import locks
from sam_jax.training.train_and_evaluate import train_and_evaluate

HOLDER = """
import pathlib, sys
from sam_jax.runs import locks
with locks.held(pathlib.Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "run"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_run_is_refused_and_told_who_is_there(holder, tmp_path):
    run = tmp_path / "run"
    for _ in range(2):  # which does not harm the lock
        refused = run_here("sam_jax.train", "--config=configs/digits.py:smoke", f"--workdir={run}")
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert line == (
            f"{run} is in use by process {holder.pid} on {socket.gethostname()} (training). Wait "
            "until it has ended, or choose another --workdir."
        )
    assert [path.name for path in run.iterdir()] == ["training.lock"]
    with locks.held(run, "evaluation"):  # other work
        pass
    holder.kill()
    holder.wait()
    assert (run / "training.lock").exists()
    train_and_evaluate(tiny_config(epochs=1), run)
    assert not (run / "training.lock").exists()


def test_threads_lock_each_other_out_and_one_alone_gets_in(tmp_path):
    inside, most, refused = [], [], []

    def work():
        for _ in range(200):
            try:
                with locks.held(tmp_path, "training"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except locks.InUse as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) + len(refused) == 800
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_locked_is_no_error(tmp_path, monkeypatch):
    with locks.held(tmp_path / "missing", "evaluation", make=False):
        assert not (tmp_path / "missing").exists()
    with locks.held(tmp_path / "a" / "b", "training"):
        assert (tmp_path / "a" / "b" / "training.lock").exists()
    assert not (tmp_path / "a").exists()  # nothing else was written

    def no_locks(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    warned = []
    monkeypatch.setattr(locks.logging, "warning", lambda text, *rest: warned.append(text % rest))
    with locks.held(tmp_path, "training"):
        assert "is not locked ([Errno 95] Operation not supported)" in warned[0]

    def closed(path, *rest):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", closed)
    with locks.held(pathlib.Path(tmp_path), "training"):
        pass
