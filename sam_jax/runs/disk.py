"""Writing to a disk that is full, or may not be written: a sentence instead of a traceback."""

import contextlib
import errno
import functools
import logging
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
WHY = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file would be larger than this process may write",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "it may only be read",
    errno.EPERM: "it may only be read",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
# What TensorStore says, and the texts of errors whose number is lost.
_NUMBER = re.compile(r"os_error_code='(\d+)'|\[Errno (\d+)\]")
_TEXTS = {os.strerror(number): number for number in WHY if number != errno.EPERM}
MORE = 2**16  # bytes of a checkpoint besides its arrays


class NoRoom(OSError):
    """Something cannot be written; the message has the path, the bytes needed and those free."""

    def __str__(self) -> str:
        """Return the sentence without the number before it."""
        return str(self.strerror)


@contextlib.contextmanager
def writing(path: pathlib.Path, needed: int = 0) -> Iterator[None]:
    """Turn the errors of a full or closed disk in this block into `NoRoom`.

    Args:
      path: what is written: a file or a folder.
      needed: bytes, as far as they are known.
    """
    try:
        yield
    except NoRoom:
        raise
    except Exception as error:
        known = next((x for x in _chain(error) if isinstance(x, NoRoom)), None)
        number = next(filter(None, map(_number, _chain(error))), 0)
        if known is None and not number:
            raise
        raise known or no_room(path, number, needed) from error


def writes(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that writes to the path that is its first argument, by `writing`."""

    @functools.wraps(function)
    def explained(*args: P.args, **kwargs: P.kwargs) -> T:
        path = args[0] if args else next(iter(kwargs.values()))
        assert isinstance(path, pathlib.Path)
        with writing(path):
            return function(*args, **kwargs)

    return explained


def check_room(folder: pathlib.Path, needed: int) -> None:
    """Raise `NoRoom` unless a folder has room for so many bytes, before any is written."""
    free = _free(folder)
    if free is not None and free < needed:
        raise no_room(folder, errno.ENOSPC, needed)


def no_room(path: pathlib.Path, number: int, needed: int) -> NoRoom:
    """Return the error for something that cannot be written.

    Args:
      path: as in `writing`.
      number: the `errno`.
      needed: as in `writing`.
    """
    room = ""
    if number in FULL:
        block = os.statvfs(_existing(path)).f_frsize if hasattr(os, "statvfs") else 1
        room = f" ({max(needed, block):,} bytes needed, {_free(path) or 0:,} free)"
    return NoRoom(
        number,
        f"{path} cannot be written: {WHY[number]}{room}. What was saved before is whole, and the "
        "same command goes on once it can be written.",
    )


@functools.cache
def said_once() -> None:
    """Let threads, and orbax, not print the errors of a full disk: a sentence tells of it."""

    def is_told(error: BaseException | None) -> bool:
        return error is not None and any(_number(x) in FULL for x in _chain(error))

    def keep(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        told = is_told(error) or _number_in(record.getMessage()) in FULL
        return record.levelno < logging.ERROR or not told

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        if not is_told(arguments.exc_value):
            before(arguments)

    before = threading.excepthook
    threading.excepthook = in_thread
    for handler in logging.getLogger().handlers:
        handler.addFilter(keep)


def _number(error: BaseException) -> int:
    """Return the number of an error that is in `WHY`, 0 for another error."""
    number = error.errno if isinstance(error, OSError) else None
    return _number_in(str(error)) if number is None else number if number in WHY else 0


def _number_in(text: str) -> int:
    """Return the number that a text names, or describes, if it is in `WHY`; else 0."""
    found = _NUMBER.search(text)
    if found:
        number = int(found[1] or found[2])
        return number if number in WHY else 0
    return next((number for words, number in _TEXTS.items() if words in text), 0)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it, in groups too."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [x for x in (one.__cause__, one.__context__) if x is not None]
        waiting += getattr(one, "exceptions", ())


def _free(path: pathlib.Path) -> int | None:
    try:
        return shutil.disk_usage(_existing(path)).free
    except OSError:
        return None


def _existing(path: pathlib.Path) -> pathlib.Path:
    """Return the first of a path and its parents that exists."""
    return next((p for p in (path, *path.parents) if p.exists()), pathlib.Path("."))
