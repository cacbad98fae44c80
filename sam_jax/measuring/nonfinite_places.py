"""Where the numbers of a measurement are not finite."""

import math
from collections.abc import Iterator
from typing import Any

from sam_jax.runs.records import Record


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


def _places(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(f"{name}[{index}]", inner)
    elif isinstance(value, float) and not math.isfinite(value):
        yield name
