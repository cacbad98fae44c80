"""Where an instrument keeps data too large for a record: a folder inside the run's folder."""

import pathlib

from sam_jax.measuring.instrument import Subject
from sam_jax.runs import records
from sam_jax.runs.records import Record


def folder_of(subject: Subject, measure: str, about: Record) -> pathlib.Path:
    """Return the folder of one measurement, `WORKDIR/landscapes/MEASURE_POINT_SETTINGS`.

    Args:
      subject: the measured model; each of its settings and points, such as epoch_3, has a folder.
      measure: the name of the instrument.
      about: the settings of the record.

    Raises:
      ValueError: the subject has no folder of a run.
    """
    if subject.workdir is None:
        raise ValueError(
            f"{measure} keeps files in the folder of the run, and none is given. Pass the run's "
            "workdir, as python -m sam_jax.evaluate does, or leave this measure out."
        )
    shared = {name: subject.settings[name] for name in ("seed", "batch_size")}
    point = subject.measured.name.replace(" ", "_")
    name = f"{measure}_{point}_{records.digest({**shared, **about})}"
    return subject.workdir / "landscapes" / name
