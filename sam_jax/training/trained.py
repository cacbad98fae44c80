"""A trained model: loaded from the folder of its run, with its losses over the two sets."""

import math
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import ml_collections
import orbax.checkpoint as ocp

from sam_jax.data import Source
from sam_jax.mistakes import UserMistake
from sam_jax.runs import checkpoints, workdirs
from sam_jax.training import build
from sam_jax.training.device_data import DeviceData
from sam_jax.training.evaluation import NoisyEvaluation
from sam_jax.training.program import Program
from sam_jax.training.step import TrainState
from sam_jax.typing import Key


class Trained(NamedTuple):
    """A run at the end of an epoch."""

    state: TrainState
    program: Program
    data: DeviceData
    source: Source
    epoch: int


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
      ValueError: the checkpoint is damaged, or was saved with another config.
    """
    workdir = pathlib.Path(workdir)
    config = workdirs.read_config(workdir)
    if "optimiser" not in config:
        raise UserMistake(
            f"The config.json of {workdir} is of no training: give the folder of a run, in a study "
            "one of models/NAME/seed_S."
        )
    with checkpoints.open_manager(workdir, keep=None) as manager:
        epoch = checkpoints.chosen_epoch(manager, workdir, epoch)
        checkpoints.check_config(workdir, epoch)  # before anything is built by it
        source, data, program = build.data_and_program(config)
        state = restore_state(program, jax.random.key(config.seed), manager, epoch)
    state = program.evaluated_state(state, data.train_images)
    return config, Trained(state, program, data, source, epoch)


def untrained(config: ml_collections.ConfigDict) -> Trained:
    """Return what a run of a config would be, to check what is to be done with it.

    Its state has only shapes.

    Args:
      config: the whole config.

    Raises:
      ValueError, FileNotFoundError: as `build.data_and_program`.
    """
    source, data, program = build.data_and_program(config)
    state = jax.eval_shape(program.init, jax.random.key(config.seed))
    return Trained(state, program, data, source, config.epochs)


def check_whole(trained: Trained) -> None:
    """Raise a ValueError where the data are streamed, for what needs them on the device at once."""
    jax.tree.leaves(trained.data)  # which a streamed column refuses


def restore_state(
    program: Program, key: Key, manager: ocp.CheckpointManager, epoch: int
) -> TrainState:
    """Return the state that a run saved at the end of an epoch.

    Args:
      program: of the run.
      key: of the run's seed; only its shape is read.
      manager: from `checkpoints.open_manager`.
      epoch: one of `checkpoints.epochs_of(manager)`.
    """
    template = jax.eval_shape(program.init, key)
    return checkpoints.restore(manager, template, epoch, program.placement.shardings(template))


def evaluate_sets(
    program: Program, data: DeviceData, state: TrainState, names: tuple[str, ...]
) -> dict[str, float]:
    """Return the losses and accuracies of the named sets, NaN for the sets that are not named.

    Args:
      program: the compiled functions of the model.
      data: its data set.
      state: the model.
      names: of "train", "test" and "validation"; the last is left out where nothing is held out.

    Returns:
      train_loss, train_accuracy and, for each k of `program.top_k`, train_topK_accuracy; the same
      of the other sets. Where the training labels are noisy, also the fields of `NoisyEvaluation`
      with "train_" before them.
    """
    return read_evaluations(begin_evaluations(program, data, state, names))


def begin_evaluations(
    program: Program, data: DeviceData, state: TrainState, names: tuple[str, ...]
) -> dict[str, Any]:
    """Return what `evaluate_sets` returns as arrays that are still computed.

    Args:
      program, data, state, names: as in `evaluate_sets`.
    """
    sets: dict[str, Any] = {
        "train": (data.train_images, data.train_labels),
        "test": (data.test_images, data.test_labels),
    }
    if data.validation_images is not None:
        sets["validation"] = (data.validation_images, data.validation_labels)
    top_k = tuple(f"top{k}_accuracy" for k in program.top_k)
    found: dict[str, Any] = {}
    for name, examples in sets.items():
        fields = ("loss", "accuracy", *top_k)
        numbers: list[Any] = [math.nan] * len(fields)
        # What is evaluated apart for clean and noisy labels gives loss and accuracy, too.
        again = name == "train" and data.train_pairs is not None and not top_k
        if name in names and not again:
            result = program.evaluate(state.params, state.batch_stats, *examples)
            numbers = jax.tree.leaves(result)
        found |= {f"{name}_{f}": x for f, x in zip(fields, numbers, strict=True)}
    if data.train_pairs is not None:
        parts: Iterable[Any] = [math.nan] * len(NoisyEvaluation._fields)
        if "train" in names:
            parts = program.evaluate_noisy(state.params, state.batch_stats, *data.train_pairs)
        noisy = zip(NoisyEvaluation._fields, parts, strict=True)
        found |= {f"train_{field}": x for field, x in noisy}
    return found


def read_evaluations(found: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of `begin_evaluations`, once they are there."""
    return {name: float(x) for name, x in jax.device_get(found).items()}
