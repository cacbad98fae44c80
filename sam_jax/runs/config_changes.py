"""What a config changes of its base, field by field."""

import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import ml_collections

from sam_jax.runs import fields, workdirs


class Change(NamedTuple):
    """A field of a config that differs from its base; the values are texts."""

    name: str
    base: str
    now: str


class Base(NamedTuple):
    """What a config file starts from."""

    name: str  # the path of its file
    config: ml_collections.ConfigDict


def changes(base: ml_collections.ConfigDict, config: ml_collections.ConfigDict) -> list[Change]:
    """Return the fields of a config that differ from its base, in the order of the config.

    >>> base = ml_collections.ConfigDict({"rho": 0.05, "seeds": (0, 1), "method": {"name": "sam"}})
    >>> config = ml_collections.ConfigDict({"rho": 0.1, "seeds": [0, 1], "more": {"m": 4}})
    >>> for change in changes(base, config):
    ...     print(*change)
    rho 0.05 0.1
    more.m absent 4
    method.name 'sam' absent
    """
    old, new = (dict(fields.leaves(workdirs.plain(c))) for c in (base, config))
    names = dict.fromkeys([*new, *old])
    texts = [Change(name, _text(old, name), _text(new, name)) for name in names]
    return [change for change in texts if change.base != change.now]


def base_of(path: str, found: Mapping[str, Any], config: ml_collections.ConfigDict) -> Base:
    """Return what a config file starts from: a config that it imports, or itself without variant.

    Of several imported ones with the same groups it is the one with the fewest changes. A config
    that cannot be made without arguments is no base.

    Args:
      path: of the file.
      found: what its execution has defined.
      config: what it made, maybe with a variant.
    """
    own = _made(found) or config
    imported = [
        Base(_relative(str(module.__file__)), made)
        for module in found.values()
        if isinstance(module, ModuleType) and getattr(module, "__file__", None)
        if (made := _made(vars(module))) is not None
    ]
    alike = [base for base in imported if set(base.config) == set(own)]
    return min(alike, key=lambda base: len(changes(base.config, own)), default=Base(path, own))


def _made(module: Mapping[str, Any]) -> ml_collections.ConfigDict | None:
    """Return the config that a module makes by itself; None where it makes none."""
    try:
        made = module["get_config"]()
    except Exception:  # of whatever module: what only describes a config stops nothing
        return None
    return made if isinstance(made, ml_collections.ConfigDict) else None


def shortened(text: str, most: int = 80) -> str:
    """Return the beginning of a text that is too long for its place, and how long it is.

    >>> shortened("(0, 1, 2, 3)", most=8), shortened("(0, 1)", most=8)
    ('(0, 1, 2… (12 characters)', '(0, 1)')
    """
    return text if len(text) <= most else f"{text[:most].rstrip()}… ({len(text):,} characters)"


def as_text(
    title: str,
    base: Base,
    config: ml_collections.ConfigDict,
    apart: str = "",
    is_whole: bool = False,
) -> str:
    """Return a config as its changes of a base, one a line.

    Args:
      title: its file, with the variant.
      base: what it starts from.
      config: what is run.
      apart: a group whose changes are counted alone, in the last line.
      is_whole: show long values whole.

    >>> base = Base("base.py", ml_collections.ConfigDict({"epochs": 30, "m": {"rho": (0.1,)}}))
    >>> config = ml_collections.ConfigDict({"epochs": 2, "m": {"rho": (0.1, 0.2)}})
    >>> print(as_text("mine.py", base, config))
    config mine.py: base.py with 2 changes
      epochs  2  (was 30)
      m.rho   (0.1, 0.2)  (was (0.1,))
    >>> print(as_text("mine.py", base, config, apart="m"))
    config mine.py: base.py with 2 changes
      epochs  2  (was 30)
      m: 1 change, which --print_config shows
    """
    found = changes(base.config, config)
    if not found:
        same = "" if title == base.name else f" as {base.name}"
        return f"config {title}:{same} without changes; its file explains every field"
    shown = [c for c in found if not apart or not c.name.startswith(f"{apart}.")]
    wide = max((len(change.name) for change in shown), default=0)
    text = str if is_whole else shortened
    lines = [f"  {c.name:<{wide}}  {text(c.now)}  (was {text(c.base)})" for c in shown]
    hidden = [change for change in found if change not in shown]
    if hidden:
        lines.append(f"  {apart}: {_count(hidden)}, which --print_config shows")
    return "\n".join([f"config {title}: {base.name} with {_count(found)}", *lines])


def _count(found: Sequence[Change]) -> str:
    return "1 change" if len(found) == 1 else f"{len(found)} changes"


def _relative(path: str) -> str:
    """Return a path as seen from the current folder, where it is below it."""
    whole, here = pathlib.Path(path).resolve(), pathlib.Path.cwd().resolve()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def _text(flat: Mapping[str, Any], name: str) -> str:
    return repr(_as_tuples(flat[name])) if name in flat else "absent"


def _as_tuples(value: Any) -> Any:
    """Return a value with tuples for lists, as a config file and a command line have them."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
