"""Train a config to the end, or from where an earlier call was cut."""

import functools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from sam_jax.mistakes import UserMistake
from sam_jax.runs import (
    checkpoints,
    heartbeat,
    locks,
    metrics_log,
    records,
    speed_log,
    workdirs,
    writers,
)
from sam_jax.runs.machine import check_same_m, this_machine
from sam_jax.runs.progress import Progress
from sam_jax.runs.randomness import stream
from sam_jax.training import build, fine_tune, interruption, sharpness
from sam_jax.training.device_data import DeviceData, RunSteps, epoch_calls
from sam_jax.training.fit import Later, Round, due, fit, saving
from sam_jax.training.nonfinite import NonFiniteStepError, growth, watch_steps
from sam_jax.training.program import Program, full_precision
from sam_jax.training.replay import NonFiniteError, Replay, explained, forget, fresh_state
from sam_jax.training.step import order_after_previous
from sam_jax.training.trained import begin_evaluations, read_evaluations, restore_state
from sam_jax.typing import Key


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str,
    label: str = "training",
    accept_config_changes: bool = False,
    *,
    tell: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train, evaluate, log and save; go on where a cut run stopped, and do nothing when it is done.

    Writes to workdir: config.json, metrics.jsonl (a record an epoch), speed.jsonl, checkpoints/, a
    folder of each of config.writers, and fine_tune.json where the training starts from another run.
    On CPU a run that was cut and resumed equals an uninterrupted one bit for bit, but for speeds.
    Every record has m, the examples that share a perturbation, and the numbers of devices and
    processes; on another number of devices a run goes on only where m stays the same.

    Args:
      config: all fields of configs/digits.py.
      workdir: the folder of the run.
      label: the name of the run in the progress.
      accept_config_changes: go on in a folder that was made with another config.
      tell: called before the first step, once nothing speaks against the training.

    Returns:
      The last record of metrics.jsonl: epoch, step, learning progress, evaluation and machine.

    Raises:
      ValueError: a field of the config cannot be run, the folder belongs to another config, or the
        run was begun with another m; the message names the field to set.
      NonFiniteError: the loss, the gradient or the parameters of a step are not finite, and
        config.on_nonfinite is "stop". The last checkpoint stays, and WORKDIR/nonfinite.json says
        which step, which examples and which quantity; see `sam_jax.training.replay`.
      locks.InUse: another process trains there.
    """
    workdir = pathlib.Path(workdir)
    build.check(config)
    history = metrics_log.read(workdir, of_this_config=not accept_config_changes)
    done = _finished_record(workdir, config.epochs, history)
    if done is not None:
        if not accept_config_changes:  # a finished run keeps the config it had
            workdirs.refuse_another(workdir, config)
        _check_config(workdir, config, accept_config_changes)
        return done
    writers.check(config.writers)
    with locks.held(workdir, "training"), heartbeat.doing(label):
        return _train(config, workdir, label, accept_config_changes, tell)


def _train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    label: str,
    accept_config_changes: bool,
    tell: Callable[[], None],
) -> dict[str, Any]:
    """Do what is left of `train_and_evaluate` in a folder that is locked."""
    history = metrics_log.read(workdir, of_this_config=not accept_config_changes)
    check_same_m(workdir, config, _resumed_record(workdir, history))
    try:
        workdirs.refuse_another(workdir, config)
        changed = False
    except ValueError:
        if not accept_config_changes:
            raise
        changed = True
    fine_tune.check_start(config.fine_tune, workdir)
    _, data, program = build.data_and_program(config)  # what does not fit writes nothing
    sharpness.check(config, len(data.train_labels))
    if changed:  # another config may have other steps in an epoch
        interruption.forget(workdir)
    workdirs.claim(workdir, config, accept_config_changes)
    key = jax.random.key(config.seed)
    with checkpoints.open_manager(workdir, config.checkpoint.keep) as manager:
        last_epoch = max(checkpoints.epochs_of(manager), default=0)
        stopped = interruption.load(workdir, program, key, last_epoch)
        if stopped is not None:
            state, first_epoch = stopped.state, stopped.epoch
        else:
            state, first_epoch = checkpoints.restore_newest(
                manager, functools.partial(restore_state, program, key, manager)
            )
            interruption.forget(workdir)  # a later one that was refused would stand in the way
        if state is None:
            state = fresh_state(config, program, workdir)
        forget(workdir)
        log = metrics_log.MetricsLog(workdir, first_epoch, config.writers, workdirs.plain(config))
        # Where the config has fewer epochs than the checkpoints, return the newest checkpoint's
        # record.
        written = log.records

        def record(epoch: Round) -> Later:
            read = _begin_record(config, program, data, epoch)

            def write() -> None:
                found = _with_growth(read(), epoch, written, config.divergence_factor)
                log.write(found, speeds.write(epoch.number))

            return write

        def pause(part: Round) -> None:
            if part.step == first_epoch * program.steps_per_epoch + skip:
                log.close()
                progress.finish("stopped before its first step")
                return
            interruption.save(workdir, part.step, part.state, part.metrics)
            log.close()  # last: a service may take its seconds
            epochs = part.step / program.steps_per_epoch
            progress.finish(
                f"stopped after step {part.step}, epoch {epochs:.4g}/{config.epochs}; the state is "
                f"saved in {workdir / interruption.FOLDER}"
            )

        def calls(epoch: int) -> Iterator[tuple[RunSteps, tuple[Any, ...]]]:
            return training_calls(config, program, data, epoch, skip if epoch == first_epoch else 0)

        skip, begun = (stopped.steps, stopped.metrics) if stopped is not None else (0, ())
        images_per_epoch = program.steps_per_epoch * config.batch_size
        begin = first_epoch + skip / program.steps_per_epoch
        tell()
        speeds = speed_log.SpeedLog(
            workdir, first_epoch, images_per_epoch, skip * config.batch_size
        )
        progress = Progress(label, config.epochs, images_per_epoch, begin)
        try:
            fit(
                state,
                range(first_epoch, config.epochs),
                calls,
                batch_size=config.batch_size,
                progress=progress,
                watch=watch_steps(config.on_nonfinite),
                hooks=(record,),
                save=saving(manager),
                save_every=config.checkpoint.every_epochs,
                begun=begun,
                pause=pause,
            )
        except NonFiniteStepError as error:
            log.close()
            whole_epochs = functools.partial(training_calls, config, program, data)
            replay = Replay(config, program, workdir, manager, whole_epochs)
            raise NonFiniteError(explained(replay, error)) from error
        log.close()
    interruption.forget(workdir)
    last = written[-1]
    progress.finish(f"test loss {last['test_loss']:.4f}, test accuracy {last['test_accuracy']:.2%}")
    return last


def training_calls(
    config: ml_collections.ConfigDict,
    program: Program,
    data: DeviceData,
    epoch: int,
    skip: int = 0,
) -> Iterator[tuple[RunSteps, tuple[Any, ...]]]:
    """Yield the compiled calls of an epoch, with all that they take after the state.

    Args:
      config: the whole config.
      program: its compiled functions.
      data: its data set.
      epoch: counted from zero.
      skip: the first steps of the epoch that were done before.
    """
    key, crops = _keys(config.seed)
    order = order_after_previous(key, epoch, len(data.train_labels), config.batch_size)
    runs = program.run_steps, program.run_streamed_steps
    more = key, build.traced_hyperparameters(config)
    calls = epoch_calls(
        *runs,
        data,
        order,
        config.steps_per_call,
        key=crops,
        first_step=epoch * program.steps_per_epoch,
        sharding=program.placement.batches,
        skip=skip,
    )
    for run_steps, arrays in calls:
        yield run_steps, (*arrays, *more)


@functools.lru_cache(maxsize=8)
def _keys(seed: int) -> tuple[Key, Key]:
    """Return the key of a run, and that of the crops of a set that is cropped when it is read."""
    key = jax.random.key(seed)
    return key, stream(key, "crops")


def _begin_record(
    config: ml_collections.ConfigDict, program: Program, data: DeviceData, epoch: Round
) -> Callable[[], records.Record]:
    """Begin to evaluate an epoch, averaged weights where the run has them; return what reads it."""
    every = {
        "train": config.evaluation.train_every_epochs,
        "test": config.evaluation.test_every_epochs,
        "validation": config.evaluation.test_every_epochs,
    }
    names = tuple(name for name in every if due(epoch, every[name]))
    every_epochs = config.evaluation.sharpness_every_epochs
    is_measured = bool(every_epochs) and due(epoch, every_epochs)
    state = epoch.state
    if names or is_measured:
        state = program.evaluated_state(state, data.train_images)
    evaluations = begin_evaluations(program, data, state, names)
    if is_measured:
        model = full_precision(program.model)
        evaluations |= sharpness.begin_sharpness(config, model, program.inputs, data, state)
    traced = build.traced_hyperparameters(config)
    step_sizes = program.step_sizes(epoch.step - 1, traced)

    def read() -> records.Record:
        loss, accuracy = epoch.means()
        gradient_norm, perturbation_norm = epoch.norms()
        return {
            "epoch": epoch.number,
            "step": epoch.step,
            "batch_loss": loss,
            "batch_accuracy": accuracy,
            "nonfinite_steps": epoch.nonfinite_steps(),
            "skipped_steps": epoch.skipped_steps(),
            **read_evaluations(step_sizes),
            "gradient_norm": gradient_norm,
            "perturbation_norm": perturbation_norm,
            **read_evaluations(evaluations),
            **this_machine(config)._asdict(),
        }

    return read


def _with_growth(
    record: records.Record, epoch: Round, written: list[records.Record], factor: float
) -> records.Record:
    """Return a record with the loss that the run began with, and whether it has grown too much."""
    if written:  # of runs from before it was recorded the first epoch counts
        start_loss = written[-1].get("start_loss", written[0]["batch_loss"])
    else:
        losses = epoch.losses()
        start_loss = next(iter(losses[np.isfinite(losses)].tolist()), math.nan)
    found = growth(start_loss, record["batch_loss"], factor)
    if found.diverged and not (written and written[-1].get("diverged")):
        logging.warning(
            "The training diverges: its loss is %.4g in epoch %d and was %.4g in the first step.",
            record["batch_loss"],
            epoch.number,
            start_loss,
        )
    return record | found._asdict()


def _check_config(
    workdir: pathlib.Path, config: ml_collections.ConfigDict, accept_config_changes: bool
) -> None:
    """Hold the config.json of a finished run to its last checkpoint, or write it anew."""
    try:
        checkpoints.check_config(workdir, config.epochs, tell=False)
    except UserMistake:
        if not accept_config_changes:
            raise
        workdirs.claim(workdir, config, accept_config_changes)
        checkpoints.check_config(workdir, config.epochs, tell=False)


def _finished_record(
    workdir: pathlib.Path, epochs: int, history: list[records.Record]
) -> records.Record | None:
    """Return the last epoch's record where the last checkpoint is there too, and whole."""
    complete = history and history[-1]["epoch"] >= epochs and checkpoints.is_whole(workdir, epochs)
    return history[-1] if complete else None


def _resumed_record(workdir: pathlib.Path, history: list[records.Record]) -> records.Record | None:
    """Return the record of the newest checkpoint, None where a run would begin at the start."""
    if interruption.exists(workdir):
        return history[-1] if history else None
    found = (r for r in reversed(history) if checkpoints.exists(workdir, r["epoch"]))
    return next(found, None)
