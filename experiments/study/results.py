"""The results of a study's runs, read once."""

import array
import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from experiments.study.arms import Arm, Plan, seed_folder
from sam_jax.measuring import registry
from sam_jax.runs.records import Record, read

A = TypeVar("A", bound=Arm)
K = TypeVar("K")
V = TypeVar("V")


@dataclasses.dataclass(frozen=True)
class Results(Generic[A]):
    """The records of all arms and seeds; each record has its "arm" (a name) and its "seed"."""

    arms: tuple[A, ...]  # in the order of the tables
    seeds: tuple[int, ...]
    records: tuple[Mapping[str, Any], ...]

    def select(self, **where: Any) -> list[Mapping[str, Any]]:
        """Return the records with these fields, by seed; an absent field counts as None."""
        groups = self._by_measure
        names = (where["measure"],) if "measure" in where else tuple(groups)
        chosen = (record for name in names for record in groups.get(name, ()))
        found = (r for r in chosen if all(r.get(k) == v for k, v in where.items()))
        return sorted(found, key=_seed)

    @functools.cached_property
    def _by_measure(self) -> dict[str | None, list[Mapping[str, Any]]]:
        """The records of each instrument, by seed: a report selects them some hundred times."""
        found: dict[str | None, list[Mapping[str, Any]]] = {}
        for record in sorted(self.records, key=_seed):
            found.setdefault(record.get("measure"), []).append(record)
        return found

    def by_seed(
        self,
        quantity: str,
        where: Mapping[str, Any],
        *,
        arms: Sequence[A] | None = None,
        scale: float = 1.0,
    ) -> np.ndarray:
        """Return a quantity of the selected records, shape [arms, seeds]; NaN where there is none.

        Args:
          quantity: a field of the records.
          where: fields that select one record of an arm and seed.
          arms: the rows; None for all arms.
          scale: a factor for the values.
        """
        arms = self.arms if arms is None else arms
        values = np.full((len(arms), len(self.seeds)), np.nan)
        rows = {arm.name: row for row, arm in enumerate(arms)}
        columns = {seed: column for column, seed in enumerate(self.seeds)}
        for record in self.select(**where):
            if record["arm"] in rows and record["seed"] in columns:
                place = rows[record["arm"]], columns[record["seed"]]
                values[place] = scale * number(record.get(quantity))
        return values


def read_results(workdir: pathlib.Path | str, plan: Plan) -> Results:
    """Return the records of all arms and seeds of a plan.

    Raises:
      ValueError: there is no record at all.
    """
    records = read_records(workdir, plan.arms, plan.seeds)
    return Results(tuple(plan.arms), tuple(plan.seeds), records)


def read_records(
    workdir: pathlib.Path | str,
    arms: Sequence[Arm],
    seeds: Collection[int],
    identity: Callable[[Record], Hashable] = registry.identity,
    files: Sequence[str] = ("records.jsonl",),
) -> tuple[Mapping[str, Any], ...]:
    """Return the records in `workdir/models/NAME/seed_S/records.jsonl` of these arms and seeds.

    Args:
      workdir: the folder of the study.
      arms: the arms to read; missing ones are left out.
      seeds: the seeds to read.
      identity: what tells two records of a run apart. Of two with the same the later holds.
      files: the names of the files to read in the folder of a run.

    Raises:
      ValueError: there is no record at all.
    """
    found = {}
    for arm in arms:
        for seed in seeds:
            folder = seed_folder(workdir, arm, seed)
            for record in (record for name in files for record in read(folder / name)):
                key = (arm.name, seed, identity(record))
                found[key] = compact({**record, "arm": arm.name, "seed": seed})
    if not found:
        raise ValueError(
            f"No records under {workdir}/models/NAME/seed_S/records.jsonl; train and measure some "
            "arms of the study first, or pass the folder that they were written to."
        )
    return tuple(found.values())


class FromFiles(Mapping[K, V]):
    """Values in files, each read when it is asked for: so a study of many runs holds few of them.

    >>> found = FromFiles({"a": pathlib.Path("a.jsonl")}, lambda path: path.suffix)
    >>> found["a"], "b" in found, len(found)
    ('.jsonl', False, 1)
    """

    def __init__(self, files: Mapping[K, pathlib.Path], read: Callable[[pathlib.Path], V]) -> None:
        """Take the file of each key, and what reads one."""
        self._files, self._read = dict(files), read

    def __getitem__(self, key: K) -> V:
        return self._read(self._files[key])

    def __contains__(self, key: object) -> bool:
        return key in self._files  # and nothing is read

    def __iter__(self) -> Iterator[K]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class Kept(Mapping[str, Any]):
    """A record that cannot be changed, in a third of the memory of a dict.

    A study may have a thousand runs, and a report needs a number of each. The names of the fields
    are held once for all records that have the same; lists of floats are arrays of eight bytes a
    number, which are used like lists; equal texts are one text.

    >>> record = compact({"losses": [0.5, 0.25], "n": 2})
    >>> record["losses"][1], record.get("m"), dict(record)["n"]
    (0.25, None, 2)
    """

    __slots__ = ("_places", "_values")

    def __init__(self, places: dict[str, int], values: tuple[Any, ...]) -> None:
        """Take the place of each field, and the values."""
        self._places, self._values = places, values

    def __getitem__(self, name: str) -> Any:
        return self._values[self._places[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def compact(record: Mapping[str, Any]) -> Kept:
    """Return a record in less memory, see `Kept`."""
    return Kept(_places(tuple(record)), tuple(_compact(value) for value in record.values()))


@functools.cache
def _places(names: tuple[str, ...]) -> dict[str, int]:
    return {sys.intern(name): place for place, name in enumerate(names)}


def _compact(value: Any) -> Any:
    if isinstance(value, str):
        return sys.intern(value)
    if not isinstance(value, list):
        return value
    if value and all(type(item) is float for item in value):
        return array.array("d", value)
    return [_compact(item) for item in value]


def _seed(record: Mapping[str, Any]) -> Any:
    return record["seed"]


def number(value: Any) -> float:
    """Return a float; None, which stands for a number not computed, becomes NaN."""
    return math.nan if value is None else float(value)
