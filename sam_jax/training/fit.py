"""The loop of every training: rounds of compiled calls, and hooks after each round.

What reads a number waits until the next call computes, so that the devices never wait for Python.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from sam_jax.runs import checkpoints, signals
from sam_jax.runs.progress import Progress
from sam_jax.training.device_data import RunSteps
from sam_jax.training.step import StepMetrics, TrainState

# A state of up to so many bytes is saved from a copy, while the next call computes. Beginning to
# save one of 0.1 MB takes 80 ms of Python, as long as an epoch of the digits.
COPIED = 64 * 1024**2


class Round(NamedTuple):
    """The state of a training at the end of a round: an epoch, or a part of one."""

    number: int  # counted from one
    last: bool
    step: int  # of the state
    state: TrainState  # whose memory the next call takes
    metrics: tuple[StepMetrics, ...]  # of the calls of the round, which may not be done yet

    def means(self) -> tuple[float, float]:
        """Return loss and accuracy over the batches of the round, once they are there.

        A step that was skipped is left out; one that was not makes them NaN where its loss is.
        """
        loss, accuracy = map(np.concatenate, zip(*map(_values, self.metrics), strict=True))
        return _mean(loss), _mean(accuracy)

    def norms(self) -> tuple[float, float]:
        """Return the means of the norms of gradient and perturbation over the same steps."""
        norms = [_taken(call, call.gradient_norm, call.perturbation_norm) for call in self.metrics]
        gradient, perturbation = map(np.concatenate, zip(*norms, strict=True))
        return _mean(gradient), _mean(perturbation)

    def losses(self) -> np.ndarray:
        """Return the losses of the steps that were not skipped, once they are there."""
        return np.concatenate([_values(metrics)[0] for metrics in self.metrics])

    def nonfinite_steps(self) -> int:
        """Return how many steps had a loss or a gradient that is not finite."""
        return sum(int(np.sum(~np.asarray(metrics.finite))) for metrics in self.metrics)

    def skipped_steps(self) -> int:
        """Return how many steps left the state as it was."""
        return sum(int(np.sum(metrics.skipped)) for metrics in self.metrics)


Calls = Callable[[int], Iterable[tuple[RunSteps, tuple[Any, ...]]]]
# What is to be done later, if anything: reading numbers, which waits for the devices.
Later = Callable[[], None]
Hook = Callable[[Round], Later | None]


def fit(
    state: TrainState,
    rounds: range,
    calls: Calls,
    *,
    batch_size: int,
    progress: Progress,
    watch: Callable[[int, StepMetrics], None] = lambda steps_before, metrics: None,
    hooks: Sequence[Hook] = (),
    save: Callable[[Round], None] = lambda done: None,
    save_every: int = 1,
    begun: tuple[StepMetrics, ...] = (),
    pause: Callable[[Round], None] = lambda part: None,
) -> TrainState:
    """Train for some rounds, and call every hook after each of them.

    Args:
      state: the state before the first round; its memory is taken over.
      rounds: numbers of the rounds, counted from zero.
      calls: number of a round -> its compiled calls: `run_steps` and its arguments after the state.
      batch_size: over all devices, for the progress.
      progress: shows every call.
      watch: called with the metrics of every call and the number of the steps before it, as soon
        as they are there and before anything of its round is written.
      hooks: called in their order with the round that is done, before the next one is begun. What
        they return is called in the same order while the next one computes.
      save: called with a round that is to be saved, after all that the hooks returned: a run that
        is cut after a record and before its checkpoint repeats the round and the record.
      save_every: rounds from one time to the next, as in `due`.
      begun: of the calls of the first round that were done before.
      pause: called where a signal asked the command to end, before the next call, with the part of
        a round that is done, maybe none, once all before it is written; it keeps the state.

    Returns:
      The state after the last round.

    Raises:
      signals.Stopped: after `pause`.
    """
    waiting: list[Later] = []

    def catch_up() -> None:
        while waiting:
            waiting.pop(0)()

    step = int(state.step)
    for index in rounds:
        metrics, begun = list(begun), ()
        for run_steps, arguments in calls(index):
            stopped_by = signals.asked()
            if stopped_by:
                catch_up()
                with signals.saving():
                    pause(Round(index, False, step, state, tuple(metrics)))
                raise signals.Stopped(stopped_by)
            state, found = run_steps(state, *arguments)
            catch_up()
            metrics.append(found)
            waiting.append(functools.partial(watch, step, found))
            waiting.append(functools.partial(_show, progress, batch_size, found))
            step += found.loss.size
        done = Round(index + 1, index == rounds[-1], step, state, tuple(metrics))
        waiting += [later for hook in hooks if (later := hook(done)) is not None]
        if due(done, save_every):
            if sum(x.nbytes for x in jax.tree.leaves(state)) <= COPIED:
                done = done._replace(state=_copy(state))
            waiting.append(functools.partial(save, done))
            if done.state is state:  # whose memory the next call takes
                catch_up()
    catch_up()
    return state


@jax.jit  # 0.2 ms for a small state, whose 31 leaves one by one take 39 ms
def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


def _show(progress: Progress, batch_size: int, metrics: StepMetrics) -> None:
    loss, accuracy = _values(metrics)
    progress.advance(metrics.loss.size * batch_size, _mean(loss), _mean(accuracy))


def _values(metrics: StepMetrics) -> tuple[np.ndarray, np.ndarray]:
    """Return losses and accuracies of the steps that were not skipped, whose sums do not round."""
    return _taken(metrics, metrics.loss, metrics.accuracy)


def _taken(metrics: StepMetrics, one: jax.Array, other: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    taken = ~np.asarray(metrics.skipped)
    return np.asarray(one, np.float64)[taken], np.asarray(other, np.float64)[taken]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def due(done: Round, every: int) -> bool:
    """Say whether a task is due after this round: every so many rounds, and after the last.

    Args:
      done: the round.
      every: rounds from one time to the next; zero for the last alone.
    """
    return done.last or bool(every and done.number % every == 0)


def saving(manager: ocp.CheckpointManager) -> Callable[[Round], None]:
    """Return what saves a round as the checkpoint of its number.

    Args:
      manager: from `checkpoints.open_manager`.
    """
    return lambda done: checkpoints.save(manager, done.number, done.state)


def warn_not_finite(done: Round) -> Later:
    """Warn, later, where the training loss of an epoch is not finite."""

    def warn() -> None:
        loss, _ = done.means()
        if not math.isfinite(loss):
            logging.warning("The training loss of epoch %d is %s.", done.number, loss)

    return warn
