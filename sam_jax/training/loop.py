"""Train a config to the end, or from where an earlier call was cut."""

import math
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
from absl import logging
from orbax.checkpoint import CheckpointManager

from sam_jax.data import Source
from sam_jax.runs import checkpoints, records, workdirs
from sam_jax.runs.machine import check_same_m, this_machine
from sam_jax.runs.progress import Progress
from sam_jax.runs.randomness import stream
from sam_jax.training import build
from sam_jax.training.step import TrainState, order_after_previous
from sam_jax.typing import Key


class Trained(NamedTuple):
    """A run at its last finished epoch."""

    state: TrainState
    program: build.Program
    data: build.DeviceData
    source: Source
    epoch: int


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str,
    label: str = "training",
    accept_config_changes: bool = False,
) -> dict[str, Any]:
    """Train, evaluate, log and save; go on where a cut run stopped, and do nothing when it is done.

    Writes to workdir: config.json, metrics.jsonl (a record an epoch), tensorboard/ and
    checkpoints/. On CPU a run that was cut and resumed equals an uninterrupted one bit for bit.
    Every record has m, the examples that share a perturbation, and the numbers of devices and
    processes; on another number of devices a run goes on only where m stays the same.

    Args:
      config: all fields of configs/digits.py.
      workdir: the folder of the run.
      label: what the progress calls the run.
      accept_config_changes: go on in a folder that was made with another config.

    Returns:
      The last record of metrics.jsonl: epoch, step, learning progress, evaluation and machine.

    Raises:
      ValueError: a field of the config cannot be run, the folder belongs to another config, or the
        run was begun with another m; the message names the field to set.
    """
    workdir = pathlib.Path(workdir)
    build.check(config)
    done = _finished_record(workdir, config.epochs)
    if done is None:
        check_same_m(workdir, config, _resumed_record(workdir))
    if done is None or not accept_config_changes:  # a finished run keeps the config it had
        workdirs.claim(workdir, config, accept_config_changes)
    if done is not None:
        return done
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    key = jax.random.key(config.seed)
    with checkpoints.open_manager(workdir, config.checkpoint.keep) as manager:
        state, first_epoch = _init_or_restore(program, key, manager)
        log = records.MetricsLog(workdir, first_epoch)
        images_per_epoch = program.steps_per_epoch * config.batch_size
        progress = Progress(label, config.epochs, images_per_epoch, first_epoch)
        # With fewer epochs than there are checkpoints, the last record is that of the newest one.
        record = next(reversed(records.read(workdir / "metrics.jsonl")), None)
        if record is None and first_epoch >= config.epochs:
            raise ValueError(
                f"{workdir} holds the checkpoint of epoch {first_epoch}, but no metrics.jsonl. "
                "Choose another --workdir, or delete its checkpoints to train anew."
            )
        for epoch in range(first_epoch, config.epochs):
            state, batch_loss, batch_accuracy = _run_epoch(
                config, program, data, state, key, epoch, progress
            )
            last = epoch + 1 == config.epochs
            every = {
                "train": config.evaluation.train_every_epochs,
                "test": config.evaluation.test_every_epochs,
            }
            names = tuple(name for name in every if last or _due(epoch + 1, every[name]))
            record = {
                "epoch": epoch + 1,
                "step": int(state.step),
                "batch_loss": batch_loss,
                "batch_accuracy": batch_accuracy,
                **_evaluate(program, data, state, names),
                **this_machine(config)._asdict(),
            }
            # The record goes first: a run cut between the two repeats the epoch and the record.
            log.write(record)
            if last or _due(epoch + 1, config.checkpoint.every_epochs):
                checkpoints.save(manager, epoch + 1, state)
        log.close()
    assert record is not None  # there is an epoch to train, or the record of the last one
    progress.finish(
        f"test loss {record['test_loss']:.4f}, test accuracy {record['test_accuracy']:.2%}"
    )
    return record


