"""The flags of several processes, and what one process alone makes of the functions for many."""

import re
import sys

import pytest
from real_commands import run_here

from sam_jax.runs import distributed
from sam_jax.runs.distributed import Cluster, from_first

COMMANDS = {
    "sam_jax.train": ("--config=configs/digits.py:smoke",),
    "sam_jax.evaluate": (),
    "experiments.even_better": ("--config=configs/even_better/digits.py:smoke",),
}
PLACES = ("--coordinator_address=localhost:1", "--process_count=2", "--process_index=1")


def errors_of(command, folder, *flags):
    result = run_here(command, *COMMANDS[command], f"--workdir={folder}", *flags)
    assert result.returncode in (1, 2)
    assert not list(folder.iterdir())
    return result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_half_of_the_flags_is_an_error_that_names_the_other_half(tmp_path, command):
    errors = errors_of(command, tmp_path, "--distributed", PLACES[1])
    assert "--coordinator_address and --process_index must be given too" in errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((*PLACES[:2], "--process_index=2"), "0 ... process_count - 1, got 2 with"),
        ((*PLACES[:2], "--process_index=-1"), "got -1"),
        (("--coordinator_address=localhost", *PLACES[1:]), "must be HOST:PORT, got 'localhost'"),
        (("--silence_timeout=0",), "--silence_timeout must be at least 1 second, got 0"),
        ((*PLACES, "--start_timeout=1"), "Nobody answers at localhost:1 after 1 s .* process 0"),
    ],
)
def test_flags_that_cannot_work_are_an_error_that_says_why(tmp_path, flags, message):
    errors = errors_of("sam_jax.train", tmp_path, "--distributed", *flags)
    assert re.search(message, errors.replace("\n", " "))


def test_an_environment_that_names_no_processes_is_an_error_that_says_so(tmp_path, monkeypatch):
    def initialize(*places, **_):
        assert places == (None, None, None)
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    errors = errors_of("sam_jax.train", tmp_path, "--distributed")
    assert "finds no other processes by itself" in errors and "Slurm" in errors


def test_places_without_several_processes_are_refused(tmp_path):
    errors = errors_of("sam_jax.train", tmp_path, *PLACES)
    assert "the flags of several processes need --distributed" in errors


def test_one_process_calls_what_it_is_given_and_raises_its_error():
    value = object()
    assert from_first(lambda: value) is value

    def fail():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        from_first(fail)


def test_several_processes_hear_what_the_first_one_returns_or_raises(monkeypatch):
    """Two of them one after the other; what the first one sends is kept for the second."""
    sent = []
    monkeypatch.setattr(distributed, "process_count", lambda: 2)

    def as_process(index, function):
        monkeypatch.setattr(distributed, "is_first", lambda: index == 0)
        send = sent.append if index == 0 else (lambda text: None)
        monkeypatch.setattr(distributed, "_broadcast", lambda text: send(text) or sent[-1])
        return from_first(function)

    def refuse():
        raise ValueError("another config")

    nested = lambda: from_first(lambda: {"epoch": 3})  # noqa: E731
    assert as_process(0, nested) == as_process(1, sys.exit) == {"epoch": 3}
    for index in (0, 1):
        with pytest.raises(ValueError, match="another config"):
            as_process(index, refuse if index == 0 else sys.exit)


def test_a_cluster_is_what_the_environment_says_or_three_places():
    def is_one(cluster):
        try:
            distributed.check(cluster)
        except ValueError:
            return False
        return True

    assert is_one(Cluster())
    assert is_one(Cluster("[::1]:80", 4, 3))
    assert not is_one(Cluster("[::1]:80", 4, 4))
    assert not is_one(Cluster("[::1]:80", 4))
    assert not is_one(Cluster("[::1]", 4, 3))
