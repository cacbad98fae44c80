"""What is measured on a trained model, one record a measurement, each saved as it comes."""

import functools
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import ml_collections

from sam_jax import metrics
from sam_jax.measuring import along_directions, curvature, sharpness
from sam_jax.runs import records
from sam_jax.runs.progress import each
from sam_jax.runs.records import Record
from sam_jax.training.trained import Trained, evaluate_sets

# Under every preset, and under the sound one only: of these the study published no number.
OF_EVERY_PRESET = {
    "adversarial_sharpness": sharpness.adversarial_sharpness,
    "average_sharpness": sharpness.average_sharpness,
    "asymmetry_factor": along_directions.asymmetry_factor,
    "loss_curve": along_directions.loss_curve,
}
OF_THE_SOUND_PRESET = {
    "asymmetry_index": along_directions.asymmetry_index,
    "level_set_widths": along_directions.level_set_widths,
    "hessian": curvature.hessian,
}
MEASURES = ("evaluation", *OF_EVERY_PRESET, *OF_THE_SOUND_PRESET)


class Measurement(NamedTuple):
    """One record that is yet to be made."""

    about: Record  # "measure", "preset" and the settings: what identifies it, as JSON has it
    take: Callable[[], Record]  # measures, and returns the fields of the result


def measurements(
    trained: Trained,
    settings: ml_collections.ConfigDict,
    presets: Sequence[str],
    measures: Sequence[str] | None = None,
) -> list[Measurement]:
    """Return what is to be measured on a model: nothing is, before `take()` is called.

    The first are the losses and accuracies over the whole training and test sets, which know no
    preset. Then come the instruments under each preset: adversarial and average sharpness, the
    asymmetry factor and a loss curve; under "sound" the asymmetry index, the widths of a level set
    and the Hessian too, of which the study published nothing.

    Every model that is measured with the same settings sees the same examples, noise and
    directions: they derive from `settings.seed`, not from the seed of the run. Each instrument is
    compiled once for all models of one architecture.

    Args:
      trained: a model and its data.
      settings: the group `instruments` of the config.
      presets: names in `metrics.PRESETS`.
      measures: names in `MEASURES`; None for all that the presets have.

    Returns:
      One `Measurement` a record.

    Raises:
      ValueError: a preset or measure is unknown, is not measured under these presets or has no
        settings, or more examples are asked for than there are.
    """
    _check_names("presets", presets, metrics.PRESETS)
    _check_names("measures", measures or (), MEASURES)
    chosen = [metrics.PRESETS[name] for name in presets]
    unmet = sorted(set(measures or ()) & set(OF_THE_SOUND_PRESET))
    if unmet and metrics.SOUND not in chosen:
        raise ValueError(
            f"the measures {unmet} exist under the preset {metrics.SOUND.name!r} only, and the "
            f"presets are {list(presets)}; add it, or leave these measures out."
        )
    found = []
    if measures is None or "evaluation" in measures:
        evaluate = functools.partial(
            evaluate_sets,
            trained.program,
            trained.data,
            trained.state,
            names=("train", "test"),
        )
        found.append(Measurement({"measure": "evaluation"}, evaluate))
    for preset in chosen:
        sound = OF_THE_SOUND_PRESET if preset == metrics.SOUND else {}
        for measure, instrument in (OF_EVERY_PRESET | sound).items():
            if measures is None or measure in measures:
                _check_settings(settings, measure)
                identity = {"measure": measure, "preset": preset.name}
                for about, take in instrument(trained, settings, preset):
                    found.append(Measurement({**identity, **about}, take))
    return found


def record_measurements(
    path: pathlib.Path | str, measurements: Sequence[Measurement], about: Record, label: str
) -> list[Record]:
    """Take the measurements that a file does not hold yet, and write each as it comes.

    A measurement is held where one record has all fields of `about` and `Measurement.about`. A
    call that was cut goes on with the measurement it was cut in.

    Args:
      path: a file of JSON lines; it is only appended to.
      measurements: as `measurements` returns them.
      about: what else identifies the records. It must tell apart all that the measurements do not:
        the model, its epoch and the `digest` of the settings.
      label: what the progress calls the model.

    Returns:
      The records of these measurements in their order, read or new, as JSON gives them back.
    """
    path = pathlib.Path(path)
    found = records.read(path)
    wanted = [records.as_read({**about, **measurement.about}) for measurement in measurements]
    complete = [_last_with(fields, found) for fields in wanted]
    missing = [number for number, record in enumerate(complete) if record is None]
    for number in each(f"{label} measuring", missing):
        complete[number] = records.as_read({**wanted[number], **measurements[number].take()})
        records.append(path, complete[number])
    return complete


def _check_names(what: str, names: Sequence[str], known: Collection[str]) -> None:
    if isinstance(names, str):
        raise ValueError(f"{what} must be a tuple of names, got the string {names!r}.")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"unknown {what} {unknown}; the {what} are {sorted(known)}.")


def _check_settings(settings: ml_collections.ConfigDict, measure: str) -> None:
    if measure in OF_THE_SOUND_PRESET and measure not in settings:
        raise ValueError(
            f"the settings have no group {measure!r}: the run is older than this measure. Choose "
            "other measures, or add the group, as in configs/digits.py."
        )


def _last_with(fields: Record, found: list[Record]) -> Record | None:
    """Return the last record that has all these fields, None where none has."""
    same = (r for r in reversed(found) if all(k in r and r[k] == v for k, v in fields.items()))
    return next(same, None)
