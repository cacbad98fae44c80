"""After ten seconds without news a command says what it does, and what JAX compiles."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest
from real_commands import run

from sam_jax.runs import heartbeat, progress


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENCE", 0.05)
    monkeypatch.setattr(heartbeat, "LOOK", 0.02)


def lines_of(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_silent_block_is_named_from_within(impatient, capsys):
    with heartbeat.beating(), heartbeat.doing("training"):
        with heartbeat.doing("reading the data set mnist"):
            time.sleep(0.3)
        assert set(lines_of(capsys)) == {"reading the data set mnist, 0 s"}
        time.sleep(0.3)
        assert lines_of(capsys)[-1].startswith("training, ")
    with heartbeat.beating():
        time.sleep(0.3)
    assert lines_of(capsys)[-1].startswith("still at work, ")
    time.sleep(0.3)
    assert lines_of(capsys) == []  # the block has ended


def test_what_shows_something_needs_no_sign_of_life(impatient, monkeypatch, capsys):
    monkeypatch.setattr(heartbeat, "SILENCE", 0.5)
    with heartbeat.beating():
        for _ in range(10):
            heartbeat.shown()
            time.sleep(0.06)
    assert lines_of(capsys) == []


def test_items_are_named():
    begun = time.monotonic()
    for item in progress.each("epoch 3 measuring", ["hessian", "loss line"], str):
        assert heartbeat.line(begun, begun).startswith("epoch 3 measuring, ")
        assert f" of 2: {item}, " in heartbeat.line(begun, begun)
    assert heartbeat.line(begun + 12, begun) == "still at work, 12 s"


def test_every_thread_is_named():
    both = threading.Barrier(3)

    def work(name):
        with heartbeat.doing(name):
            both.wait()
            both.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("sgd", "sam")]
    for thread in threads:
        thread.start()
    both.wait()
    now = time.monotonic()
    assert heartbeat.line(now, now) == "sam, 0 s; sgd, 0 s"
    both.wait()
    for thread in threads:
        thread.join()
    assert heartbeat.line(now, now) == "still at work, 0 s"


def test_what_jax_compiles_is_named(monkeypatch):
    """As seen by a listener of JAX that comes after ours, between lowering and compiling."""
    monkeypatch.setattr(heartbeat, "LONG", 0.0)
    heartbeat._listen_to_jax()
    seen = []

    def look(event, seconds, **about):
        now = time.monotonic()
        seen.append(heartbeat.line(now, now))

    jax.monitoring.register_event_duration_secs_listener(look)

    @jax.jit
    def slowly_sharpened(x):
        return jnp.sin(x) + 17

    with heartbeat.doing("hessian"):
        slowly_sharpened(jnp.ones(3))
        now = time.monotonic()
        assert heartbeat.line(now, now) == "hessian, 0 s"
    assert "hessian: compiling slowly_sharpened, 0 s" in seen
    count = len(seen)
    with heartbeat.doing("again"):
        slowly_sharpened(jnp.ones(3))
    assert not any("compiling" in line for line in seen[count:])


PROGRAM = """
import sys, time
from absl import flags
from sam_jax.runs import flags as ours, heartbeat
heartbeat.SILENCE = heartbeat.LOOK = 0.1
def main(argv):
    with heartbeat.doing("a long work"):
        time.sleep(0.8)
ours.run_command(main)
"""


@pytest.mark.commands
def test_every_command_beats():
    result = run("-c", PROGRAM)
    assert result.returncode == 0 and result.stdout == ""
    assert result.stderr.startswith("a long work, ")
