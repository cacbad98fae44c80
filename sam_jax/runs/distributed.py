"""Several processes that work on one run: how they start, agree and end.

Every process runs the same program, and every compiled call over all devices is a meeting of them:
a process that takes another branch leaves the others waiting. So what a program reads from a folder
to decide by, and what it writes there, goes through `from_first`.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from sam_jax import mistakes
from sam_jax.mistakes import UserMistake, wants_traceback

PIECE = 4096  # bytes; a text is padded to a multiple, so that few shapes are compiled
_ERRORS = {
    error.__name__: error for error in (ValueError, UserMistake, FileNotFoundError, TypeError)
}

Value = TypeVar("Value")
_alone = threading.local()  # .yes while this process works for all of them


class Cluster(NamedTuple):
    """Where the processes of a run find each other; None for what the environment says."""

    coordinator_address: str | None = None  # HOST:PORT, of process 0
    process_count: int | None = None
    process_index: int | None = None
    start_timeout: int = 300  # seconds until all processes have to be there
    # Seconds without a sign of life after which a process is given up. That of one that is killed
    # on a machine that lives is noticed sooner, by its closed connections.
    silence_timeout: int = 30


def check(cluster: Cluster) -> None:
    """Raise a ValueError unless all three places are given, or none, and fit each other."""
    for name in ("start_timeout", "silence_timeout"):
        if getattr(cluster, name) < 1:
            raise ValueError(f"--{name} must be at least 1 second, got {getattr(cluster, name)}.")
    places = ("coordinator_address", "process_count", "process_index")
    missing = [f"--{name}" for name in places if getattr(cluster, name) is None]
    if len(missing) == len(places):
        return
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} must be given too: --coordinator_address, --process_count "
            "and --process_index belong together. Leave all three out under Slurm and where else "
            "JAX finds the processes by itself."
        )
    address, count, index = cluster[:3]
    assert address is not None and count is not None and index is not None
    if not address.rpartition(":")[2].isdecimal():
        raise ValueError(f"--coordinator_address must be HOST:PORT, got {address!r}.")
    if not 0 <= index < count:
        raise ValueError(
            f"--process_index must be one of 0 ... process_count - 1, got {index} with "
            f"--process_count={count}."
        )


@contextlib.contextmanager
def processes(cluster: Cluster) -> Iterator[None]:
    """Connect this process with the others, before any device is asked for, and part at the end.

    An error ends this process at once, so that the others, which wait for it, end too.

    Args:
      cluster: where they are.

    Raises:
      ValueError: as `check`, or the environment says nothing.
      RuntimeError: nobody answers at the address of process 0.
    """
    check(cluster)
    if cluster.coordinator_address and cluster.process_index:
        # JAX itself ends the process without a reason where it finds nobody.
        _wait_for(cluster.coordinator_address, cluster.start_timeout)
    try:
        jax.distributed.initialize(
            cluster.coordinator_address,
            cluster.process_count,
            cluster.process_index,
            initialization_timeout=cluster.start_timeout,
            heartbeat_timeout_seconds=cluster.silence_timeout,
            shutdown_timeout_seconds=cluster.silence_timeout,
        )
    except ValueError as error:
        raise ValueError(
            f"JAX finds no other processes by itself ({error}) Start them under Slurm, or give "
            "each --coordinator_address=HOST:PORT, --process_count and --process_index."
        ) from error
    try:
        yield
    except BaseException:
        _end()
    jax.distributed.shutdown()


def _wait_for(address: str, seconds: int) -> None:
    """Return once the port of process 0 is open."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"Nobody answers at {address} after {seconds} s ({error}). Start process 0 on "
                    "that machine and open that port, or give more time by --start_timeout."
                ) from error
        time.sleep(0.2)


def is_first() -> bool:
    """Say whether this is process 0, which alone prints and writes records."""
    return process_count() == 1 or jax.process_index() == 0


def process_count() -> int:
    """Return the number of processes, without asking for devices where there is one alone."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def from_first(function: Callable[[], Value]) -> Value:
    """Return in every process what a function returns in process 0, which alone calls it.

    All others wait for it. It serves to decide by what a folder holds, and to write there: once it
    returns, everything is written. Within another such function it is a plain call.

    Args:
      function: without arguments. What it returns must be as JSON gives it back, if there are
        several processes; it must not compute on the devices of other processes.

    Raises:
      What the function raises, in every process: a ValueError, FileNotFoundError or TypeError, and
      else a RuntimeError with its message.

    >>> from_first(lambda: {"epoch": 3})
    {'epoch': 3}
    """
    if getattr(_alone, "yes", False) or process_count() == 1:
        return function()
    outcome: dict[str, Any] = {}
    error = None
    if is_first():
        _alone.yes = True
        try:
            outcome = {"value": function()}
        except Exception as raised:
            error = raised
            outcome = {"error": type(raised).__name__, "message": str(raised)}
        finally:
            _alone.yes = False
    outcome = json.loads(_broadcast(json.dumps(outcome)))
    if error is not None:
        raise error
    if "error" in outcome:
        name, message = outcome["error"], outcome["message"]
        raise _ERRORS.get(name, RuntimeError)(message)
    return outcome["value"]


def total(numbers: np.ndarray) -> np.ndarray:
    """Return sums over all processes, modulo 2^64; all of them have to call it together.

    Args:
      numbers: uint64, [n], of this process.
    """
    if process_count() == 1:
        return numbers
    halves = numbers.view(np.uint32)  # JAX has no wider integers
    found = np.ascontiguousarray(multihost_utils.process_allgather(halves))
    return found.view(np.uint64).sum(axis=0, dtype=np.uint64)


def highest(number: int) -> int:
    """Return the highest of the numbers of all processes, which have to call it together."""
    if getattr(_alone, "yes", False) or process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def _broadcast(text: str) -> str:
    data = text.encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(-(-size // PIECE) * PIECE, np.uint8)
    if is_first():
        padded[: len(data)] = np.frombuffer(data, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(padded)[:size]).decode()


def _end() -> None:
    """End this process with the error that is being handled.

    Its connections close with it, on which the collectives of the others fail. An orderly end would
    wait for processes that wait for this one.
    """
    count, error = process_count(), sys.exception()
    if count == 1:
        raise
    is_mistake = error is not None and mistakes.is_mistake(error) and not wants_traceback()
    if is_mistake:
        print(mistakes.sentence(error), file=sys.stderr)
    else:
        traceback.print_exc()
    print(
        f"Process {jax.process_index()} of {count} ends here, and the others with it. If another "
        "one ended before, its output says why. Start all of them again by the same commands: a "
        "training goes on after its last checkpoint, measurements after the last record.",
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(mistakes.CODE if is_mistake else 1)
