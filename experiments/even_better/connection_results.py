"""What was measured along and around the curves between pairs of models."""

import pathlib
from typing import NamedTuple

import numpy as np

from experiments.even_better.results import Model
from sam_jax.metrics.landscape import LossPlane
from sam_jax.training.landscapes import read_plane
from sam_jax.training.records import Record, read


class Connection(NamedTuple):
    """The curve between two models of one seed, and the straight line between them."""

    start: Model
    end: Model
    seed: int
    curve: Record
    line: Record
    plane: LossPlane  # through the two models and the first bend; statistics recalibrated

    @property
    def label(self) -> str:
        """The names of the two models."""
        return f"{self.start.label} and {self.end.label}"


def read_connections(workdir: pathlib.Path | str) -> list[list[Connection]]:
    """Return the finished connections of every pair, by seed; the pairs in the order of writing.

    Args:
      workdir: the folder of a study.
    """
    found: dict[tuple[Model, Model], list[Connection]] = {}
    paths = pathlib.Path(workdir).glob("curves/*/seed_*/plane.jsonl")
    for plane in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path)):
        shapes = {record["shape"]: record for record in read(plane.with_name("records.jsonl"))}
        if shapes.keys() < {"curve", "line"}:
            continue
        ends = tuple(Model(**end) for end in shapes["curve"]["pair"])
        found.setdefault(ends, []).append(
            Connection(
                *(*ends, shapes["curve"]["seed"], shapes["curve"], shapes["line"]),
                plane=read_plane(plane),
            )
        )
    return [sorted(connections, key=lambda c: c.seed) for connections in found.values()]


def relative_barriers(connections: list[Connection], shape: str) -> np.ndarray:
    """Return the barrier of the test loss of every seed, in units of the ends' mean test loss.

    Args:
      connections: of one pair.
      shape: "curve" or "line".
    """
    records = [getattr(connection, shape) for connection in connections]
    ends = [(record["test_loss"][0] + record["test_loss"][-1]) / 2 for record in records]
    return np.array([record["test_barrier"] for record in records]) / np.array(ends)
