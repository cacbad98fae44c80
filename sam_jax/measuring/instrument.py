"""The descriptor of an instrument, read by all code that measures or that shows results."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from sam_jax.measuring.measured import Measured
from sam_jax.metrics import Preset
from sam_jax.metrics.evaluation import standard_error
from sam_jax.runs.fields import Fields
from sam_jax.runs.records import Record

Take = Callable[[], Record]  # measures, and returns the fields of the result


def with_stderr(name: str, values: jax.Array) -> Record:
    """Return the fields of a mean over draws or directions, its standard error NaN for one."""
    return {name: jnp.mean(values), f"{name}_stderr": standard_error(values)}


class Subject(NamedTuple):
    """What an instrument is applied to, and how."""

    measured: Measured
    settings: ml_collections.ConfigDict  # the group `instruments` of the config, completed
    preset: Preset  # an instrument that knows no preset leaves it alone
    workdir: pathlib.Path | None = None  # of the run, for instruments that read or keep files there


@dataclasses.dataclass(frozen=True)
class Column:
    """A number of a record that tables show and correlate.

    Attributes:
      field: its name in the record.
      name: its heading under the title of the instrument.
      label: its name where it stands alone; empty for "TITLE: NAME".
      unit: of the number; empty for a pure number.
      better: the end of the scale that is better, "min" or "max"; "none" where neither is.
      floor: a mean below it is out of the quantity's range and never the best.
    """

    field: str
    name: str
    label: str = ""
    unit: str = ""
    better: Literal["min", "max", "none"] = "none"
    floor: float = -math.inf


@dataclasses.dataclass(frozen=True)
class Instrument:
    """One kind of measurement on a trained model.

    Attributes:
      name: of the instrument and its file; the field "measure" of its records.
      title: its name for readers.
      plan: Subject -> (about, take) for every record: the settings of the record, as JSON holds
        them, and the function that measures. Nothing is computed before `take()` is called.
      settings: the fields of its group of `config.instruments` with their defaults.
      ranges: what these fields may hold; of one that is not named, whatever has the type of its
        default.
      smoke: what `configs/digits.py:smoke` changes of them, to be done in a second.
      group: the name of that group; empty for the name of the instrument.
      presets: the names of the presets that it measures under; none for one that knows no preset.
      identity: the fields of `about` that tell two of its records of one preset apart.
      columns: the numbers that tables show.
      by_default: whether it measures where no measures are named.
    """

    name: str
    title: str
    plan: Callable[[Subject], Iterator[tuple[Record, Take]]]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ranges: Fields = dataclasses.field(default_factory=dict)
    smoke: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    group: str = ""
    presets: tuple[str, ...] = ("sound",)
    identity: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    by_default: bool = True

    def __post_init__(self) -> None:
        """Give the group its name, and the columns theirs."""
        object.__setattr__(self, "group", self.group or self.name)
        named = (
            dataclasses.replace(column, label=column.label or f"{self.title}: {column.name}")
            for column in self.columns
        )
        object.__setattr__(self, "columns", tuple(named))

    def column(self, field: str) -> Column:
        """Return the column of a field of the records."""
        return next(column for column in self.columns if column.field == field)

    def measures_under(self, preset: Preset | None) -> bool:
        """Say whether it measures under a preset; None for what knows no preset."""
        return preset.name in self.presets if preset else not self.presets
