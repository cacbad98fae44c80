"""The measurements on a trained model, one record each, saved as they come."""

import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import ml_collections
from absl import logging

from sam_jax import metrics
from sam_jax.measuring import registry
from sam_jax.measuring.instrument import Subject
from sam_jax.measuring.measured import Measured, as_measured, check_conditions
from sam_jax.measuring.nonfinite_places import nonfinite_places
from sam_jax.measuring.settings import check, completed, settings_digest
from sam_jax.mistakes import checking, first_of
from sam_jax.runs import locks, records, workdirs
from sam_jax.runs.progress import each
from sam_jax.runs.records import Record
from sam_jax.suggestions import did_you_mean
from sam_jax.training.trained import Trained, load_trained

EVALUATIONS = "evaluations.jsonl"  # in the folder of a run: its records


class Measurement(NamedTuple):
    """One record that is yet to be made."""

    about: Record  # "measure", "preset" and the settings: what identifies it, as JSON has it
    take: Callable[[], Record]  # measures, and returns the fields of the result


def measure_run(
    workdir: pathlib.Path | str,
    epoch: int | None = None,
    presets: Sequence[str] = ("sound",),
    measures: Sequence[str] | None = None,
) -> list[Record]:
    """Measure a run and return the records, those that its file held already included.

    Args:
      workdir: the folder of a run of `sam_jax.train`.
      epoch: the checkpoint to measure; None for the last.
      presets: names in `metrics.PRESETS`.
      measures: names of instruments; None means the default ones.

    Raises:
      FileNotFoundError: there is no such run or checkpoint.
      ValueError: as `measurements`.
      locks.InUse: another process measures it.
    """
    workdir = pathlib.Path(workdir)
    with checking():  # before the model is loaded
        check_names(presets, measures)
        own = workdirs.read_config(workdir)
        if "instruments" in own:
            check(own.instruments)
    with locks.held(workdir, "evaluation", make=False):
        return _measure(workdir, epoch, presets, measures)


def _measure(
    workdir: pathlib.Path,
    epoch: int | None,
    presets: Sequence[str],
    measures: Sequence[str] | None,
) -> list[Record]:
    """Do what `measure_run` does in a folder that is locked."""
    config, trained = load_trained(workdir, epoch)
    about = {"epoch": trained.epoch, "seed": config.seed}
    with checking():
        found = measurements(trained, config.instruments, presets, measures, workdir)
    wanted = with_settings(found, config.instruments)
    return record_measurements(workdir / EVALUATIONS, wanted, about, f"epoch {trained.epoch}")


def measurements(
    model: Trained | Measured,
    settings: ml_collections.ConfigDict,
    presets: Sequence[str],
    measures: Sequence[str] | None = None,
    workdir: pathlib.Path | None = None,
) -> list[Measurement]:
    """Return the measurements to take on a model; nothing is measured before `take()` is called.

    First come the instruments that know no preset, then the others under each preset, in the order
    of `registry.INSTRUMENTS`. An instrument that the config has no settings for takes its defaults.

    Every model that is measured with the same settings sees the same examples, noise and
    directions: they derive from `settings.seed`, not from the seed of the run. Each instrument is
    compiled once for all models of one architecture.

    Args:
      model: a run at the end of an epoch, or another model, and its sets.
      settings: the group `instruments` of the config.
      presets: names in `metrics.PRESETS`.
      measures: names of instruments; None for all that measure by default.
      workdir: the folder of the run, for instruments that read its checkpoints or keep files.

    Returns:
      One `Measurement` a record.

    Raises:
      ValueError: a preset or measure is unknown; a measure is not measured under these presets; or
        an instrument cannot measure this model with its settings, because they ask for more
        examples than the set has, for example.
    """
    check_names(presets, measures)
    measured = as_measured(model)
    chosen = registry.chosen(measures)
    settings = completed(settings)
    found = []
    for preset in (None, *(metrics.PRESETS[name] for name in presets)):
        for instrument in chosen:
            if not instrument.measures_under(preset):
                continue
            if preset:
                check_conditions(measured.network, preset)
            identity = {"measure": instrument.name} | ({"preset": preset.name} if preset else {})
            subject = Subject(measured, settings, preset or metrics.SOUND, workdir)
            for about, take in instrument.plan(subject):
                found.append(Measurement({**identity, **about}, take))
    return found


