"""Fields of a config, changed by their dotted names."""

from typing import Any

import ml_collections

from sam_jax.runs import fields
from sam_jax.suggestions import did_you_mean


def set_field(config: ml_collections.ConfigDict, name: str, value: Any) -> bool:
    """Set a field by its dotted name, and say whether the config has it.

    Raises:
      ValueError: the value is of another type.

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
    try:
        target[field] = value
    except TypeError as error:
        wanted = type(target[field]).__name__
        raise ValueError(f"{name} must be of the type {wanted}, got {value!r}.") from error
    return True


def near_fields(config: ml_collections.ConfigDict, name: str) -> str:
    """Return a question with the field whose name is nearest to one that the config has not.

    >>> config = ml_collections.ConfigDict({"method": {"rho": 0.05}})
    >>> near_fields(config, "method.roh")
    " Did you mean 'method.rho'?"
    """
    return did_you_mean(name, [field for field, _ in fields.leaves(config)])
