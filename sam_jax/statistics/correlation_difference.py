"""Which of two measures goes better with the test loss: the difference of two correlations."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sam_jax import statistics


class CorrelationDifference(NamedTuple):
    """r(x, z) - r(y, z) over n models; NaN where it is not determined."""

    difference: float
    interval: statistics.Interval
    n: int


def correlation_difference(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> CorrelationDifference:
    """Return Pearson's r(x, z) - r(y, z) with a 95% interval.

    Fisher's intervals are (l, u) for r = r(x, z) and (l', u') for r' = r(y, z). The ends are

        r - r' - sqrt((r - l)^2 + (u' - r')^2 - 2 c (r - l) (u' - r')),
        r - r' + sqrt((u - r)^2 + (r' - l')^2 - 2 c (u - r) (r' - l')),

    with the correlation c of r and r'. From s = r(x, y) it is

        c = ((s - r r' / 2) (1 - r^2 - r'^2 - s^2) + s^3) / ((1 - r^2) (1 - r'^2)).

    Args:
      x: Shape [k], one measure of every model.
      y: Shape [k], the other measure.
      z: Shape [k], such as the test loss. Models with a value that is not finite are left out.

    Returns:
      A `CorrelationDifference`.

    References:
      Zou, Toward using confidence intervals to compare correlations, 2007 (section 3.2).
    """
    table = np.array([x, y, z], dtype=float)
    x, y, z = table[:, np.isfinite(table).all(axis=0)]
    first, second = (statistics.correlation(values, z, resamples=1) for values in (x, y))
    both = statistics.correlation(x, y, resamples=1).r
    difference, r, other = first.r - second.r, first.r, second.r
    ends = [*first.fisher_interval, *second.fisher_interval]
    if first.n < 4 or not all(map(math.isfinite, [*ends, both])):
        return CorrelationDifference(difference, statistics.Interval(math.nan, math.nan), first.n)
    c = (both - r * other / 2) * (1 - r**2 - other**2 - both**2) + both**3
    c = np.clip(c / ((1 - r**2) * (1 - other**2)), -1, 1)

    def half(one: float, two: float) -> float:
        return math.sqrt(max(one**2 + two**2 - 2 * c * one * two, 0.0))

    low, high, other_low, other_high = ends
    interval = statistics.Interval(
        difference - half(r - low, other_high - other),
        difference + half(high - r, other - other_low),
    )
    return CorrelationDifference(difference, interval, first.n)
