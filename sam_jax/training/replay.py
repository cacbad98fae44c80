"""One step of a run once more, watched: which of its quantities is not finite first, and where.

A compiled epoch only marks the steps whose loss or gradient is not finite. Which quantity was the
first is found afterwards, from the last checkpoint on.
"""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from sam_jax.runs import checkpoints
from sam_jax.runs.distributed import from_first
from sam_jax.training import fine_tune
from sam_jax.training.device_data import DeviceData
from sam_jax.training.nonfinite import NonFiniteStepError
from sam_jax.training.observed import Observations, Quantity
from sam_jax.training.program import Program
from sam_jax.training.step import TrainState, order_after_previous
from sam_jax.training.trained import restore_state
from sam_jax.training.training_calls import training_calls

REPORT = "nonfinite.json"


class NonFiniteError(ArithmeticError):
    """A training stopped at numbers that are not finite; the message says where."""


class ReplayedStep(NamedTuple):
    """A step that was computed once more."""

    step: int  # counted from one, as in the records
    quantities: tuple[Quantity, ...]  # in the order of computation

    def first_nonfinite(self) -> Quantity | None:
        """Return the first quantity that is not finite, None where all are."""
        return next((quantity for quantity in self.quantities if quantity.nonfinite), None)


def starting_state(
    config: ml_collections.ConfigDict,
    program: Program,
    workdir: pathlib.Path,
    manager: ocp.CheckpointManager,
    epoch: int,
) -> TrainState:
    """Return the state at the end of an epoch that was saved; of epoch 0, that of the start.

    Args:
      config: the whole config.
      program: its compiled functions.
      workdir: the folder of the run.
      manager: of its checkpoints.
      epoch: one of the manager's, or 0.
    """
    key = jax.random.key(config.seed)
    if epoch:
        return restore_state(program, key, manager, epoch)
    if config.fine_tune.workdir:
        return fine_tune.starting_state(config.fine_tune, program, key, workdir)
    return program.init(key)


def replay(
    config: ml_collections.ConfigDict,
    program: Program,
    data: DeviceData,
    workdir: pathlib.Path,
    manager: ocp.CheckpointManager,
    step: int,
) -> tuple[ReplayedStep, ...]:
    """Compute a step of a run once more, from the newest checkpoint before it.

    Args:
      config, program, workdir, manager: as in `starting_state`.
      data: the data set of the config.
      step: counted from one.

    Returns:
      The step, and before it the one that came before in the same compiled call: a loss that is
      not finite may come from parameters of the step before.
    """
    epoch, place = divmod(step - 1, program.steps_per_epoch)
    first_epoch = max((e for e in checkpoints.epochs_of(manager) if e <= epoch), default=0)
    state = starting_state(config, program, workdir, manager, first_epoch)
    for earlier in range(first_epoch, epoch):
        for run_steps, arguments in training_calls(config, program, data, earlier):
            state, _ = run_steps(state, *arguments)
    start = 0  # of a call, in the epoch
    for run_steps, (images, labels, order, *more) in training_calls(config, program, data, epoch):
        steps = len(order) - 1
        if start + steps <= place:
            state, _ = run_steps(state, images, labels, order, *more)
            start += steps
            continue
        streamed = run_steps is program.run_streamed_steps

        def part(begin: int, end: int) -> tuple[Any, ...]:
            """Return what the steps of the call from `begin` to `end` take."""
            examples = (images, labels, order) if streamed else (order,)  # noqa: B023
            cut = tuple(x[begin : end + 1] for x in examples)
            return (*(() if streamed else (images, labels)), *cut, *more)  # noqa: B023

        at = place - start
        if at > 1:
            state, _ = run_steps(state, *part(0, at - 1))
        observations = Observations()
        observed = program.observed_steps(observations, streamed)
        found = []
        for number in range(max(at - 1, 0), at + 1):
            state, _ = observed(state, *part(number, number + 1))
            found.append(ReplayedStep(step - at + number, observations.take()))
        return tuple(found)
    raise ValueError(f"step {step} is not a step of the run.")


def explained(
    config: ml_collections.ConfigDict,
    program: Program,
    data: DeviceData,
    workdir: pathlib.Path,
    manager: ocp.CheckpointManager,
    error: NonFiniteStepError,
) -> str:
    """Write nonfinite.json, and return the message of a run that stops.

    Args:
      config, program, data, workdir, manager: as in `replay`.
      error: names the step.
    """
    epoch, place = divmod(error.step - 1, program.steps_per_epoch)
    saved = max((e for e in checkpoints.epochs_of(manager) if e <= epoch), default=0)
    key = jax.random.key(config.seed)
    order = order_after_previous(key, epoch, len(data.train_labels), config.batch_size)
    path = workdir / REPORT
    command = f"python -m sam_jax.replay --workdir={workdir}"
    report = {
        "step": error.step,
        "epoch": epoch + 1,
        "loss": error.loss,
        "gradient_norm": error.gradient_norm,
        "indices": np.asarray(order[1 + place]).tolist(),
        "checkpoint_epoch": saved,
        "replay": command,
    }
    _write(path, report)
    logging.warning(
        "%s. Its quantities are computed once more, %d steps from %s.",
        error,
        error.step - saved * program.steps_per_epoch,
        f"the checkpoint of epoch {saved}" if saved else "the start",
    )
    steps = replay(config, program, data, workdir, manager, error.step)
    origin = next(((s.step, q) for s in steps if (q := s.first_nonfinite())), None)
    if origin is None:
        what = "computed once more, all of its quantities are finite"
    else:
        step, quantity = origin
        at = quantity.nonfinite[0]
        what = f"first not finite: the {quantity.name}{f' at {at}' if at else ''} in step {step}"
        report |= {
            "first": {"step": step, "quantity": quantity.name, "paths": list(quantity.nonfinite)}
        }
        _write(path, report)
    kept = f"The checkpoint of epoch {saved} stays" if saved else "There is no checkpoint yet"
    return (
        f"{workdir}: stopped at step {error.step} (epoch {epoch + 1}) with the loss {error.loss} "
        f"and a gradient of norm {error.gradient_norm}; {what}. {kept}; {path.name} has the batch, "
        f"and `{command}` shows the step. Lower the learning rate or rho, or go on with "
        "--config.on_nonfinite=skip."
    )


def stopped_at(workdir: pathlib.Path) -> int:
    """Return the step at which a run stopped.

    Raises:
      FileNotFoundError: no step stopped it.
    """
    path = workdir / REPORT
    found = from_first(lambda: json.loads(path.read_text())["step"] if path.exists() else None)
    if found is None:
        raise FileNotFoundError(
            f"{workdir} holds no {REPORT}, so no step stopped it: name one by --step."
        )
    return int(found)


def forget(workdir: pathlib.Path) -> None:
    """Delete the nonfinite.json of an earlier call of the run."""
    from_first(lambda: (workdir / REPORT).unlink(missing_ok=True))


def _write(path: pathlib.Path, report: dict[str, Any]) -> None:
    from_first(lambda: path.write_text(json.dumps(report, indent=2) + "\n") and None)
