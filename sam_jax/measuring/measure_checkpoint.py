"""The measurements on a checkpoint of one's own, with the records and files of those on a run."""

import pathlib
from collections.abc import Sequence

import jax
import ml_collections

from sam_jax.measuring.measure import (
    EVALUATIONS,
    check_names,
    measurements,
    record_measurements,
    with_settings,
)
from sam_jax.measuring.measured import Measured
from sam_jax.measuring.set_losses import Sets
from sam_jax.measuring.settings import check, fields_of_instruments
from sam_jax.measuring.target import Target, TargetNetwork, fitted, load_target
from sam_jax.mistakes import UserMistake, checking
from sam_jax.runs import fields, flax_checkpoints, locks
from sam_jax.runs.distributed import is_first
from sam_jax.runs.records import Record
from sam_jax.suggestions import did_you_mean
from sam_jax.training.device_data import everywhere
from sam_jax.typing import PyTree

# Of what all instruments share, as configs/digits.py has them.
_SETTINGS = {"seed": 0, "examples": 0, "batch_size": 96}


def measure_checkpoint(
    checkpoint: pathlib.Path | str,
    target: str,
    workdir: pathlib.Path | str,
    presets: Sequence[str] = ("sound",),
    measures: Sequence[str] | None = None,
) -> list[Record]:
    """Measure a checkpoint and return the records, those that the folder held already included.

    Args:
      checkpoint: a folder of orbax, or a file of safetensors or msgpack.
      target: "MODULE:FUNCTION", of a function that returns a `Target`.
      workdir: the folder of the records; it is made.
      presets, measures: as in `measure_run`.

    Raises:
      UserMistake: there is no such checkpoint or target, they do not fit each other, or an
        instrument cannot measure them. Nothing is written then.
      locks.InUse: another process measures into the folder.
    """
    workdir = pathlib.Path(workdir)
    with checking():
        check_names(presets, measures)
    if (workdir / "config.json").exists():
        raise UserMistake(
            f"{workdir} is the folder of a run, and records of another checkpoint are kept apart "
            "from its own; choose another --workdir."
        )
    made = load_target(target)
    path = pathlib.Path(checkpoint).resolve()
    variables = fitted(made, flax_checkpoints.read(path), str(path))
    settings = ml_collections.ConfigDict({**_SETTINGS, **made.settings})
    with checking():
        _check_settings(settings, f"settings of {target}: ")
        measured = measured_target(made, variables, settings.batch_size)
        found = measurements(measured, settings, presets, measures, workdir)
    about = {
        "checkpoint": str(path),
        "checkpoint_digest": _digest(variables),
        "target": target,
        "data_digest": _digest(tuple(measured.sets)),
    }
    wanted = with_settings(found, settings)
    if is_first():
        print(f"{path.name}: measured with the loss and the data of {target}", flush=True)
    with locks.held(workdir, "evaluation"):
        return record_measurements(workdir / EVALUATIONS, wanted, about, measured.name)


def measured_target(target: Target, variables: dict[str, PyTree], batch_size: int) -> Measured:
    """Return what instruments see of a checkpoint.

    Args:
      target: its losses and sets.
      variables: of the checkpoint, as `fitted` returns them.
      batch_size: examples in a pass over a whole set.
    """
    network = TargetNetwork(target.loss, target.correct)
    variables, sets = everywhere((variables, Sets(target.train, target.test)))
    params = variables.pop("params")
    means = jax.jit(
        jax.default_matmul_precision("highest")(network.means), static_argnames="batch_size"
    )

    def evaluate() -> Record:
        """Return the fields of the sets that there are, and accuracies where they are known."""
        found: Record = {}
        for name, examples in sets._asdict().items():
            if examples is not None:
                result = means(params, variables, batch_size, examples)
                found[f"{name}_loss"] = float(result.loss)
                if target.correct is not None:
                    found[f"{name}_accuracy"] = float(result.accuracy)
        return found

    name = f"checkpoint {_digest({'params': params, **variables})}"
    return Measured(name, network, params, variables, sets, evaluate)


def _check_settings(settings: ml_collections.ConfigDict, prefix: str) -> None:
    known = fields_of_instruments()
    unknown = sorted(set(dict(fields.leaves(settings))) - set(known))
    if unknown:
        near = did_you_mean(unknown[0], known)
        raise ValueError(f"{prefix}no instrument has the setting {unknown[0]}.{near}")
    check(settings, prefix)


def _digest(tree: PyTree) -> str:
    return flax_checkpoints.digest(flax_checkpoints.by_names(jax.device_get(tree)))
