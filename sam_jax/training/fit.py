"""The loop of every training: rounds of compiled calls, and hooks after each round."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from absl import logging

from sam_jax.runs import checkpoints
from sam_jax.runs.progress import Progress
from sam_jax.training.device_data import RunSteps
from sam_jax.training.step import TrainState


class Round(NamedTuple):
    """The state of a training at the end of a round: an epoch, or a part of one."""

    number: int  # counted from one
    last: bool
    state: TrainState
    loss: float  # means over the batches of the round
    accuracy: float


Calls = Callable[[int], Iterable[tuple[RunSteps, tuple[Any, ...]]]]
Hook = Callable[[Round], None]


def fit(
    state: TrainState,
    rounds: range,
    calls: Calls,
    *,
    batch_size: int,
    progress: Progress,
    hooks: Sequence[Hook] = (),
) -> TrainState:
    """Train for some rounds, and call every hook after each of them.

    Args:
      state: the state before the first round; its memory is taken over.
      rounds: numbers of the rounds, counted from zero.
      calls: number of a round -> its compiled calls: `run_steps` and its arguments after the state.
      batch_size: over all devices, for the progress.
      progress: shows every call.
      hooks: called in their order with the round that is done. A record is written before a
        checkpoint is: a run that is cut between the two repeats the round and the record.

    Returns:
      The state after the last round.
    """
    for index in rounds:
        loss = accuracy = 0.0
        steps = 0
        for run_steps, arguments in calls(index):
            state, metrics = run_steps(state, *arguments)
            loss += float(metrics.loss.sum())
            accuracy += float(metrics.accuracy.sum())
            steps += metrics.loss.size
            progress.advance(
                metrics.loss.size * batch_size,
                float(metrics.loss.mean()),
                float(metrics.accuracy.mean()),
            )
        last = index == rounds[-1]
        done = Round(index + 1, last, state, loss / steps, accuracy / steps)
        for hook in hooks:
            hook(done)
    return state


def due(done: Round, every: int) -> bool:
    """Say whether a task is due after this round: every so many rounds, and after the last.

    Args:
      done: the round.
      every: rounds from one time to the next; zero for the last alone.
    """
    return done.last or bool(every and done.number % every == 0)


def saving(manager: ocp.CheckpointManager, every: int) -> Hook:
    """Return a hook that saves a checkpoint every so many rounds, and the last.

    Args:
      manager: from `checkpoints.open_manager`; a checkpoint has the number of its round.
      every: as in `due`.
    """

    def save(done: Round) -> None:
        if due(done, every):
            checkpoints.save(manager, done.number, done.state)

    return save


def warn_not_finite(done: Round) -> None:
    """Warn where the training loss of an epoch is not finite."""
    if not math.isfinite(done.loss):
        logging.warning("The training loss of epoch %d is %s.", done.number, done.loss)
