"""What the functions of data sets are given, checked."""

import numbers
from typing import Any

from sam_jax.data.sources import SOURCES, Source


def check_whole(name: str, value: Any, least: int = 0, most: float = float("inf")) -> None:
    """Raise a ValueError unless a value is a whole number in a range.

    >>> check_whole("pad", 1.5)
    Traceback (most recent call last):
    ValueError: pad must be a whole number, got 1.5.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number, got {value!r}.")
    if not least <= int(value) <= most:
        limit = f"at least {least}" if least else "0 or positive"
        limit = limit if most == float("inf") else f"in {least} .. {most}"
        raise ValueError(f"{name} must be {limit}, got {value}.")


def check_source(source: Any) -> None:
    """Raise a ValueError unless a set's description is given, and not its name."""
    if not isinstance(source, Source):
        known = isinstance(source, str) and source in SOURCES
        name = source if known else "digits"
        raise ValueError(
            f"source must be a Source, such as SOURCES[{name!r}] or load(NAME).source, got "
            f"{source!r}."
        )


def described(value: Any) -> str:
    """Return the dtype and the shape of an array, or the type of anything else."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"a {type(value).__name__}"
