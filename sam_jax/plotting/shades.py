"""What pictures of landscapes share: how values become colours and texts.

The colours run from dark to light with the value (viridis), so that they keep their order in grey
and with colour blindness.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import LogNorm, Normalize

from sam_jax.metrics.landscape.grids import LossLine, LossPlane
from sam_jax.plotting.base import LOG_RATIO
from sam_jax.typing import PyTree

COLOUR_MAP = "viridis"
MOST_DECADES = 6.0  # below this part of the maximum a logarithmic scale shows nothing of interest


class Shades(NamedTuple):
    """The levels of a landscape and how values become colours."""

    levels: np.ndarray  # increasing
    norm: Normalize  # from values to [0, 1], linear or logarithmic
    extend: str  # which values lie outside of the levels: "neither", "min", "max", "both"


def shades(
    values: np.ndarray,
    clip: float | None = None,
    count: int = 12,
    log_ratio: float = LOG_RATIO,
) -> Shades | None:
    """Return levels for contours: logarithmic where the values span orders of magnitude.

    Args:
      values: any shape; values that are not finite are left out.
      clip: the highest level; None for the largest value.
      count: how many levels.
      log_ratio: of the largest to the smallest value, from where on levels are logarithmic.

    Returns:
      Shades, or None where no value is finite and below `clip`.

    >>> shades(np.array([0.01, 1.0, 100.0]), count=3).levels.round(3).tolist()
    [0.01, 1.0, 100.0]
    >>> shades(np.array([1.0, 5.0, np.inf]), clip=3.0, count=3).levels.tolist()
    [1.0, 2.0, 3.0]
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    top = np.max(finite, initial=-np.inf) if clip is None else float(clip)
    inside = finite[finite <= top]
    if inside.size == 0:
        return None
    low, positive = float(np.min(inside)), inside[inside > 0]
    if low >= 0 and positive.size and np.min(positive) * log_ratio < top:
        bottom = max(float(np.min(positive)), top * 10**-MOST_DECADES)
        levels, norm = np.geomspace(bottom, top, count), LogNorm(bottom, top)
    else:
        if top <= low:  # a flat landscape is drawn, in the middle of its colours
            margin = abs(low) * 1e-3 or 1e-3
            low, top = low - margin, top + margin
        levels, norm = np.linspace(low, top, count), Normalize(low, top)
    under, over = np.min(finite) < levels[0], np.max(finite) > levels[-1]
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    return Shades(levels, norm, extend[int(under), int(over)])


def mean_plane(planes: Sequence[LossPlane], quantity: str | None = None) -> LossPlane:
    """Return the mean of planes on one grid, such as the planes of several seeds.

    Args:
      planes: at least one; a point that is not finite in one of them is not finite in the mean.
      quantity: the field of their values; None where the values are one array.

    Raises:
      ValueError: the grids or the policies of batch norm differ, so that a mean means nothing.

    >>> planes = [LossPlane(np.array([[v]]), np.zeros(1), np.zeros(1)) for v in (1.0, 3.0)]
    >>> mean_plane(planes).values.tolist()
    [[2.0]]
    """
    first = planes[0]
    for plane in planes:
        same = np.array_equal(plane.xs, first.xs) and np.array_equal(plane.ys, first.ys)
        if not same or plane.batch_norm != first.batch_norm:
            raise ValueError("The mean of planes needs one grid and one policy of batch norm.")
    mean = np.mean([values_of(plane, quantity) for plane in planes], axis=0)
    return LossPlane(mean, first.xs, first.ys, first.batch_norm)


def values_of(landscape: LossLine | LossPlane, quantity: str | None) -> np.ndarray:
    """Return one quantity of a landscape; a ValueError lists them where several are to choose."""
    values = landscape.values if quantity is None else _field(landscape.values, quantity)
    if isinstance(values, tuple | dict):
        names = list(values) if isinstance(values, dict) else getattr(values, "_fields", "")
        raise ValueError(f"Several quantities were measured; choose quantity= from {names}.")
    return np.asarray(values, dtype=float)


def _field(values: PyTree, quantity: str) -> np.ndarray:
    return values[quantity] if isinstance(values, dict) else getattr(values, quantity)


def grid_of(plane: LossPlane, quantity: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the axes of a plane and one quantity on its grid, in float64."""
    xs, ys = (np.asarray(axis, dtype=float) for axis in (plane.xs, plane.ys))
    return xs, ys, values_of(plane, quantity)


def titled(title: str, policies: Sequence[str | None] | set[str | None]) -> str:
    """Return a title with the policies of batch norm below it.

    Args:
      title: may be empty.
      policies: of the landscapes in the panel, None for those without batch norm.

    >>> titled("Around SAM", ["running"])
    'Around SAM\\nbatch norm: running'
    """
    policy = ", ".join(f"batch norm: {policy}" for policy in policies if policy is not None)
    return "\n".join(part for part in (title, policy) if part)


def short(value: float, digits: int = 2) -> str:
    """Return a number with two digits, or so many, and all of them before the point to 10,000."""
    return f"{value:.0f}" if 10**digits <= abs(value) < 10**5 else f"{value:.{digits}g}"


def level_texts(levels: np.ndarray) -> list[str]:
    """Return levels with as few digits as tell them apart.

    >>> level_texts(np.array([0.5, 2.0, 150.0])), level_texts(np.array([2.31, 2.312]))
    (['0.5', '2', '150'], ['2.310', '2.312'])
    """
    for digits in range(2, 8):
        texts = [short(level, digits) for level in levels]
        if len(set(texts)) == len(texts):
            break
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return [f"{level:.{decimals}f}" for level in levels] if digits > 2 else texts
