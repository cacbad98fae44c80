"""TensorBoard events of a run, written by the thread that trains.

The writers of tensorboardX have a thread and a queue: once a full disk has ended the thread, what
fills the queue waits for ever.
"""

import pathlib
import socket
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import RecordWriter

from sam_jax.runs import disk

FOLDER = "tensorboard"
SECONDS = 120  # at most, until an event is in the file
_events: Any = event_pb2  # whose classes are made when it is imported
_summaries: Any = summary_pb2


class Tensorboard:
    """A file of events in a folder, from a step on, in place of such events in older files."""

    def __init__(self, workdir: pathlib.Path, first_step: int, fields: Mapping[str, Any]) -> None:
        """Open a new file; events have no place for the config."""
        del fields
        self._folder = folder = workdir / FOLDER
        start = _events.SessionLog(status=_events.SessionLog.START)
        with disk.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            self._file = RecordWriter(str(folder / name))
        self._last_flush = time.monotonic()
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, file_version="brain.Event:2")
        self._write(step=first_step, session_log=start)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of a step as one event; an event for each takes several times as long.

        Args:
          step: of the event.
          numbers: finite numbers by name.
        """
        summary = [_summaries.Summary.Value(tag=n, simple_value=x) for n, x in numbers.items()]
        self._write(step=step, summary=_summaries.Summary(value=summary))

    def close(self) -> None:
        """Write what is left, and close the file."""
        with disk.writing(self._folder):
            self._file.close()

    def __del__(self) -> None:
        """Close the file of a training that an error has ended."""
        self._file.close()

    def _write(self, **fields: Any) -> None:
        event = _events.Event(wall_time=time.time(), **fields)
        with disk.writing(self._folder):
            self._file.write(event.SerializeToString())
            if time.monotonic() - self._last_flush > SECONDS:
                self._file.flush()
                self._last_flush = time.monotonic()


WRITER = Tensorboard
