"""The compiled calls that an epoch of a config takes."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections

from sam_jax.runs.randomness import stream
from sam_jax.training import build
from sam_jax.training.device_data import DeviceData, RunSteps, epoch_calls
from sam_jax.training.program import Program
from sam_jax.training.step import order_after_previous
from sam_jax.typing import Key


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
