"""Signs of life: what a command is doing, wherever it has shown nothing for ten seconds.

What works names itself by `doing`, what shows progress calls `shown`, and JAX says what it
compiles. In a block of `beating` a thread of its own prints a line after a long silence.
"""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm

from sam_jax.runs.distributed import is_first

SILENCE = 9.0  # seconds after which a line is due
LOOK = 0.5  # seconds from one look to the next
LONG = 1.0  # seconds from which on a compilation is worth a word
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # after it JAX compiles
_COMPILED = "/jax/core/compile/backend_compile_duration"


class _Activity:
    """What the threads of this process are doing, and when the user last saw anything."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.last_shown = time.monotonic()
        self.doing: dict[int, list[tuple[str, float]]] = {}  # thread -> from outside to inside
        self.compiling: dict[int, tuple[str, float]] = {}


_activity = _Activity()


def shown() -> None:
    """Note that the user has just seen something."""
    _activity.last_shown = time.monotonic()


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Name the work of a block, for a sign of life where it takes long.

    Args:
      what: the work, such as "reading the data set".
    """
    thread, entry = threading.get_ident(), (what, time.monotonic())
    with _activity.lock:
        _activity.doing.setdefault(thread, []).append(entry)
    try:
        yield
    finally:
        with _activity.lock:
            entries = _activity.doing.get(thread, [])
            if entry in entries:  # a generator may be closed by another thread
                entries.remove(entry)
            if not entries:
                _activity.doing.pop(thread, None)


@contextlib.contextmanager
def beating() -> Iterator[None]:
    """Print a line wherever this block has shown nothing for ten seconds, in the first process."""
    if not is_first():
        yield
        return
    _listen_to_jax()
    shown()
    begun, stop = time.monotonic(), threading.Event()

    def beat() -> None:
        while not stop.wait(LOOK):
            now = time.monotonic()
            if now - _activity.last_shown >= SILENCE:
                tqdm.write(line(now, begun), file=sys.stderr)  # above the bar, where there is one
                sys.stderr.flush()
                shown()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def line(now: float, begun: float) -> str:
    """Return what all threads are doing, and for how long.

    Args:
      now: the time, in seconds.
      begun: when the command began.
    """
    with _activity.lock:
        work = {thread: entries[-1] for thread, entries in _activity.doing.items()}
        compiling = dict(_activity.compiling)
    parts = []
    for thread in work.keys() | compiling.keys():
        what, since = work.get(thread, ("", begun))
        if thread in compiling and now - compiling[thread][1] >= LONG:
            program, since = compiling[thread]
            what = f"{what}{': ' if what else ''}compiling {program}"
        parts.append(f"{what}, {now - since:.0f} s")
    return "; ".join(sorted(parts)) or f"still at work, {now - begun:.0f} s"


@functools.cache
def _listen_to_jax() -> None:
    """Learn from JAX when it compiles a program; its listeners stay for ever."""

    def listen(event: str, duration_secs: float, **about: Any) -> None:
        del duration_secs  # of what has just ended
        thread = threading.get_ident()
        with _activity.lock:
            if event == _LOWERED:
                name = str(about.get("fun_name", "a program"))
                _activity.compiling[thread] = (_readable(name), time.monotonic())
            elif event == _COMPILED:
                _activity.compiling.pop(thread, None)

    jax.monitoring.register_event_duration_secs_listener(listen)


def _readable(name: str) -> str:
    """Return the name of a compiled function in words.

    >>> _readable("jit(run_steps)"), _readable("jit(<lambda>)")
    ('run_steps', 'a program')
    """
    name = name.removeprefix("jit(").removesuffix(")").strip("_")
    return name if name.isidentifier() else "a program"
