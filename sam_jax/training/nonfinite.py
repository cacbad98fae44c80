"""Numbers of a training that are not finite, or that grow: what is done, and what is said."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import logging

from sam_jax.training.step import StepMetrics

ON_NONFINITE = ("stop", "skip", "continue")


class NonFiniteStepError(ArithmeticError):
    """The loss, the gradient or the parameters of a step are not finite."""

    def __init__(self, step: int, loss: float, gradient_norm: float) -> None:
        """Keep the step, counted from one, with its numbers."""
        super().__init__(f"step {step} has the loss {loss} and a gradient of norm {gradient_norm}")
        self.step, self.loss, self.gradient_norm = step, loss, gradient_norm


def watch_steps(on_nonfinite: str) -> Callable[[int, StepMetrics], None]:
    """Return what is called with every compiled call: the steps before it, and its metrics.

    Args:
      on_nonfinite: "stop" raises a `NonFiniteStepError`; "skip" and "continue" warn.
    """

    def watch(steps_before: int, metrics: StepMetrics) -> None:
        bad = np.flatnonzero(~np.asarray(metrics.finite))
        if not bad.size:
            return
        first = int(bad[0])
        numbers = float(metrics.loss[first]), float(metrics.gradient_norm[first])
        error = NonFiniteStepError(steps_before + first + 1, *numbers)
        if on_nonfinite == "stop":
            raise error
        which = "skipped" if on_nonfinite == "skip" else "not finite"
        logging.warning("%s; %d of %d steps are %s.", error, bad.size, metrics.finite.size, which)

    return watch


class Growth(NamedTuple):
    """Whether a training diverges.

    Attributes:
      start_loss: the first finite loss of a step of the run.
      diverged: whether the mean loss of the epoch is above `factor` times it, or not finite.
    """

    start_loss: float
    diverged: bool


def growth(start_loss: float, loss: float, factor: float) -> Growth:
    """Compare the mean loss of an epoch with that of the start.

    Args:
      start_loss: of the first step.
      loss: of the epoch.
      factor: 0 for never.

    >>> growth(2.0, 30.0, 10.0), growth(2.0, 30.0, 0.0).diverged
    (Growth(start_loss=2.0, diverged=True), False)
    """
    return Growth(start_loss, bool(factor) and not loss <= factor * start_loss)
