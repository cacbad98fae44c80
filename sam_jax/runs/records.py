"""Records: append-only JSON lines, and beside them the checksum of each line.

Of `NAME.jsonl` the checksums lie in `NAME.crc32`: a line holds the place of a record, in bytes, and
the CRC-32 of its line. It is written before the record is, so that a cut leaves none without. Files
from before have none, up to the first record that is appended. Of several processes the first one
reads and writes, and the others have what it read.
"""

import itertools
import json
import os
import pathlib
import zlib
from typing import Any

import numpy as np

from sam_jax.mistakes import UserMistake
from sam_jax.runs import checksums, disk, record_fields
from sam_jax.runs.distributed import from_first

Record = dict[str, Any]


@disk.writes
def append(path: pathlib.Path, record: Record, sealed: bool = True) -> None:
    """Append one record as a JSON line; arrays become lists and NaN stays NaN.

    A last line that was cut off while it was written is dropped first.

    Args:
      path: the file.
      record: what JSON can hold, and arrays.
      sealed: whether its checksum is written.
    """

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for torn in (path, seals_of(path)):  # by a cut, or by a full disk
            if not _ends_whole(torn):
                cut(torn)
        line = json.dumps(record, default=_plain).encode()
        if sealed:
            place = path.stat().st_size if path.exists() else 0
            with seals_of(path).open("a") as file:
                file.write(f"{place} {checksums.of_bytes(line)}\n")
        with path.open("ab") as file:
            file.write(line + b"\n")

    from_first(write)


def read(path: pathlib.Path) -> list[Record]:
    """Return the records of a file, none where it does not exist.

    A last line without its end was cut off while it was written, and is left out.

    Raises:
      ValueError: a line is no record, is not what was written, or has a field of another kind than
        it must; the message has the number of the line.
    """
    return from_first(lambda: _checked(path))


def seals_of(path: pathlib.Path) -> pathlib.Path:
    """Return the file with the checksums of the lines of another."""
    return path.with_suffix(".crc32")


def _checked(path: pathlib.Path) -> list[Record]:
    """Return the records of a file, each known to be what was written."""
    if not path.exists():
        return []
    data = path.read_bytes()
    seals = _seals(path)
    place, first, found = 0, min(seals, default=len(data)), []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        record, what = parsed(line)
        if not what and place >= first and seals.get(place) != checksums.of_bytes(line):
            what = (
                f"it is not what was written (where you changed it yourself, delete "
                f"{seals_of(path)})"
            )
        if what:
            raise UserMistake(
                f"Line {number} of {path} is damaged: {what}. Put a copy of the file back; or drop "
                f"the lines from there on by sed -i '{number},$d' {path}, and the command that "
                "wrote them makes them again."
            )
        place += len(line) + 1
        if record:
            found.append(record)
    return found


def parsed(line: bytes) -> tuple[Record, str]:
    """Return the record of a line, and in words why it is none; an empty line has none."""
    try:
        record = json.loads(line) if line else {}
    except ValueError:
        return {}, "it is no JSON"
    if not isinstance(record, dict):
        return {}, "it is no JSON object"
    return record, record_fields.wrong(record)


def _seals(path: pathlib.Path) -> dict[int, str]:
    """Return the checksums of a file's lines by their places; of two the later holds."""
    file = seals_of(path)
    if not file.exists():
        return {}
    found = {}
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        place, _, checksum = line.partition(b" ")
        if not place.isdigit() or len(checksum) != 8:
            raise UserMistake(
                f"Line {number} of {file}, the checksums of {path}, is damaged. Put a copy of the "
                "file back; or delete it, if the records themselves are right."
            )
        found[int(place)] = checksum.decode(errors="replace")
    return found


@disk.writes
def cut(path: pathlib.Path, lines: int | None = None) -> None:
    """Keep the first whole lines of a file, all for None, byte for byte and in one move."""
    if not path.exists():
        return
    data = path.read_bytes()
    kept = b"".join(line + b"\n" for line in data.split(b"\n")[:-1][:lines])
    if kept != data:
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(kept)
        temporary.replace(path)


@disk.writes
def sync(path: pathlib.Path) -> None:
    """Have the disk hold what a file has by now, where it exists: a power loss then keeps it."""
    if path.exists():
        with path.open("ab") as file:
            os.fsync(file.fileno())


@disk.writes
def rewrite(path: pathlib.Path, records: list[Record]) -> None:
    """Replace the records of a file in one move, so that a cut leaves the old or the new ones."""

    def write() -> None:
        lines = [json.dumps(record, default=_plain).encode() for record in records]
        temporary, seals = path.with_suffix(".tmp"), seals_of(path)
        temporary.write_bytes(b"".join(line + b"\n" for line in lines))
        seals.unlink(missing_ok=True)  # those of other lines: a cut leaves none
        temporary.replace(path)
        places = itertools.accumulate((len(line) + 1 for line in lines), initial=0)
        texts = (
            f"{p} {checksums.of_bytes(line)}\n" for p, line in zip(places, lines, strict=False)
        )
        temporary.write_text("".join(texts))
        temporary.replace(seals)

    from_first(write)


def as_read(record: Record) -> Record:
    """Return a record as it is read back: numbers and lists for arrays, lists for tuples."""
    return json.loads(json.dumps(record, default=_plain))


def differing_fields(found: Record, wanted: Record) -> list[str]:
    """Return the names of the fields that differ once both are read back; NaN equals NaN.

    >>> differing_fields({"pair": ["a", "b"], "rho": 0.1}, {"pair": ("a", "b"), "rho": 0.2})
    ['rho']
    """
    found, wanted = as_read(found), as_read(wanted)
    return sorted(
        name
        for name in found.keys() | wanted.keys()
        if json.dumps(found.get(name), sort_keys=True)
        != json.dumps(wanted.get(name), sort_keys=True)
    )


def digest(settings: Any) -> str:
    """Return a short name of settings that JSON can hold, the same where they are the same."""
    text = json.dumps(settings, sort_keys=True, default=_plain)
    return f"{zlib.crc32(text.encode()):08x}"


def _ends_whole(path: pathlib.Path) -> bool:
    """Say whether the last line of a file has its end; so it is where there is no file or line."""
    if not path.exists() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return array.item() if array.ndim == 0 else array.tolist()
