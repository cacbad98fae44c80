"""One step of a run once more, watched: which of its quantities is not finite first, and where.

A compiled epoch only marks the steps whose loss or gradient is not finite. Which quantity was the
first is found afterwards, from the last checkpoint on.
"""

import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from sam_jax.runs import checkpoints
from sam_jax.runs.distributed import from_first
from sam_jax.training import fine_tune
from sam_jax.training.device_data import RunSteps
from sam_jax.training.nonfinite import NonFiniteStepError
from sam_jax.training.observed import Observations, Quantity
from sam_jax.training.program import Program
from sam_jax.training.step import TrainState
from sam_jax.training.trained import restore_state

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


class Replay(NamedTuple):
    """What it takes to compute steps of a run once more."""

    config: ml_collections.ConfigDict
    program: Program  # of the config
    workdir: pathlib.Path  # the folder of the run
    manager: ocp.CheckpointManager  # of its checkpoints
    calls: Callable[[int], Iterable[tuple[RunSteps, tuple[Any, ...]]]]  # of an epoch, as fit takes


def fresh_state(
    config: ml_collections.ConfigDict, program: Program, workdir: pathlib.Path
) -> TrainState:
    """Return the state before the first step of a run.

    Args:
      config: the whole config.
      program: its compiled functions.
      workdir: the folder of the run.
    """
    key = jax.random.key(config.seed)
    if config.fine_tune.workdir:
        return fine_tune.starting_state(config.fine_tune, program, key, workdir)
    return program.init(key)


def replayed(replay: Replay, step: int) -> tuple[ReplayedStep, ...]:
    """Compute a step of a run once more, from the newest checkpoint before it.

    Args:
      replay: of the run.
      step: counted from one.

    Returns:
      The step, and before it the one that came before in the same compiled call: a loss that is
      not finite may come from parameters of the step before.

    Raises:
      ValueError: the run has no such step.
    """
    config, program, workdir, manager, calls = replay
    last = config.epochs * program.steps_per_epoch
    if not 1 <= step <= last:
        raise ValueError(f"the run in {workdir} has the steps 1 to {last}, got {step}.")
    epoch, place = divmod(step - 1, program.steps_per_epoch)
    first_epoch = _checkpoint_before(replay, epoch)
    if first_epoch:
        state = restore_state(program, jax.random.key(config.seed), manager, first_epoch)
    else:
        state = fresh_state(config, program, workdir)
    for earlier in range(first_epoch, epoch):
        for run_steps, arguments in calls(earlier):
            state, _ = run_steps(state, *arguments)
    start = 0  # of a call, in the epoch
    for run_steps, (images, labels, order, *more) in calls(epoch):
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
    raise AssertionError("the calls of an epoch hold all of its steps")


def explained(replay: Replay, error: NonFiniteStepError) -> str:
    """Write nonfinite.json, and return the message of a run that stops.

    Args:
      replay: of the run.
      error: names the step.
    """
    program, workdir = replay.program, replay.workdir
    epoch, place = divmod(error.step - 1, program.steps_per_epoch)
    saved = _checkpoint_before(replay, epoch)
    path = workdir / REPORT
    command = f"python -m sam_jax.replay --workdir={workdir}"
    report = {
        "step": error.step,
        "epoch": epoch + 1,
        "loss": error.loss,
        "gradient_norm": error.gradient_norm,
        "indices": _indices(replay, epoch, place),
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
    steps = replayed(replay, error.step)
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


def _checkpoint_before(replay: Replay, epoch: int) -> int:
    """Return the newest checkpoint that is not after the start of an epoch, 0 for none."""
    return max((e for e in checkpoints.epochs_of(replay.manager) if e <= epoch), default=0)


def _indices(replay: Replay, epoch: int, place: int) -> list[int]:
    """Return the examples of a step of an epoch, counted from zero, in the training set."""
    start = 0
    for _, (_, _, order, *_) in replay.calls(epoch):
        if place < start + len(order) - 1:
            return np.asarray(order[1 + place - start]).tolist()
        start += len(order) - 1
    raise AssertionError("the calls of an epoch hold all of its steps")


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
