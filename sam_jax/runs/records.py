"""Records: append-only JSON lines, with the metrics of a run as TensorBoard events beside them.

Of several processes the first one reads and writes, and the others have what it read.
"""

import json
import math
import os
import pathlib
import zlib
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.proto import summary_pb2

from sam_jax.runs.distributed import from_first, is_first

Record = dict[str, Any]
_messages: Any = summary_pb2  # whose classes are made when it is imported


def append(path: pathlib.Path, record: Record) -> None:
    """Append one record as a JSON line; arrays become lists and NaN stays NaN.

    A last line that was cut off while it was written is dropped first.
    """

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _ends_whole(path):
            rewrite(path, read(path))
        with path.open("a") as file:
            file.write(json.dumps(record, default=_plain) + "\n")

    from_first(write)


def read(path: pathlib.Path) -> list[Record]:
    """Return the records of a file, none where it does not exist.

    A last line without its end was cut off while it was written, and is left out.
    """
    text = from_first(lambda: path.read_text() if path.exists() else "")
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


def rewrite(path: pathlib.Path, records: list[Record]) -> None:
    """Replace the records of a file in one move, so that a cut leaves the old or the new ones."""

    def write() -> None:
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(r, default=_plain) + "\n" for r in records))
        temporary.replace(path)

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


class MetricsLog:
    """The metrics of a run, one record an epoch: `metrics.jsonl` and TensorBoard events."""

    def __init__(self, workdir: pathlib.Path, first_epoch: int) -> None:
        """Open the log and drop the records of a cut run after the epoch that is resumed."""
        self._path = workdir / "metrics.jsonl"
        kept = [record for record in read(self._path) if record["epoch"] <= first_epoch]
        if from_first(self._path.exists):
            rewrite(self._path, kept)
        self._writer = None
        if is_first():
            self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_epoch + 1)

    def write(self, record: Record) -> None:
        """Write one epoch's record; its "epoch" is the step of the events."""
        append(self._path, record)
        if self._writer is None:
            return
        values = [
            _messages.Summary.Value(tag=name, simple_value=value)
            for name, value in record.items()
            if name != "epoch" and math.isfinite(value)
        ]
        # One event for all numbers: an event for each takes several times as long.
        events: Any = self._writer.file_writer
        events.add_summary(_messages.Summary(value=values), record["epoch"])

    def close(self) -> None:
        """Flush the events to disk."""
        if self._writer is not None:
            self._writer.close()


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
