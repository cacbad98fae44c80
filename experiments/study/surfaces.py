"""Planes of losses that a reader turns on the page."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sam_jax.metrics.landscape.grids import LossPlane
from sam_jax.plotting import LOG_RATIO

DIGITS = 4  # of a number on the page, where a pixel is a hundredth of the height
MOST_DECADES = 6  # what lies deeper below the top is shown there


class Path(NamedTuple):
    """A line on a plane: the places of its points, and the names of some of them."""

    points: np.ndarray  # [n, 2]
    landmarks: Mapping[str, tuple[float, float]] = {}


class Surfaces(NamedTuple):
    """Planes on one scale, of which the page shows one at a time as a surface or as contours."""

    name: str  # such as "Figure 9, to be turned"
    stem: str
    caption: str
    planes: Mapping[str, LossPlane]  # by the name in the list to choose from; values are one array
    value_label: str = "Training loss"
    paths: Mapping[str, Path] = {}  # by the name of the plane
    highest: float = math.inf  # values above it are shown there
    number: int = 0  # of a figure

    def data(self) -> dict[str, Any]:
        """Return what the page's script draws, as JSON: a number not finite is null."""
        values = np.concatenate([np.ravel(plane.values) for plane in self.planes.values()])
        finite = values[np.isfinite(values)]
        top = min(float(np.max(finite, initial=-math.inf)), self.highest)
        positive = finite[finite > 0]
        low = float(np.min(finite, initial=math.inf))
        bottom = max(float(np.min(positive, initial=math.inf)), top * 10**-MOST_DECADES)
        logarithmic = low >= 0 and bottom * LOG_RATIO < top
        return {
            "value": self.value_label,
            "logarithmic": bool(logarithmic),
            "range": _rounded([bottom if logarithmic else low, top]),
            "planes": [self._plane(name, plane) for name, plane in self.planes.items()],
        }

    def _plane(self, name: str, plane: LossPlane) -> dict[str, Any]:
        found = {
            "name": name,
            "x": _rounded(plane.xs),
            "y": _rounded(plane.ys),
            "z": [_rounded(row) for row in np.asarray(plane.values)],
        }
        path = self.paths.get(name)
        if path is not None:
            found["path"] = [_rounded(axis) for axis in np.asarray(path.points).T]
            found["landmarks"] = [[text, *_rounded(at)] for text, at in path.landmarks.items()]
        return found


def _rounded(values: Any) -> list[float | None]:
    return [float(f"{v:.{DIGITS}g}") if math.isfinite(v) else None for v in np.asarray(values)]
