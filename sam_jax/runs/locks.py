"""A lock on what a command writes; the end of its process releases it, however it ends."""

import contextlib
import os
import pathlib
import re
import socket
from collections.abc import Iterator

from absl import logging

from sam_jax.mistakes import UserMistake
from sam_jax.runs.distributed import from_first


class InUse(UserMistake):
    """Another command is writing what this one wants to write."""


@contextlib.contextmanager
def held(folder: pathlib.Path, work: str, make: bool = True) -> Iterator[None]:
    """Hold the lock of a folder in this block; of several processes the first one does.

    The file FOLDER/WORK.lock names the process and its host, and is there as long as the block. A
    folder that cannot be written, or has no locks, is no error: what writes there says so itself.

    Args:
      folder: to lock.
      work: "training", for example; two kinds of work do not lock each other out.
      make: whether to make the folder; it is removed again where nothing else is written.

    Raises:
      InUse: another process, or another thread, holds the lock.
    """
    taken: list[int] = []
    made: list[pathlib.Path] = []
    path = folder / f"{work}.lock"

    def take() -> None:
        if make:
            made.extend(_make(folder))
        taken.extend(_take(path, folder, work))

    def release() -> None:
        for descriptor in taken:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)
        with contextlib.suppress(OSError):  # it holds something
            for parent in made:
                parent.rmdir()

    from_first(take)
    try:
        yield
    finally:
        release()  # which is nothing in the other processes


def holder(folder: pathlib.Path, work: str) -> str:
    """Return who holds the lock of a folder, as "process 12 on HOST"; "" for nobody.

    The lock is not touched. A process of this host that was killed left its file, and holds
    nothing; one of another host cannot be asked, and is believed.

    Args:
      folder: that may be locked.
      work: as in `held`.
    """
    try:
        words = (folder / f"{work}.lock").read_text(errors="replace").strip()
    except OSError:
        return ""
    match = re.fullmatch(r"process (\d{1,9}) on (.+)", words)
    if match is None:
        return words or "a process that is just beginning"
    is_here = match[2] == socket.gethostname()
    return "" if is_here and os.name == "posix" and not _is_alive(int(match[1])) else words


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return True


def _make(folder: pathlib.Path) -> list[pathlib.Path]:
    """Make a folder and return all folders that were made, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return []
    return missing


def _take(path: pathlib.Path, folder: pathlib.Path, work: str) -> list[int]:
    """Return the open file that is locked, or nothing where it cannot be."""
    try:
        import fcntl
    except ImportError:  # Windows, where nothing is locked
        return []
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return []
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 1000).decode(errors="replace").strip()
            os.close(descriptor)
            raise InUse(
                f"{folder} is in use by {holder or 'another process'} ({work}). Wait until it has "
                "ended, or choose another --workdir."
            ) from error
        except OSError as error:
            os.close(descriptor)
            logging.warning("%s is not locked (%s): run nothing else there.", folder, error)
            return []
        if _is_at(descriptor, path):
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return [descriptor]
        os.close(descriptor)  # whoever held it has just removed the file


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
