"""The common part of the statistics: intervals, and the checks of arguments."""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

# Values whose spread is below this share of their size differ by rounding only.
_ROUNDING = 1e-12


class Interval(NamedTuple):
    """The low and the high end of an interval, NaN where it is not determined."""

    low: float  # never above high
    high: float


UNDETERMINED = Interval(math.nan, math.nan)


def vector(name: str, values: ArrayLike) -> np.ndarray:
    """Return the values as float64.

    Raises:
      ValueError: they are not a vector, or complex.
    """
    if np.iscomplexobj(values):
        raise ValueError(f"{name} must hold real numbers, got complex ones.")
    array = np.asarray(values, dtype=float)
    if array.ndim != 1:
        raise ValueError(f"{name} must be a vector, one value a model; got shape {array.shape}.")
    return array


def vectors(**named: ArrayLike) -> list[np.ndarray]:
    """Return every argument as float64.

    Raises:
      ValueError: an argument is not a vector, or their lengths differ.
    """
    arrays = [vector(name, values) for name, values in named.items()]
    if len({array.size for array in arrays}) > 1:
        lengths = ", ".join(f"{n} has {a.size}" for n, a in zip(named, arrays, strict=True))
        raise ValueError(f"{' and '.join(named)} must be of one length, but {lengths} values.")
    return arrays


def is_constant(values: np.ndarray, scale: float | None = None) -> bool:
    """Tell whether the values differ by no more than rounding of numbers of size `scale`.

    Args:
      values: Shape [k].
      scale: The size of the numbers behind the values, by default the largest of the values.
    """
    if values.size < 2:
        return True
    size = float(np.abs(values).max()) if scale is None else scale
    return bool(np.ptp(values) <= _ROUNDING * size)


def check_share(name: str, value: float) -> None:
    """Raise a ValueError unless `value` lies strictly between zero and one."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, such as 0.95 or 0.05; got {value!r}.")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise a ValueError that lists the known names unless `value` is one of them."""
    if value not in known:
        raise ValueError(f"{name} must be one of {list(known)}, got {value!r}.")


def fisher_interval(r: float, variance: float, confidence: float) -> Interval:
    """Return tanh(artanh r +- z sqrt(variance)), z the normal quantile of the confidence.

    Args:
      r: A correlation coefficient; artanh is Fisher's transformation.
      variance: Of artanh r; infinite or negative where the sample has too few pairs.
      confidence: Of the two-sided interval, such as 0.95.

    Returns:
      (-1, 1) where the sample is too small for the variance, and nothing where |r| is one.
    """
    if not math.isfinite(variance) or variance <= 0:
        return Interval(-1.0, 1.0)
    if 1 - abs(r) < _ROUNDING:  # the transformation is infinite
        return UNDETERMINED
    half = scipy.stats.norm.ppf((1 + confidence) / 2) * math.sqrt(variance)
    return Interval(math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))
