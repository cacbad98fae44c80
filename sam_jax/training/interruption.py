"""The state of a training that a signal has stopped, between two calls of an epoch.

It lies in a folder of its own: the checkpoints of a run are those of an uninterrupted one, however
often it was stopped.
"""

import functools
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec

from sam_jax.mistakes import UserMistake
from sam_jax.runs import checkpoints, workdirs
from sam_jax.runs.checkpoint_damage import DamagedCheckpoint
from sam_jax.runs.distributed import from_first
from sam_jax.training.program import Program
from sam_jax.training.step import StepMetrics, TrainState
from sam_jax.typing import Key

FOLDER = "interrupted"


class Interruption(NamedTuple):
    """Where a training was stopped."""

    epoch: int  # whole ones
    steps: int  # done of the next one
    state: TrainState
    metrics: tuple[StepMetrics, ...]  # of these steps


def save(
    workdir: pathlib.Path, step: int, state: TrainState, metrics: tuple[StepMetrics, ...]
) -> None:
    """Save where a training was stopped, in place of an earlier such state.

    Args:
      workdir: the folder of the run.
      step: steps done since the start.
      state: after them.
      metrics: of the calls since the last whole epoch.
    """
    saved: dict[str, Any] = {"state": state}
    if metrics:
        saved["metrics"] = jax.tree.map(lambda *parts: jnp.concatenate(parts), *metrics)
    with checkpoints.open_manager(workdir / FOLDER, keep=1) as manager:
        checkpoints.save(manager, step, saved, run=workdir)


def load(workdir: pathlib.Path, program: Program, key: Key, last_epoch: int) -> Interruption | None:
    """Return where a training was stopped; None unless it was, and after its last checkpoint.

    It is none either where it is damaged, or where the log has lost or changed lines that it had
    then: the run goes on from its last checkpoint, and a warning says so.

    Args:
      workdir: the folder of the run.
      program: of the run.
      key: of its seed; only its shape is read.
      last_epoch: of the last checkpoint, 0 for none.

    Raises:
      ValueError: it is of a run with another config than the folder has.
    """
    if not exists(workdir):
        return None
    with checkpoints.open_manager(workdir / FOLDER, keep=1) as manager:
        step = max(checkpoints.epochs_of(manager), default=0)
        epoch, steps = divmod(step, program.steps_per_epoch)
        if step <= last_epoch * program.steps_per_epoch:
            return None  # it is no newer
        template: dict[str, Any] = {"state": jax.eval_shape(program.init, key)}
        shardings = {"state": program.placement.shardings(template["state"])}
        if steps:
            one: Any = jax.ShapeDtypeStruct((steps,), jnp.float32)
            flag: Any = jax.ShapeDtypeStruct((steps,), jnp.bool_)
            metrics = StepMetrics(one, one, one, one, finite=flag, skipped=flag)
            template["metrics"] = metrics._asdict()
            shardings["metrics"] = NamedSharding(program.placement.mesh, PartitionSpec())
        restore = functools.partial(
            checkpoints.restore, manager, epoch=step, sharding=shardings, run=workdir
        )
        try:
            try:
                found = restore(template)
            except UserMistake:
                if not steps:
                    raise
                del template["metrics"]["perturbation_norm"]  # as it was saved before
                found = restore(template)
            written = checkpoints.log_of(manager, step)
        except DamagedCheckpoint as error:
            logging.warning("%s The run goes on from an earlier checkpoint.", error)
            return None
        except UserMistake as error:
            raise UserMistake(
                f"{error} Or delete {workdir / FOLDER}: the run goes on from its last checkpoint."
            ) from error
    if not _has_its_log(workdir, written, epoch):
        logging.warning(
            "metrics.jsonl in %s is not what it was when a signal stopped the run after step %d. "
            "The run goes on from an earlier checkpoint.",
            workdir,
            step,
        )
        return None
    unknown = {"perturbation_norm": jnp.full(steps, jnp.nan)}
    metrics = (StepMetrics(**(unknown | found["metrics"])),) if steps else ()
    return Interruption(epoch, steps, found["state"], metrics)


def _has_its_log(workdir: pathlib.Path, written: list[str] | None, epochs: int) -> bool:
    """Say whether the log of a run has the lines that it had when it was stopped.

    Args:
      workdir: the folder of the run.
      written: the checksums of these lines; None where they are not known.
      epochs: whole ones, each of which had a line.
    """
    lines = workdirs.config_and_log(workdir)[1] or []
    return len(lines) >= epochs and (written is None or lines[: len(written)] == written)


def exists(workdir: pathlib.Path) -> bool:
    """Say whether a training was stopped."""
    return from_first((workdir / FOLDER).is_dir)


def forget(workdir: pathlib.Path) -> None:
    """Remove what was saved when the training was stopped."""
    from_first(lambda: shutil.rmtree(workdir / FOLDER, ignore_errors=True))
