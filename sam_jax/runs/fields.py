"""What the fields of a config may hold: a table of types and ranges, and the one check of it.

A table maps the dotted name of a field to a `Field`. `check` raises a ValueError that names the
first field that holds something else, its value, what it may hold, and the nearest valid name.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from sam_jax.suggestions import did_you_mean


@dataclasses.dataclass(frozen=True)
class Field:
    """What a field may hold.

    Attributes:
      wanted: the same in words, after "must be".
      holds: value -> whether the field may hold it.
      choices: the names that it may hold, of which an error suggests the nearest.
      needed: whether a config has to have it.
    """

    wanted: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    needed: bool = True


Fields = Mapping[str, Field]
Config = Mapping[str, Any] | ml_collections.ConfigDict


def whole(least: int, most: int | None = None) -> Field:
    """Return a field for a whole number in a range, both ends included.

    >>> whole(1).wanted, whole(1).holds(2), whole(1).holds(True), whole(1).holds(2.0)
    ('a whole number from 1 on', True, False, False)
    """
    upto = "on" if most is None else f"to {most}"
    return Field(
        f"a whole number from {least} {upto}",
        lambda x: _is_whole(x) and least <= x and (most is None or x <= most),
    )


def odd(least: int) -> Field:
    """Return a field for an odd whole number from an odd one on: a grid with a point at 0."""
    return Field(
        f"an odd number from {least} on, so that the model is one of them",
        lambda x: whole(least).holds(x) and x % 2 == 1,
    )


def number(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> Field:
    """Return a field for a finite number in an interval.

    Args:
      low, high: the ends of the interval.
      open_low, open_high: whether an end itself is outside.

    >>> number(0, 1, open_high=True).wanted, number(0).wanted, number(0, open_low=True).wanted
    ('a number in [0, 1)', 'a finite number of 0 or more', 'a finite number above 0')
    """

    def holds(x: Any) -> bool:
        if not _is_number(x) or not math.isfinite(x):
            return False
        return (x > low if open_low else x >= low) and (x < high if open_high else x <= high)

    if low == -math.inf and high == math.inf:
        wanted = "a finite number"
    elif high == math.inf:
        wanted = (
            f"a finite number above {low:g}" if open_low else f"a finite number of {low:g} or more"
        )
    else:
        wanted = (
            f"a number in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        )
    return Field(wanted, holds)


def positive() -> Field:
    """Return a field for a finite number above 0."""
    return number(0, open_low=True)


def flag() -> Field:
    """Return a field for True or False."""
    return Field("True or False", lambda x: isinstance(x, bool))


def text() -> Field:
    """Return a field for a string that is not empty."""
    return Field("a string that is not empty", lambda x: isinstance(x, str) and bool(x.strip()))


def path() -> Field:
    """Return a field for a path, empty for none."""
    return Field("a path as a string, or ''", lambda x: isinstance(x, str))


def one_of(choices: Collection[str]) -> Field:
    """Return a field for one of some names; a dict that gets another name allows it.

    >>> check({"schedule": "cosin"}, {"schedule": one_of(("cosine", "linear"))})
    Traceback (most recent call last):
    ValueError: schedule must be one of cosine, linear, got 'cosin'. Did you mean 'cosine'?
    """
    names = tuple(choices)
    return Field(f"one of {', '.join(names)}", lambda x: isinstance(x, str) and x in choices, names)


def optional(field: Field) -> Field:
    """Return a field that may also hold None."""
    return dataclasses.replace(
        field, wanted=f"None or {field.wanted}", holds=lambda x: x is None or field.holds(x)
    )


def several(item: Field, least: int = 0, distinct: bool = False) -> Field:
    """Return a field for a tuple whose items are alike.

    Args:
      item: what each may be.
      least: how many there are at least.
      distinct: whether no two may be equal.
    """

    def holds(x: Any) -> bool:
        fits = _is_tuple(x) and len(x) >= least and all(map(item.holds, x))
        return fits and not (distinct and len({*map(repr, x)}) < len(x))

    atleast = f" of at least {least}" if least else ""
    differing = "different items" if distinct else "items"
    return Field(f"a tuple{atleast} whose {differing} are each {item.wanted}", holds, item.choices)


def items(*parts: Field) -> Field:
    """Return a field for a tuple with one item for each of some fields."""

    def holds(x: Any) -> bool:
        return (
            _is_tuple(x)
            and len(x) == len(parts)
            and all(part.holds(value) for part, value in zip(parts, x, strict=True))
        )

    choices = tuple(choice for part in parts for choice in part.choices)
    return Field(f"({', '.join(part.wanted for part in parts)})", holds, choices)


def ascending(item: Field) -> Field:
    """Return a field for a tuple of numbers, each above the one before."""
    each = several(item)
    return Field(
        f"{each.wanted}, ascending",
        lambda x: each.holds(x) and all(a < b for a, b in zip(x, x[1:], strict=False)),
    )


def like(default: Any) -> Field:
    """Return a field for values of the type of a default; for one of no known type, for any.

    >>> like(0.5).holds(1), like((1, 2)).holds("ab"), like(3).holds(0.5)
    (True, False, False)
    """
    if isinstance(default, bool):
        return flag()
    if _is_whole(default):
        return Field("a whole number", _is_whole)
    if _is_number(default):
        return number()
    if isinstance(default, str):
        return path()
    if _is_tuple(default):
        return Field("a tuple", _is_tuple)
    return Field("anything", lambda x: True)


def under(prefix: str, table: Fields) -> dict[str, Field]:
    """Return a table with a prefix before every name."""
    return {f"{prefix}{name}": field for name, field in table.items()}


def check(config: Config, table: Fields, apart: Sequence[str] = (), prefix: str = "") -> None:
    """Raise a ValueError unless a config has all fields of a table, no other, and their values fit.

    Args:
      config: a config, or a group of one.
      table: what its fields may hold, by their dotted names.
      apart: dotted names of groups that may hold fields which are not in the table.
      prefix: before the names in an error, such as "training." for that group of a config.

    >>> check({"method": {"rho": -1.0}}, {"method.rho": number(0)})
    Traceback (most recent call last):
    ValueError: method.rho must be a finite number of 0 or more, got -1.0.
    >>> check({"method": {"roh": 0.1}}, {"method.rho": number(0)})
    Traceback (most recent call last):
    ValueError: The config has a field method.roh, which is none. Did you mean 'method.rho'?
    """
    found = dict(leaves(config, table))
    for name in found:
        if name not in table and not any(name.startswith(f"{group}.") for group in apart):
            near = did_you_mean(f"{prefix}{name}", [f"{prefix}{other}" for other in table])
            raise ValueError(f"The config has a field {prefix}{name}, which is none.{near}")
    for name, field in table.items():
        if name in found:
            check_value(f"{prefix}{name}", found[name], field)
        elif field.needed:
            raise ValueError(f"The config lacks the field {prefix}{name}, {field.wanted}.")


def check_value(name: str, value: Any, field: Field) -> None:
    """Raise a ValueError unless a field may hold a value.

    Args:
      name: of the field.
      value: what it holds.
      field: what it may hold.
    """
    if field.holds(value):
        return
    nears = (did_you_mean(text, field.choices) for text in _texts(value))
    near = next(filter(None, nears), "")
    raise ValueError(f"{name} must be {field.wanted}, got {value!r}.{near}")


def leaves(
    config: Config, table: Collection[str] = (), prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a config by their dotted names; groups that `table` names are fields.

    >>> dict(leaves({"seed": 0, "method": {"rho": 0.1}}))
    {'seed': 0, 'method.rho': 0.1}
    """
    for name, value in config.items():
        if hasattr(value, "items") and f"{prefix}{name}" not in table:
            yield from leaves(value, table, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_whole(x: Any) -> bool:
    return isinstance(x, numbers.Integral) and not isinstance(x, bool)


def _is_number(x: Any) -> bool:
    return isinstance(x, numbers.Real) and not isinstance(x, bool)


def _is_tuple(x: Any) -> bool:
    return isinstance(x, tuple | list)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif _is_tuple(value):
        for item in value:
            yield from _texts(item)
