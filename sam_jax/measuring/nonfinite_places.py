"""Where the numbers of a measurement are not finite."""

import math
from collections.abc import Iterator
from typing import Any

from sam_jax.runs.records import Record

_SHOWN = 3  # of the places, in a warning


def nonfinite_places(result: Record) -> list[str]:
    """Return the places of numbers that are not finite: a field, or one of its points or draws.

    A standard error is left out, which a single draw does not have.

    Args:
      result: the fields that an instrument returned, as JSON gives them back.

    >>> nonfinite_places({"sharpness": math.inf, "losses": [0.1, math.nan], "stderr": math.nan})
    ['sharpness', 'losses[1]']
    """
    fields = ((name, x) for name, x in result.items() if not name.endswith("stderr"))
    return [place for name, value in fields for place in _places(name, value)]


def in_words(places: list[str]) -> str:
    """Return the first of some places, and how many more there are.

    >>> in_words(["losses[1]", "losses[2]", "losses[3]", "losses[4]", "sharpness"])
    'losses[1], losses[2], losses[3] and 2 more'
    """
    more = len(places) - _SHOWN
    return ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _places(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(f"{name}[{index}]", inner)
    elif isinstance(value, float) and not math.isfinite(value):
        yield name
