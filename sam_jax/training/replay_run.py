"""A step of the run in a folder, computed once more, and shown as text."""

import functools
import pathlib
from collections.abc import Iterator

from sam_jax.mistakes import checking
from sam_jax.runs import checkpoints, workdirs
from sam_jax.training import build
from sam_jax.training.replay import Replay, ReplayedStep, replayed, stopped_at
from sam_jax.training.train_and_evaluate import training_calls


def replay_run(workdir: pathlib.Path, step: int | None = None) -> tuple[ReplayedStep, ...]:
    """Return a step of a run and the one before it, computed once more.

    Args:
      workdir: the folder of the run.
      step: counted from one; None for the one in nonfinite.json.

    Raises:
      FileNotFoundError: there is no run, or no step is named and none stopped it.
      ValueError: the run has no such step.
    """
    with checking():
        config = workdirs.read_config(workdir)
        step = stopped_at(workdir) if step is None else step
    _, data, program = build.data_and_program(config)
    with checkpoints.open_manager(workdir, keep=None) as manager:
        calls = functools.partial(training_calls, config, program, data)
        return replayed(Replay(config, program, workdir, manager, calls), step)


def lines(found: ReplayedStep) -> Iterator[str]:
    """Yield a step as text, a line a quantity.

    >>> from sam_jax.training.observed import Quantity
    >>> loss, gradient = Quantity("loss", (), 2.5), Quantity("gradient", ("Dense_0/bias",), 0.5)
    >>> print(*lines(ReplayedStep(7, (loss, gradient))), sep="\\n")
    step 7
      loss                                largest 2.5
      gradient                            largest 0.5         not finite: Dense_0/bias
    """
    yield f"step {found.step}"
    for quantity in found.quantities:
        line = f"  {quantity.name:<36}largest {quantity.largest:<12.6g}"
        bad = ", ".join(path or "all of it" for path in quantity.nonfinite)
        yield (line + f"not finite: {bad}" if bad else line).rstrip()
