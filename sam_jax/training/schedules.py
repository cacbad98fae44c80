r"""The learning rate by step: a linear warm-up from zero, then one of the schedules below.

Every schedule begins at :math:`\eta`, the highest learning rate, and t counts from its first step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from sam_jax.runs.fields import check_value, number


def cosine(highest: float, steps: int) -> optax.Schedule:
    r"""Return half a cosine, down to zero.

    .. math::
      \eta_t = \frac{\eta}{2} \left(1 + \cos \frac{\pi t}{T}\right)

    Args:
      highest: eta.
      steps: T, at which the rate is zero.

    Source: Loshchilov and Hutter 2017, without restarts; google-research/sam.
    """
    return optax.cosine_decay_schedule(highest, steps)


def exponential(highest: float, steps: int, end: float) -> optax.Schedule:
    r"""Return an exponential decay.

    .. math::
      \eta_t = \eta \, e^{t / T}, \qquad e = \mathrm{end}

    Args:
      highest: eta.
      steps: T.
      end: what is left after T steps, as a share of eta.

    Source: google-research/sam with end = 0.012, as EfficientNet's 0.97 every 2.4 of 350 epochs.
    Its code divides by the length of the warm-up, which is zero there: its first rate is NaN.
    """
    return optax.exponential_decay(highest, steps, end)


def linear(highest: float, steps: int, end: float) -> optax.Schedule:
    r"""Return a straight line, which stays at its end.

    .. math::
      \eta_t = \eta \left(1 + (e - 1) \min(t / T, 1)\right), \qquad e = \mathrm{end}

    Args:
      highest: eta.
      steps: T.
      end: what is left after T steps, as a share of eta.

    Source: google-research/vision_transformer, whose end is 1e-5 rather than a share of eta.
    """
    return optax.linear_schedule(highest, end * highest, steps)


def piecewise(
    highest: float, steps: int, boundaries: Sequence[float], factors: Sequence[float]
) -> optax.Schedule:
    r"""Return constant pieces.

    .. math::
      \eta_t = f_k \eta \quad \text{for } b_k \le t / T < b_{k+1}, \qquad f_0 = 1

    Args:
      highest: eta.
      steps: T.
      boundaries: b_1, b_2, ... in (0, 1), ascending; b_k T is rounded to a whole step.
      factors: f_1, f_2, ..., all of eta itself.

    >>> schedule = piecewise(0.1, 100, (0.5, 0.75), (0.1, 0.01))
    >>> [round(float(schedule(step)), 4) for step in (0, 49, 50, 74, 75)]
    [0.1, 0.1, 0.01, 0.01, 0.001]

    Source: tml-epfl/understanding-sam with boundaries 0.5 and 0.75 and factors 0.1 and 0.01, after
    He et al. 2016. Its code reads the rate one step later, at t + 1.
    """
    rates = jnp.asarray([highest, *(factor * highest for factor in factors)])
    starts = jnp.asarray([round(boundary * steps) for boundary in boundaries])

    def schedule(step: Any) -> jax.Array:
        return rates[jnp.searchsorted(starts, step, side="right")]

    return schedule


def constant(highest: float) -> optax.Schedule:
    """Return the highest learning rate at every step."""
    return optax.constant_schedule(highest)


def after_warmup(schedule: optax.Schedule, highest: float, steps: int) -> optax.Schedule:
    r"""Return a linear rise from zero, and the schedule after it.

    .. math::
      \eta_t = \eta \, t / W \quad \text{for } t < W, \quad \text{then } \mathrm{schedule}(t - W)

    Args:
      schedule: what follows; it begins when the rise has ended.
      highest: eta.
      steps: W; zero for no warm-up.

    Source: Goyal et al. 2017; google-research/vision_transformer.
    """
    if not steps:
        return schedule
    return optax.join_schedules([optax.linear_schedule(0.0, highest, steps), schedule], [steps])


def _piecewise(c: ml_collections.ConfigDict, warmup: int, steps: int) -> optax.Schedule:
    # Its boundaries are shares of the whole training.
    whole = piecewise(c.learning_rate, warmup + steps, **c.piecewise)
    return lambda step: whole(step + warmup)


# name -> (the group `optimiser`, steps of the warm-up, steps after it) -> schedule
SCHEDULES: dict[str, Callable[[ml_collections.ConfigDict, int, int], optax.Schedule]] = {
    "cosine": lambda c, warmup, steps: cosine(c.learning_rate, steps),
    "exponential": lambda c, warmup, steps: exponential(c.learning_rate, steps, **c.exponential),
    "linear": lambda c, warmup, steps: linear(c.learning_rate, steps, **c.linear),
    "piecewise": _piecewise,
    "constant": lambda c, warmup, steps: constant(c.learning_rate),
}


def make_schedule(
    c: ml_collections.ConfigDict, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
    """Return the learning rate by step.

    Args:
      c: the group `optimiser` of a config.
      steps_per_epoch: the whole batches of an epoch.
      total_steps: steps of the whole training.

    Raises:
      ValueError: the warm-up leaves no step after it.
    """
    warmup = round(c.warmup_epochs * steps_per_epoch)
    if warmup >= total_steps:
        raise ValueError(
            f"optimiser.warmup_epochs = {c.warmup_epochs} makes {warmup} of the {total_steps} "
            "steps of the training; choose fewer epochs of warm-up, or more epochs."
        )
    after = SCHEDULES[c.schedule](c, warmup, total_steps - warmup)
    return after_warmup(after, c.learning_rate, warmup)


def lowest_learning_rate(c: ml_collections.ConfigDict) -> float:
    """Return the lowest rate after the warm-up, and 0 where the rate does not fall.

    Args:
      c: the group `optimiser` of a config.
    """
    ends = {
        "exponential": c.exponential.end,
        "linear": c.linear.end,
        "piecewise": min(c.piecewise.factors, default=1.0),
    }
    end = ends.get(c.schedule, 0.0)
    return end * c.learning_rate if end < 1 else 0.0


def check(c: ml_collections.ConfigDict, epochs: int) -> None:
    """Raise a ValueError where fields of the learning rate do not fit each other.

    Args:
      c: the group `optimiser` of a config.
      epochs: of the whole training.
    """
    warmup = number(0, epochs, open_high=True)
    check_value("optimiser.warmup_epochs", c.warmup_epochs, warmup)
    boundaries, factors = c.piecewise.boundaries, c.piecewise.factors
    if len(boundaries) != len(factors):
        raise ValueError(
            "optimiser.piecewise.factors must have one factor for each of the "
            f"{len(boundaries)} boundaries, got {tuple(factors)!r}."
        )
