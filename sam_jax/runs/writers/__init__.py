"""What gets the numbers of a training besides metrics.jsonl, each in a file of its name.

A writer is imported only where a config names it.
"""

import importlib
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from sam_jax.extras import MissingExtra
from sam_jax.mistakes import UserMistake

NAMES = ("tensorboard", "wandb", "mlflow")


class Writer(Protocol):
    """One that gets the numbers of a training.

    Its class is called with the folder of the run, the first epoch that it gets, and the fields of
    the config by their dotted names.
    """

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write finite numbers of an epoch, by name; `step` is the epoch."""
        ...

    def close(self) -> None:
        """Write what is left, in a few seconds; nothing is written after it."""
        ...


def check(names: Iterable[str]) -> None:
    """Raise a UserMistake that names the extras to install, where writers lack their packages."""
    missing = []
    for name in names:
        try:
            _module(name)
        except MissingExtra as error:
            missing.append(error)
    if missing:
        raise UserMistake(" ".join(map(str, missing))) from missing[0]


def opened(
    names: Sequence[str], workdir: pathlib.Path, first_step: int, fields: Mapping[str, Any]
) -> list[Writer]:
    """Return the writers of these names, open.

    Args:
      names: of NAMES.
      workdir: the folder of the run.
      first_step: the first epoch that they get.
      fields: of the config, by their dotted names.
    """
    return [_module(name).WRITER(workdir, first_step, fields) for name in names]


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that are finite, without the epoch.

    >>> finite({"epoch": 3, "loss": 0.5, "test_loss": float("nan")})
    {'loss': 0.5}
    """
    return {n: x for n, x in numbers.items() if n != "epoch" and math.isfinite(x)}


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
