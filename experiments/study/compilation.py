"""Compile the arms that come next while one trains."""

from collections.abc import Callable, Hashable, Mapping
from concurrent import futures

import jax
import ml_collections

from sam_jax.training import build
from sam_jax.training.train_and_evaluate import training_calls


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
    compiled = {
        arm: executor.submit(compile_training, training) for arm, training in trainings.items()
    }
    executor.shutdown(wait=False)

    def wait(arm: Hashable) -> None:
        if arm in compiled:
            compiled[arm].result()

    return wait


def compile_training(training: ml_collections.ConfigDict) -> None:
    """Compile the program that trains an arm, so that the call that trains it finds it.

    Args:
      training: the training config of the arm.
    """
    source, data = build.load_data(training)
    program = build.make_program(training, source, len(data.train_labels))
    state = program.init(jax.random.key(training.seed))
    run_steps, arguments = next(training_calls(training, program, data, epoch=0))
    run_steps.lower(state, *arguments).compile()
