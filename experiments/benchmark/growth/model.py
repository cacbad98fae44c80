"""The model of growth: seconds, operations and bytes at every point of a sweep.

Nothing is fitted. One point of a sweep, the largest, gives the seconds of an operation and the
bytes that an example keeps for the backward pass; operations, copies and collectives are counted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

FLOAT = 4  # bytes of a float32
Point = Mapping[str, Any]  # "x", and what was counted and measured there


class Sweep(NamedTuple):
    """One thing that grows while all else stays."""

    title: str
    x: str  # the name of the axis
    quantity: str  # what the left panel shows: "seconds" or "operations"
    memory: str  # what the right panel shows: "temporary_bytes" or "collective_bytes"
    predict: Callable[[Point, Point, int], tuple[float, float]]  # point, reference, parameters
    words: str  # the model in a sentence


def _batch(point: Point, reference: Point, parameters: int) -> tuple[float, float]:
    copies = 2 * FLOAT * parameters
    share = point["x"] / reference["x"]
    seconds = reference["seconds"] * point["operations"] / reference["operations"]
    return seconds, (reference["temporary_bytes"] - copies) * share + copies


def _m_scan(point: Point, reference: Point, parameters: int) -> tuple[float, float]:
    copies = 2 * FLOAT * parameters
    share = point["x"] / reference["x"]
    more = FLOAT * parameters * (share < 1)  # the sum of the gradients
    activations = reference["temporary_bytes"] - copies
    return reference["seconds"], activations * share + copies + more


def _m_vmap(point: Point, reference: Point, parameters: int) -> tuple[float, float]:
    copies = 2 * FLOAT * parameters
    pieces = reference["x"] / point["x"]
    return reference["seconds"], reference["temporary_bytes"] - copies + copies * pieces


def _evaluations(count: Callable[[float], float]) -> Callable[..., tuple[float, float]]:
    def predict(point: Point, reference: Point, parameters: int) -> tuple[float, float]:
        del parameters
        share = count(point["x"]) / count(reference["x"])
        return reference["seconds"] * share, reference["temporary_bytes"]

    return predict


def _seeds(point: Point, reference: Point, parameters: int) -> tuple[float, float]:
    del parameters
    share = point["x"] / reference["x"]
    return reference["seconds"] * share, reference["temporary_bytes"] * share


def _devices(reductions: int) -> Callable[..., tuple[float, float]]:
    def predict(point: Point, reference: Point, parameters: int) -> tuple[float, float]:
        share = reference["x"] / point["x"]
        reduced = reductions * FLOAT * parameters if point["x"] > 1 else 0.0
        return reference["operations"] * share, reduced

    return predict


SWEEPS = {
    "batch": Sweep(
        "A SAM step over the batch",
        "images",
        "seconds",
        "temporary_bytes",
        _batch,
        "time in proportion to the counted operations; memory: two copies of the parameters, and "
        "what each image keeps",
    ),
    "m_scan": Sweep(
        "m-SAM by scan over m",
        "m",
        "seconds",
        "temporary_bytes",
        _m_scan,
        "two gradients of every image whatever m; memory: three copies and the images of one "
        "sub-batch. Where small sub-batches fit into a cache, the measured time lies below",
    ),
    "m_vmap": Sweep(
        "m-SAM by vmap over m",
        "m",
        "seconds",
        "temporary_bytes",
        _m_vmap,
        "two gradients of every image whatever m; memory: all images, and two copies of the "
        "parameters for every sub-batch",
    ),
    "points": Sweep(
        "A loss surface over its points",
        "grid points",
        "seconds",
        "temporary_bytes",
        _evaluations(lambda x: x),
        "one evaluation a point, one after the other; memory: that of one",
    ),
    "directions": Sweep(
        "The asymmetry factor over its directions",
        "directions",
        "seconds",
        "temporary_bytes",
        _evaluations(lambda x: 1 + 2 * x),
        "two evaluations a direction and one more; memory: that of one",
    ),
    "seeds": Sweep(
        "Seeds trained together by vmap",
        "seeds",
        "seconds",
        "temporary_bytes",
        _seeds,
        "time and memory in proportion to the seeds; where vmap fills the machine better, the "
        "measurement lies below",
    ),
    "devices_common": Sweep(
        "A SAM step over devices, one perturbation for all",
        "devices",
        "operations",
        "collective_bytes",
        _devices(2),
        "each device has its share of the batch; the gradient is summed over the devices in both "
        "passes",
    ),
    "devices_local": Sweep(
        "A SAM step over devices, a perturbation for each",
        "devices",
        "operations",
        "collective_bytes",
        _devices(1),
        "each device has its share of the batch and perturbs alone; the gradient is summed once",
    ),
}


def predicted(sweep: str, points: Sequence[Point], parameters: int) -> list[tuple[float, float]]:
    """Return the model's two numbers at every point, those of the two panels.

    Args:
      sweep: a name in SWEEPS.
      points: measured, with "x", "seconds", "operations", "temporary_bytes" and
        "collective_bytes"; the largest x calibrates the times, the smallest the operations.
      parameters: of the network.

    >>> points = [
    ...     {"x": x, "seconds": x / 10, "operations": 8.0 * x, "temporary_bytes": 80.0 + x}
    ...     for x in (1, 2)
    ... ]
    >>> predicted("batch", points, parameters=10)
    [(0.1, 81.0), (0.2, 82.0)]
    """
    of_devices = sweep.startswith("devices")
    reference = (min if of_devices else max)(points, key=lambda point: point["x"])
    return [SWEEPS[sweep].predict(point, reference, parameters) for point in points]
