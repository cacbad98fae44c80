"""The log of a run, `metrics.jsonl`, held to what the checkpoints beside it say.

A checkpoint keeps the checksums of the lines that the log had when it was saved. A checkpoint from
before has none: then the log must have a line for each epoch up to it, in their order.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sam_jax.mistakes import UserMistake
from sam_jax.runs import checkpoint_damage, checksums, fields, records, workdirs, writers
from sam_jax.runs.checkpoint_damage import DamagedCheckpoint, epochs_in
from sam_jax.runs.distributed import from_first, is_first
from sam_jax.runs.records import Record

NAME = "metrics.jsonl"


class MetricsLog:
    """The metrics of a run, one record an epoch: `metrics.jsonl` and other writers."""

    def __init__(
        self,
        workdir: pathlib.Path,
        first_epoch: int,
        to: Sequence[str] = ("tensorboard",),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the log and drop the records of a cut run after the epoch that is resumed.

        Args:
          workdir: the folder of the run.
          first_epoch: the one that is resumed.
          to: of writers.NAMES, which get the finite numbers besides `metrics.jsonl`.
          config: the fields of the run, for the writers that show them.

        Raises:
          ValueError: as `read`.
        """
        self._path = workdir / NAME
        kept = [record for record in read(workdir) if record["epoch"] <= first_epoch]
        from_first(lambda: records.cut(self._path, len(kept)))
        self.records = kept  # all that the log holds
        flat = dict(fields.leaves(config or {}))
        to = to if is_first() else ()
        self._writers = writers.opened(to, workdir, first_epoch + 1, flat)

    def write(self, record: Record, more: Mapping[str, float] | None = None) -> None:
        """Write one epoch's record, whose "epoch" is the step of the writers.

        Args:
          record: the line of `metrics.jsonl`.
          more: numbers of the epoch for the writers alone.
        """
        records.append(self._path, record, sealed=False)  # by the checkpoints
        self.records.append(record)
        numbers = writers.finite(record | dict(more or {}))
        for writer in self._writers:
            writer.write(record["epoch"], numbers)

    def close(self) -> None:
        """Close the writers."""
        for writer in self._writers:
            writer.close()


def read(workdir: pathlib.Path, of_this_config: bool = True) -> list[Record]:
    """Return the records of a run's log, one for each epoch from the first.

    A last line without its end was cut off while it was written, and is left out.

    Args:
      workdir: the folder of the run.
      of_this_config: whether its newest checkpoint must be of the config in the folder.

    Raises:
      ValueError: a line is missing, doubled, out of order, or not what was written; the message has
        its number and says what to do.
    """

    def check() -> list[Record]:
        path = workdir / NAME
        epoch, written = _demanded(workdir, of_this_config)  # first: a run may be writing
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        found = []
        for number, line in enumerate(lines, start=1):
            same = number <= len(written) and checksums.of_bytes(line) == written[number - 1]
            record, what = records.parsed(line)
            if not what and record.get("epoch") != number:
                what = f"it has epoch {record.get('epoch')} in the place of epoch {number}"
            if not what and number <= len(written) and not same:
                what = "it is not the line that was written"
            if what:
                raise UserMistake(_refusal(workdir, number, what))
            found.append(record)
        if len(lines) < epoch:
            what = f"it is missing, and the checkpoint of epoch {epoch} was saved after it"
            raise UserMistake(_refusal(workdir, len(lines) + 1, what))
        return found

    return from_first(check)


def _demanded(workdir: pathlib.Path, of_this_config: bool) -> tuple[int, list[str]]:
    """Return how many lines the log must have at least, and the checksums of the first ones."""
    for epoch in reversed(epochs_in(workdir / "checkpoints")):
        try:
            about = checkpoint_damage.about_of(workdir / "checkpoints" / str(epoch))
        except DamagedCheckpoint:
            continue
        if of_this_config and about is not None and about.config is not None:
            what = f"The checkpoint of epoch {epoch}"
            workdirs.refuse_other_origin(workdir, about.config, what, tell=False)
        if about is None:
            return epoch, []
        written = about.log or []
        return len(written), written
    return 0, []


def _refusal(workdir: pathlib.Path, number: int, what: str) -> str:
    """Return what is wrong with a line, and the commands that keep what is whole before it."""
    path, checkpoints = workdir / NAME, workdir / "checkpoints"
    epochs = epochs_in(checkpoints)
    whole = max((epoch for epoch in epochs if epoch < number), default=0)
    newer = [str(checkpoints / str(epoch)) for epoch in epochs if epoch >= number]
    start = (
        f"Line {number} of {path} is damaged: {what}. Put a copy of the file back. Without one, "
    )
    if not newer:
        return f"{start}drop the lines from there on: sed -i '{number},$d' {path}"
    if not whole:
        return (
            f"{start}no checkpoint is old enough to go on from: train again in another --workdir, "
            f"or delete {workdir}."
        )
    return (
        f"{start}go on from the checkpoint of epoch {whole}: sed -i '{whole + 1},$d' {path} && "
        f"rm -r {' '.join(newer)}"
    )
