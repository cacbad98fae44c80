"""Plain lines without a terminal, a bar on a pseudo-terminal."""

import fcntl
import io
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from sam_jax.runs import progress

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import time
from sam_jax.runs import progress
progress.SECONDS_BETWEEN_LINES = 0.0
p = progress.Progress("model", epochs=2, images_per_epoch=100, first_epoch=1)
p.advance(50, 0.5, 0.25)
time.sleep(0.2)  # the bar is drawn ten times a second
p.advance(50, 0.25, 0.75)
p.finish("done")
"""
EACH = """
import time
from sam_jax.runs import progress
for item in progress.each("work", [1, 2, 3, 4]):
    time.sleep(0.2)
"""


def run(stderr, program=PROGRAM):
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.commands
def test_plain_lines_without_a_terminal():
    result = run(subprocess.PIPE)
    first, second, last = result.stdout.splitlines()
    assert first == "model: epoch 1.5/2, loss 0.5000, accuracy 25.00%"  # nothing of the time yet
    line = r"model: epoch 2/2, loss 0.2500, accuracy 75.00%, \d+ images/s, 0 s left"
    assert re.fullmatch(line, second)
    assert re.fullmatch(r"model: done \(\d+\.\d s\)", last)
    assert result.stderr == ""
    assert "\r" not in result.stdout and "\x1b" not in result.stdout


def run_in_a_terminal(program):
    """Return what a program prints, and what it shows on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    # tqdm shows nothing on a screen without rows.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    try:
        result = run(theirs, program)
        os.write(theirs, b"end")
        shown = b""
        while not shown.endswith(b"end"):
            shown += os.read(ours, 1 << 16)
    finally:
        os.close(theirs)
        os.close(ours)
    return result.stdout, shown.decode()


@pytest.mark.commands
def test_a_bar_in_a_terminal():
    output, bar = run_in_a_terminal(PROGRAM)
    assert "\r" in bar and "model:" in bar and "img" in bar
    assert "epoch 2/2, loss 0.2500, accuracy 75.00%" in bar
    # Only the last line goes to the output, where it may be kept in a file.
    assert re.fullmatch(r"model: done \(\d+\.\d s\)\n", output)


@pytest.mark.commands
def test_each_in_a_terminal_has_a_total_and_the_time_left():
    output, bar = run_in_a_terminal(EACH)
    assert output == "" and re.search(r"work: +50%.* 2/4 \[00:00<00:00", bar)


def test_each_yields_all_items_in_order():
    assert list(progress.each("work", range(3, 6))) == [3, 4, 5]
    assert list(progress.each("work", [])) == []


def test_lines_are_rare_and_the_time_left_leaves_the_first_steps_out(capsys, monkeypatch):
    clock = iter([0.0, 200.0, 205.0, 211.0, 212.0, 213.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    p = progress.Progress("run", epochs=40, images_per_epoch=50, first_epoch=2)
    for loss in (4.0, 3.0, 2.0, 1.0):
        p.advance(22, loss, 0.5)
    lines = capsys.readouterr().out.splitlines()
    # The first 22 images took 200 seconds, with their compilation. The next 44 took 11, and
    # 2000 - 166 are left: 458.5 seconds.
    assert lines == [
        "run: epoch 2.44/40, loss 4.0000, accuracy 50.00%",
        "run: epoch 3.32/40, loss 2.0000, accuracy 50.00%, 4 images/s, 7 min 38 s left",
    ]
    p.finish("over")
    assert capsys.readouterr().out == "run: over (213.0 s)\n"
