"""Signals that ask a command to end: the first one in order, a second one at once.

What trains or measures asks between its compiled calls whether it is to stop, keeps what it has,
and raises `Stopped`. Python calls handlers in the main thread alone, and not while that one waits
for a compiled call: so a thread of its own hears the signals.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

from sam_jax.runs.distributed import highest

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
PATIENCE = 8.0  # seconds that the calls under way may still take
LEAVING = 1.5  # seconds from the end of saving to the end of the process
ONE_PRESS = 1.0  # seconds; a terminal and a launcher pass on the same press of Ctrl-C


class Stopped(SystemExit):
    """The end that a signal asked for: an exit with the code 128 + signal, and no failure."""

    def __init__(self, number: int, advice: str = "The same command goes on.") -> None:
        """Take the number of the signal, and what the user is told after its name."""
        super().__init__(128 + number)
        self.name, self.advice = signal.Signals(number).name, advice


class _Heard:
    """What this process has heard since it listens."""

    def __init__(self) -> None:
        self.listening = False
        self.first = 0  # the number of the first signal
        self.deadline = float("inf")  # when all work that is not being saved is given up
        self.saving = 0  # threads


_heard = _Heard()
_lock = threading.Lock()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Listen to the signals in this block, which is to be called in the main thread.

    What stands in no main thread, or in another such block, is left as it is. A signal that the
    environment ignores, as `nohup` does, stays ignored.
    """
    if _heard.listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    _heard.__init__()
    _heard.listening = True
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    listener = threading.Thread(target=_listen, args=(reader,), name="signals", daemon=True)
    wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in wanted}
    listener.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        writer.close()  # which ends the thread
        listener.join()
        reader.close()
        _heard.listening = False


def asked() -> int:
    """Return the number of the signal that asked this command to end, 0 for none.

    Of several processes all get the same answer, whichever heard the signal: all of them have to
    ask together.
    """
    return highest(_heard.first) if _heard.listening else 0


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """Save in this block what a signal has stopped, which may take the time that it takes."""
    with _lock:
        _heard.saving += 1
    try:
        yield
    finally:
        with _lock:
            _heard.saving -= 1
            _heard.deadline = max(_heard.deadline, time.monotonic() + LEAVING)


def stop_if_asked() -> None:
    """Raise `Stopped` where a signal has asked this command to end; everything is kept by then."""
    number = asked()
    if number:
        raise Stopped(number)


def end(stopped: Stopped) -> NoReturn:
    """End this process in order, without waiting for the threads that compile what comes next."""
    print(f"Ended by {stopped.name}. {stopped.advice}".rstrip(), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    code = stopped.code
    assert isinstance(code, int)
    os._exit(code)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Start processes in this block that the terminal's signals do not reach.

    This process tells them itself. Until they unblock them they wait for these signals.
    """
    ours = SIGNALS[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)


def _listen(reader: socket.socket) -> None:
    first_at = 0.0
    while True:
        reader.settimeout(0.1 if _heard.first else None)
        try:
            numbers = reader.recv(64)
        except TimeoutError:
            if not _heard.saving and time.monotonic() > _heard.deadline:
                _end_now(
                    _heard.first,
                    f"ended {PATIENCE:.0f} s later, in a call that takes longer. What was saved "
                    "before is kept, and the same command goes on; with fewer steps_per_call a "
                    "training ends sooner",
                )
            continue
        if not numbers:
            return
        for number in filter(SIGNALS.__contains__, numbers):
            name = signal.Signals(number).name
            if not _heard.first:
                first_at = time.monotonic()
                _heard.deadline = first_at + PATIENCE
                _heard.first = number
                _say(f"{name}: ending after the call under way; a second signal ends at once")
            elif time.monotonic() - first_at > ONE_PRESS:
                _end_now(number, "ended at once. The same command goes on")


def _end_now(number: int, why: str) -> NoReturn:
    _say(f"{signal.Signals(number).name}: {why}")
    os._exit(128 + number)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone
        os.write(2, f"{text}.\n".encode())


def _forget_in_child() -> None:
    """Give a child process what it would have without us: it shares our socket."""
    if _heard.listening:
        _heard.listening = False
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget_in_child)
