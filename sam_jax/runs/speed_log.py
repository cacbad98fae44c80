"""How fast a training is, `speed.jsonl`: apart from the log of its metrics.

A resumed run has the same metrics.jsonl as one that was not cut, byte for byte, and clocks differ.
Nothing depends on this file: lines that are lost or damaged are left out.
"""

import json
import pathlib
import time

from sam_jax.runs import disk, records
from sam_jax.runs.distributed import is_first
from sam_jax.runs.records import Record

NAME = "speed.jsonl"


class SpeedLog:
    """A line an epoch: its seconds, images/s, and the time of day at its end."""

    def __init__(
        self, workdir: pathlib.Path, first_epoch: int, images_per_epoch: int, images_done: int = 0
    ) -> None:
        """Begin to count, and drop the lines of epochs that are done again.

        Args:
          workdir: the folder of the run.
          first_epoch: how many epochs are done.
          images_per_epoch: of the training.
          images_done: of the epoch that is begun, by a process before.
        """
        self._path = workdir / NAME
        self._images_per_epoch, self._images_done = images_per_epoch, images_done
        self._since = time.perf_counter()
        if is_first():
            _keep(self._path, first_epoch)

    def write(self, epoch: int) -> dict[str, float]:
        """Write the line of an epoch that has just ended.

        Args:
          epoch: its number, from one.

        Returns:
          "seconds" since the epoch before or since this process began to count, by the clock on
          the wall, and "images_per_second" of what it trained on in them. The first epoch of a
          process holds its compilation.
        """
        images = self._images_per_epoch - self._images_done
        self._images_done = 0
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        numbers = {"seconds": round(seconds, 6), "images_per_second": round(images / seconds, 3)}
        record = {"epoch": epoch, **numbers, "time": round(time.time(), 3)}
        records.append(self._path, record, sealed=False)
        return numbers


def read(workdir: pathlib.Path) -> list[Record]:
    """Return the whole lines of a run's speeds, none where there is no file."""
    path = workdir / NAME
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [record for line in lines if (record := _record(line))]


@disk.writes
def _keep(path: pathlib.Path, epochs: int) -> None:
    """Drop what is no line of the first epochs, in one move."""
    if not path.exists():
        return
    found = (record for record in read(path.parent) if record["epoch"] <= epochs)
    lines = "".join(f"{json.dumps(record)}\n" for record in found).encode()
    if lines != path.read_bytes():
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(lines)
        temporary.replace(path)


def _record(line: bytes) -> Record | None:
    """Return the record of a line, None for one that is damaged."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and type(record.get("epoch")) is int else None
