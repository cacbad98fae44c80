"""Fields of a config, changed by their dotted names."""

import difflib
from typing import Any

import ml_collections


def set_field(config: ml_collections.ConfigDict, name: str, value: Any) -> bool:
    """Set a field by its dotted name, and say whether the config has it.

    >>> config = ml_collections.ConfigDict({"method": {"rho": 0.05}})
    >>> set_field(config, "method.rho", 0.1), set_field(config, "method.radius", 0.1)
    (True, False)
    >>> config.method.rho
    0.1
    """
    *groups, field = name.split(".")
    target = config
    for group in groups:
        target = target.get(group)
        if not isinstance(target, ml_collections.ConfigDict):
            return False
    if field not in target:
        return False
    target[field] = value
    return True


def near_fields(config: ml_collections.ConfigDict, name: str) -> str:
    """Return the fields whose names are nearest to a name that the config does not have, in words.

    >>> config = ml_collections.ConfigDict({"method": {"rho": 0.05}})
    >>> near_fields(config, "method.roh")
    '; the nearest is method.rho'
    """
    known = [name for name, _ in _flat(config)]
    found = difflib.get_close_matches(name, known, n=1)
    return f"; the nearest is {found[0]}" if found else ""


def _flat(config: ml_collections.ConfigDict, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
