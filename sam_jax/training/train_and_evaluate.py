"""Train a config to the end, or from where an earlier call was cut."""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections

from sam_jax.runs import checkpoints, records, workdirs
from sam_jax.runs.machine import check_same_m, this_machine
from sam_jax.runs.progress import Progress
from sam_jax.runs.randomness import stream
from sam_jax.training import build, fine_tune
from sam_jax.training.device_data import DeviceData, RunSteps, epoch_calls
from sam_jax.training.fit import Later, Round, due, fit, saving, warn_not_finite
from sam_jax.training.program import Program
from sam_jax.training.step import order_after_previous
from sam_jax.training.trained import begin_evaluations, read_evaluations, restore_state
from sam_jax.typing import Key


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str,
    label: str = "training",
    accept_config_changes: bool = False,
) -> dict[str, Any]:
    """Train, evaluate, log and save; go on where a cut run stopped, and do nothing when it is done.

    Writes to workdir: config.json, metrics.jsonl (a record an epoch), tensorboard/, checkpoints/,
    and fine_tune.json where the training starts from another run. On CPU a run that was cut and
    resumed equals an uninterrupted one bit for bit.
    Every record has m, the examples that share a perturbation, and the numbers of devices and
    processes; on another number of devices a run goes on only where m stays the same.

    Args:
      config: all fields of configs/digits.py.
      workdir: the folder of the run.
      label: the name of the run in the progress.
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
    if done is not None:
        if not accept_config_changes:  # a finished run keeps the config it had
            workdirs.claim(workdir, config)
        return done
    check_same_m(workdir, config, _resumed_record(workdir))
    if not accept_config_changes:
        workdirs.refuse_another(workdir, config)
    _, data, program = build.data_and_program(config)  # what does not fit writes nothing
    workdirs.claim(workdir, config, accept_config_changes)
    key = jax.random.key(config.seed)
    with checkpoints.open_manager(workdir, config.checkpoint.keep) as manager:
        first_epoch = max(checkpoints.epochs_of(manager), default=0)
        if first_epoch:
            state = restore_state(program, key, manager, first_epoch)
        elif config.fine_tune.workdir:
            state = fine_tune.starting_state(config.fine_tune, program, key, workdir)
        else:
            state = program.init(key)
        log = records.MetricsLog(workdir, first_epoch)
        # Where the config has fewer epochs than the checkpoints, return the newest checkpoint's
        # record.
        written = records.read(workdir / "metrics.jsonl")
        if not written and first_epoch >= config.epochs:
            raise ValueError(
                f"{workdir} holds the checkpoint of epoch {first_epoch}, but no metrics.jsonl. "
                "Choose another --workdir, or delete its checkpoints to train again."
            )

        def record(epoch: Round) -> Later:
            read = _begin_record(config, program, data, epoch)

            def write() -> None:
                written.append(read())
                log.write(written[-1])

            return write

        images_per_epoch = program.steps_per_epoch * config.batch_size
        progress = Progress(label, config.epochs, images_per_epoch, first_epoch)
        fit(
            state,
            range(first_epoch, config.epochs),
            functools.partial(training_calls, config, program, data),
            batch_size=config.batch_size,
            progress=progress,
            hooks=(warn_not_finite, record),
            save=saving(manager),
            save_every=config.checkpoint.every_epochs,
        )
        log.close()
    last = written[-1]
    progress.finish(f"test loss {last['test_loss']:.4f}, test accuracy {last['test_accuracy']:.2%}")
    return last


def training_calls(
    config: ml_collections.ConfigDict, program: Program, data: DeviceData, epoch: int
) -> Iterator[tuple[RunSteps, tuple[Any, ...]]]:
    """Yield the compiled calls of an epoch, with all that they take after the state.

    Args:
      config: the whole config.
      program: its compiled functions.
      data: its data set.
      epoch: counted from zero.
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
    state = program.evaluated_state(epoch.state, data.train_images) if names else epoch.state
    evaluations = begin_evaluations(program, data, state, names)

    def read() -> records.Record:
        loss, accuracy = epoch.means()
        return {
            "epoch": epoch.number,
            "step": epoch.step,
            "batch_loss": loss,
            "batch_accuracy": accuracy,
            **read_evaluations(evaluations),
            **this_machine(config)._asdict(),
        }

    return read


def _finished_record(workdir: pathlib.Path, epochs: int) -> dict[str, Any] | None:
    """Return the last epoch's record where the last checkpoint is there too."""
    history = records.read(workdir / "metrics.jsonl")
    complete = history and history[-1]["epoch"] >= epochs and checkpoints.exists(workdir, epochs)
    return history[-1] if complete else None


def _resumed_record(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Return the record of the newest checkpoint, None where a run would begin at the start."""
    history = reversed(records.read(workdir / "metrics.jsonl"))
    return next((r for r in history if checkpoints.exists(workdir, r["epoch"])), None)