def load_trained(
    workdir: pathlib.Path | str, epoch: int | None = None
) -> tuple[ml_collections.ConfigDict, Trained]:
    """Return the config and a checkpoint of a run.

    Args:
      workdir: the folder of a run.
      epoch: the checkpoint to load; None for the last.

    Returns:
      The config of the run, and its state with the program and the data to measure it.

    Raises:
      FileNotFoundError: there is no config, no checkpoint, or not that one in it.
    """
    workdir = pathlib.Path(workdir)
    config = workdirs.read_config(workdir)
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    with checkpoints.open_manager(workdir, config.checkpoint.keep) as manager:
        saved = manager.all_steps()
        if not saved:
            raise FileNotFoundError(
                f"{workdir} holds no checkpoint yet. Train it first: python -m sam_jax.train "
                f"--config=... --workdir={workdir}"
            )
        epoch = max(saved) if epoch is None else epoch
        if epoch not in saved:
            raise FileNotFoundError(
                f"{workdir} holds no checkpoint of epoch {epoch}; it has {sorted(saved)}. "
                "checkpoint.keep says how many a run keeps."
            )
        state = _restore(program, jax.random.key(config.seed), manager, epoch)
    state = program.evaluated_state(state, data.train_images)
    return config, Trained(state, program, data, source, epoch)


def _finished_record(workdir: pathlib.Path, epochs: int) -> dict[str, Any] | None:
    """Return the last epoch's record where the last checkpoint is there too."""
    history = records.read(workdir / "metrics.jsonl")
    complete = history and history[-1]["epoch"] >= epochs and checkpoints.exists(workdir, epochs)
    return history[-1] if complete else None


def _resumed_record(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Return the record of the newest checkpoint, None where a run would begin anew."""
    history = reversed(records.read(workdir / "metrics.jsonl"))
    return next((r for r in history if checkpoints.exists(workdir, r["epoch"])), None)


def _init_or_restore(
    program: build.Program, key: Key, manager: CheckpointManager
) -> tuple[TrainState, int]:
    epoch = manager.latest_step()
    if epoch is None:
        return program.init(key), 0
    return _restore(program, key, manager, epoch), epoch


def _restore(
    program: build.Program, key: Key, manager: CheckpointManager, epoch: int
) -> TrainState:
    template = jax.eval_shape(program.init, key)
    return checkpoints.restore(manager, template, epoch, build.replicated())


def _run_epoch(
    config: ml_collections.ConfigDict,
    program: build.Program,
    data: build.DeviceData,
    state: TrainState,
    key: Key,
    epoch: int,
    progress: Progress,
) -> tuple[TrainState, float, float]:
    """Run one epoch in one or more compiled calls; return the means over its batches."""
    examples = len(data.train_labels)
    order = order_after_previous(stream(key, "order"), epoch, examples, config.batch_size)
    loss = accuracy = 0.0
    for run_steps, arrays in build.training_calls(config, program, data, order):
        state, metrics = run_steps(
            state, *arrays, stream(key, "augmentation"), build.numbers(config)
        )
        loss += float(metrics.loss.sum()) / program.steps_per_epoch
        accuracy += float(metrics.accuracy.sum()) / program.steps_per_epoch
        done = metrics.loss.size * config.batch_size
        progress.advance(done, float(metrics.loss.mean()), float(metrics.accuracy.mean()))
    if not math.isfinite(loss):
        logging.warning("The training loss of epoch %d is %s.", epoch + 1, loss)
    return state, loss, accuracy


def _evaluate(
    program: build.Program, data: build.DeviceData, state: TrainState, names: tuple[str, ...]
) -> dict[str, float]:
    """Evaluate the weights that a run is for, averaged ones where it averages."""
    if names:
        state = program.evaluated_state(state, data.train_images)
    return evaluate_sets(program, data, state, names)


def evaluate_sets(
    program: build.Program, data: build.DeviceData, state: TrainState, names: tuple[str, ...]
) -> dict[str, float]:
    """Return the losses and accuracies of the named sets, NaN for the sets that are not named.

    Args:
      program: the compiled functions of the model.
      data: its data set.
      state: the model.
      names: of "train" and "test".

    Returns:
      train_loss, train_accuracy, test_loss and test_accuracy.
    """
    sets = {
        "train": (data.train_images, data.train_labels),
        "test": (data.test_images, data.test_labels),
    }
    record = {}
    for name, examples in sets.items():
        loss = accuracy = math.nan
        if name in names:
            result = program.evaluate(state.params, state.batch_stats, *examples)
            loss, accuracy = float(result.loss), float(result.accuracy)
        record |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
    return record


def _due(epoch: int, every: int) -> bool:
    """Say whether something that is done every so many epochs is done after this one."""
    return bool(every and epoch % every == 0)
