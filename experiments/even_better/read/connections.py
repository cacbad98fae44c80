"""The measurements along and around the curves between pairs of models."""

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.even_better.arms import Model
from experiments.even_better.thresholds import LOW
from experiments.study.results import compact
from sam_jax.measuring.landscapes import is_whole, read_plane
from sam_jax.metrics.landscape.grids import LossPlane
from sam_jax.runs.records import read


class Connection(NamedTuple):
    """The curve between two models of one seed, and the straight line between them."""

    start: Model
    end: Model
    seed: int
    curve: Mapping[str, Any]
    line: Mapping[str, Any]
    plane: LossPlane  # through the two models and the first bend; statistics recalibrated

    @property
    def label(self) -> str:
        """The names of the two models."""
        return f"{self.start.label} and {self.end.label}"


def read_connections(
    workdir: pathlib.Path | str,
    pairs: Sequence[tuple[Model, Model]] | None = None,
    seeds: Collection[int] | None = None,
) -> tuple[tuple[Connection, ...], ...]:
    """Return the finished connections of every pair, by seed.

    Args:
      workdir: the folder of a study.
      pairs: of models, in their order; None for all that are found, by name.
      seeds: of the connections; None for all.
    """
    found: dict[tuple[Model, Model], list[Connection]] = {pair: [] for pair in pairs or ()}
    for plane in sorted(pathlib.Path(workdir).glob("curves/*/seed_*/plane.jsonl")):
        found_here = read(plane.with_name("records.jsonl"))
        shapes = {record["shape"]: compact(record) for record in found_here}
        if not ({"curve", "line"} <= shapes.keys() and is_whole(plane)):
            continue
        start, end = (Model(**fields) for fields in shapes["curve"]["pair"])
        ends, seed = (start, end), shapes["curve"]["seed"]
        if (pairs is None or ends in found) and (seeds is None or seed in seeds):
            connection = Connection(
                start, end, seed, shapes["curve"], shapes["line"], read_plane(plane)
            )
            found.setdefault(ends, []).append(connection)
    return tuple(tuple(sorted(each, key=lambda c: c.seed)) for each in found.values() if each)


def rise_above_ends(record: Mapping[str, Any]) -> float:
    """Return how much the test loss rises along a path above the higher of its ends, at least 0.

    It does not depend on how the path is parametrised, and a path that only falls from one model to
    the other has none.
    """
    losses = record["test_loss"]
    return max(losses) - max(losses[0], losses[-1])


def low_shares(connections: Sequence[Connection]) -> np.ndarray:
    """Return the share of every seed's trained curve with a low training loss.

    Low is at most a tenth above the higher of its ends.

    Args:
      connections: of one pair.
    """
    losses = [np.array(connection.curve["train_loss"], dtype=float) for connection in connections]
    return np.array([np.mean(each <= LOW * max(each[0], each[-1])) for each in losses])


def relative_rises(connections: Sequence[Connection], shape: str) -> np.ndarray:
    """Return `rise_above_ends` of every seed, in units of the ends' mean test loss.

    Args:
      connections: of one pair.
      shape: "curve" or "line".
    """
    records = [getattr(connection, shape) for connection in connections]
    ends = [(record["test_loss"][0] + record["test_loss"][-1]) / 2 for record in records]
    return np.array([rise_above_ends(record) for record in records]) / np.array(ends)
