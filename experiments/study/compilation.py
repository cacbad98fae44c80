"""Compile the arms that come next while one trains."""

from collections.abc import Callable, Hashable, Mapping
from concurrent import futures
from typing import Any

import jax
import ml_collections

from sam_jax.runs.randomness import stream
from sam_jax.training import build
from sam_jax.training.step import order_after_previous


def compile_ahead(
    trainings: Mapping[Hashable, ml_collections.ConfigDict],
) -> Callable[[Hashable], None]:
    """Compile the programs of some arms in a thread, which hardly needs Python.

    Args:
      trainings: the training config of every arm, in the order of their training.

    Returns:
      arm -> None, which waits until the arm is compiled.
    """
    executor = futures.ThreadPoolExecutor(max_workers=1)
    compiled = {arm: executor.submit(_compile, training) for arm, training in trainings.items()}
    executor.shutdown(wait=False)

    def wait(arm: Hashable) -> None:
        if arm in compiled:
            compiled[arm].result()

    return wait


def arguments_of(
    config: ml_collections.ConfigDict, program: build.Program, data: build.DeviceData
) -> tuple[Any, ...]:
    """Return what the first call of a training is made with, after the state."""
    key = jax.random.key(config.seed)
    examples = len(data.train_labels)
    order = order_after_previous(stream(key, "order"), 0, examples, config.batch_size)
    steps = config.steps_per_call or program.steps_per_epoch
    return (
        data.train_images,
        data.train_labels,
        order[: 1 + steps],
        stream(key, "augmentation"),
        build.numbers(config),
    )


def _compile(training: ml_collections.ConfigDict) -> None:
    """Compile the program that trains an arm, for the call that trains it to find."""
    source, data = build.load_data(training)
    program = build.make_program(training, source, len(data.train_labels))
    state = program.init(jax.random.key(training.seed))
    program.run_steps.lower(state, *arguments_of(training, program, data)).compile()
