"""Measurements at many points, split over the devices and kept so that a cut run goes on."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sam_jax.measuring.batch_norm_policy import BatchNormPolicy
from sam_jax.metrics.over_devices import over_devices
from sam_jax.runs import records
from sam_jax.runs.progress import each
from sam_jax.runs.workdirs import checksum
from sam_jax.training.device_data import device_mesh
from sam_jax.typing import PyTree

# points [k, ...] -> the values measured at each of them, arrays [k] by name
Measure = Callable[[np.ndarray], dict[str, np.ndarray]]


def compile_over_points(fn: Callable[..., dict[str, jax.Array]]) -> Callable[..., Any]:
    """Return `measure(points, *others)`, compiled, with the points split over the devices.

    Args:
      fn: `fn(points, *others)` -> arrays [k] by name for points [k, ...]; it computes in the
        precision that is asked for, however the models were trained.

    Returns:
      A function to NumPy arrays by name.
    """

    compiled = over_devices(jax.default_matmul_precision("highest")(fn), device_mesh())

    def measure(points: np.ndarray, *others: PyTree) -> dict[str, np.ndarray]:
        values = compiled(points.astype(np.float32), *others)
        return {name: np.asarray(value) for name, value in values.items()}

    return measure


def header(
    measure: str,
    weights: PyTree,
    examples: Sequence[int],
    batch_norm: BatchNormPolicy,
    about: records.Record | None,
) -> records.Record:
    """Return what tells a measurement from others: all that its losses depend on but the points.

    Args:
      measure: the name of the measurement.
      weights: all arrays that the points are made of.
      examples: the sizes of the training and the test set.
      batch_norm: where batch norm takes its statistics from.
      about: further fields.
    """
    return {
        "measure": measure,
        **(about or {}),
        "batch_norm": batch_norm.kind,
        # The number of points in a pass is left out, because it changes no loss: after memory has
        # run out, the same file goes on with smaller passes.
        "batch_size": batch_norm.batch_size,
        "examples": list(examples),
        "checksum": checksum(weights),
    }


def measure_points(
    path: pathlib.Path | str | None,
    header: records.Record,
    points: np.ndarray,
    chunk: int,
    measure: Measure,
    label: str,
) -> dict[str, np.ndarray]:
    """Measure at every point, so many at a time, and go on after the points that a file holds.

    Args:
      path: a file of JSON lines: the header, then a line a chunk. None keeps nothing.
      header: what tells this measurement from others, as JSON can hold it.
      points: [n, ...].
      chunk: points in one call and in one line.
      measure: points [k, ...] -> arrays [k] by name.
      label: the name of the measurement in the progress.

    Returns:
      float64 arrays [n] by name; values that are not finite are kept.

    Raises:
      ValueError: the file holds another measurement.
    """
    path = None if path is None else pathlib.Path(path)
    lines = [] if path is None else _begin(path, header)
    done = sum(len(next(iter(_values(line).values()))) for line in lines)
    for first in each(label, range(done, len(points), chunk)):
        values = measure(points[first : first + chunk])
        line = records.as_read({"first_point": first, **values})
        lines.append(line)
        if path is not None:
            records.append(path, line)
    return _join(lines)


def read_points(
    path: pathlib.Path | str, measure: str
) -> tuple[records.Record, dict[str, np.ndarray]]:
    """Return the header of a file that `measure_points` has written, and its values so far.

    Args:
      path: the file of JSON lines.
      measure: the measure that its header has to name.

    Raises:
      FileNotFoundError: there is no such file, or nothing in it.
      ValueError: it holds something else.
    """
    found = records.read(pathlib.Path(path))
    if not found:
        raise FileNotFoundError(f"{path} holds no {measure}; measure one first.")
    header, *lines = found
    if header.get("measure") != measure:
        raise ValueError(f"{path} holds a {header.get('measure')}, and no {measure}.")
    return header, _join(lines)


def _begin(path: pathlib.Path, header: records.Record) -> list[records.Record]:
    """Return the lines that are measured; write the header where there is no file yet."""
    found = records.read(path)
    if not found:
        records.append(path, header)
        return []
    differing = records.differing_fields(found[0], header)
    if differing:
        raise ValueError(
            f"{path} holds another measurement; {', '.join(differing)} differ. Choose another "
            "path, or delete the file."
        )
    return found[1:]


def _join(lines: list[records.Record]) -> dict[str, np.ndarray]:
    each_line = [_values(line) for line in lines]
    names = each_line[0] if each_line else ()
    return {
        name: np.concatenate([np.asarray(line[name], np.float64) for line in each_line])
        for name in names
    }


def _values(line: records.Record) -> dict[str, list[float]]:
    """Return the measured values; the other fields of a line say where."""
    return {name: value for name, value in line.items() if isinstance(value, list)}
