"""Files that grow while they are read: JSON lines of a run, and single JSON objects."""

import json
import os
import pathlib
from typing import Any, NamedTuple

Record = dict[str, Any]


class Log(NamedTuple):
    """What is known of a file of JSON lines, one an epoch; an empty one of a file not there."""

    version: tuple[int, ...] = ()  # device, inode, size and time of the file when it was read
    end: int = 0  # bytes of the whole lines
    lines: int = 0  # how many these are
    records: tuple[Record, ...] = ()  # of the lines that are whole and have an epoch
    damaged: tuple[int, ...] = ()  # the numbers of the others, from 1
    fault: str = ""  # why the file cannot be read


def read_on(path: pathlib.Path, log: Log) -> Log:
    """Return a log with the lines that came since; the same object where nothing did.

    A last line without its end is still being written, and is left for the next look. A file that
    was replaced, cut, or changed in its place is read anew.

    Args:
      path: the file.
      log: what `read_on` returned before, or `Log()`.
    """
    try:
        status = path.stat()
        if version_of(status) == log.version:
            return log
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            grown = _same_file(status, log) and status.st_size > log.version[2]
            log = log if grown else Log()
            file.seek(log.end)
            data = file.read()
    except FileNotFoundError:
        return log if log == Log() else Log()
    except OSError as error:
        fault = error.strerror or str(error)
        return log if log.fault == fault else log._replace(fault=fault, version=())
    *lines, rest = data.split(b"\n")
    found = [_record(line) for line in lines]
    return Log(
        version_of(status),
        log.end + len(data) - len(rest),
        log.lines + len(lines),
        (*log.records, *(record for record in found if record)),
        (*log.damaged, *(log.lines + i for i, record in enumerate(found, 1) if record is None)),
    )


def read_object(path: pathlib.Path) -> Record | None:
    """Return the JSON object of a file; None where it holds none, or cannot be read."""
    try:
        found = _parsed(path.read_bytes())
    except OSError:
        return None
    return found if isinstance(found, dict) else None


def version_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes with the contents of a file."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _same_file(status: os.stat_result, log: Log) -> bool:
    return log.version[:2] == (status.st_dev, status.st_ino) and status.st_size >= log.end


def _record(line: bytes) -> Record | None:
    """Return the record of a line, an empty one for an empty line, None for a damaged line."""
    if not line.strip():
        return {}
    found = _parsed(line)
    epoch = found.get("epoch") if isinstance(found, dict) else None
    return found if type(epoch) is int and epoch > 0 else None


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