def with_settings(
    measurements: Sequence[Measurement], settings: ml_collections.ConfigDict
) -> list[Measurement]:
    """Return measurements whose records name the digest of their settings.

    Args:
      measurements: as `measurements` returns them.
      settings: the group `instruments` of the config, as it is there.
    """
    measures = {measurement.about["measure"] for measurement in measurements}
    digests = {
        instrument.name: settings_digest(settings, instrument)
        for instrument in registry.chosen(measures)
    }
    return [
        measurement._replace(
            about={"settings": digests[measurement.about["measure"]]} | measurement.about
        )
        for measurement in measurements
    ]


def record_measurements(
    path: pathlib.Path | str, measurements: Sequence[Measurement], about: Record, label: str
) -> list[Record]:
    """Take the measurements that a file does not hold yet, and write each as it comes.

    A measurement is held where one record has all fields of `about` and `Measurement.about`. A
    call that was cut goes on with the measurement it was cut in.

    Where numbers of a result are not finite, a warning says which, and the record has their places
    in the field `not_finite`.

    Args:
      path: a file of JSON lines; it is only appended to.
      measurements: as `measurements` returns them.
      about: what else identifies the records. It must tell apart all that the measurements do not:
        the model, its epoch and the `digest` of the settings.
      label: the name of the model in the progress.

    Returns:
      The records of these measurements in their order, read or new, as JSON gives them back.
    """
    path = pathlib.Path(path)
    found = records.read(path)
    wanted = [records.as_read({**about, **measurement.about}) for measurement in measurements]
    complete = [_last_with(fields, found) for fields in wanted]
    missing = [number for number, record in enumerate(complete) if record is None]
    names = [measurement.about["measure"].replace("_", " ") for measurement in measurements]
    for number in each(f"{label} measuring", missing, names.__getitem__):
        result = records.as_read(measurements[number].take())
        if places := nonfinite_places(result):
            logging.warning(
                "%s: %s is not finite at %s.", label, about_text(wanted[number]), first_of(places)
            )
            result["not_finite"] = places
        record = {**wanted[number], **result}
        records.append(path, record)
        complete[number] = record
    return [record for record in complete if record is not None]


def about_text(about: Record) -> str:
    """Return what a record is about in words.

    >>> about_text({"measure": "hessian", "preset": "sound", "seed": 0, "m": 32})
    'hessian (preset sound, seed 0, m 32)'
    """
    settings = (f"{name} {value}" for name, value in about.items() if name != "measure")
    return f"{about.get('measure')} ({', '.join(settings)})"


def check_names(presets: Sequence[str], measures: Sequence[str] | None) -> None:
    """Raise a ValueError unless there are such presets and measures, and each measure under one.

    Args:
      presets, measures: as in `measurements`.
    """
    if measures is not None:
        _check_names("measures", measures, registry.by_name())
    chosen = registry.chosen(measures)
    if presets or any(instrument.presets for instrument in chosen):
        _check_names("presets", presets, metrics.PRESETS)
    for instrument in chosen if measures is not None else ():
        if instrument.presets and not set(instrument.presets) & set(presets):
            raise ValueError(
                f"the measure {instrument.name!r} exists under the presets "
                f"{list(instrument.presets)} only, and the presets are {list(presets)}; add one "
                "of them, or leave this measure out."
            )


def _check_names(what: str, names: Sequence[str], known: Collection[str]) -> None:
    if isinstance(names, str):
        raise ValueError(f"{what} must be a tuple of names, got the string {names!r}.")
    if not names:
        raise ValueError(f"{what} must name one at least, of {sorted(known)}; got none.")
    unknown = sorted(set(names) - set(known))
    if unknown:
        near = did_you_mean(unknown[0], known)
        raise ValueError(f"unknown {what} {unknown}; the {what} are {sorted(known)}.{near}")


def _last_with(fields: Record, found: list[Record]) -> Record | None:
    """Return the last record that has all these fields, None where none has."""
    same = (r for r in reversed(found) if all(k in r and r[k] == v for k, v in fields.items()))
    return next(same, None)
