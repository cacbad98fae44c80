"""Checks of single fields of a config; an error names the field, its value and what is allowed."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from sam_jax.suggestions import did_you_mean


def choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise a ValueError unless a value is one of some names; it suggests the nearest.

    Args:
      name: the field.
      value: what it holds.
      choices: the names that are allowed.

    >>> choice("optimiser.name", "smd", ("sgd", "adamw"))
    Traceback (most recent call last):
    ValueError: optimiser.name must be one of sgd, adamw, got 'smd'. Did you mean 'sgd'?
    """
    choices = tuple(choices)
    if value in choices:
        return
    raise ValueError(
        f"{name} must be one of {', '.join(choices)}, got {value!r}.{did_you_mean(value, choices)}"
    )


def whole(name: str, value: Any, least: int) -> None:
    """Raise a ValueError unless a value is a whole number from `least` on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        wanted = (
            f"at least {least}" if isinstance(value, int) else f"a whole number from {least} on"
        )
        raise ValueError(f"{name} must be {wanted}, got {value!r}.")


def not_negative(name: str, value: float) -> None:
    """Raise a ValueError unless a number is finite and 0 or more."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or a positive number, got {value!r}.")


def positive(name: str, value: float) -> None:
    """Raise a ValueError unless a number is finite and above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}.")


def within(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raise a ValueError unless a number lies between two others.

    Args:
      name: the field.
      value: what it holds.
      low, high: the ends of the interval.
      open_low, open_high: whether an end itself is not allowed.
    """
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if not (above and below):
        interval = f"{'(['[not open_low]}{low:g}, {high:g}{')]'[not open_high]}"
        raise ValueError(f"{name} must lie in {interval}, got {value!r}.")


def ascending(name: str, values: Sequence[float]) -> None:
    """Raise a ValueError unless each number is larger than the one before."""
    if any(b <= a for a, b in zip(values, values[1:], strict=False)):
        raise ValueError(f"{name} must ascend, got {tuple(values)!r}.")
