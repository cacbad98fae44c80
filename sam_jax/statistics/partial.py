"""Partial correlation: what two quantities share beyond a third."""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from sam_jax.statistics.samples import (
    UNDETERMINED,
    Interval,
    check_choice,
    check_share,
    fisher_interval,
    is_constant,
    vectors,
)

METHODS = ("pearson", "spearman")
# A residual below this share of the values is the rounding of their regression.
_ROUNDING = 1e-10


class PartialCorrelation(NamedTuple):
    """A partial correlation over n models; NaN where it is not determined."""

    r: float  # of the residuals
    p_value: float  # two-sided, from Student's t law
    n: int  # models with finite values
    degrees_of_freedom: int  # n - 2 - number of independent covariates
    fisher_interval: Interval  # closed form


def partial_correlation(
    x: ArrayLike,
    y: ArrayLike,
    given: ArrayLike,
    method: str = "pearson",
    *,
    confidence: float = 0.95,
) -> PartialCorrelation:
    """Return the correlation of x and y that their regressions on `given` leave.

    It is Pearson's r of the residuals of x and of y after a linear regression (with intercept) on
    the covariates. "spearman" takes the ranks of all of them instead. With q covariates that are
    linearly independent, t = r sqrt(d / (1 - r^2)) has d = n - 2 - q degrees of freedom (exact for
    a normal law). The variance of artanh r is 1 / (d - 1), for ranks (1 + r^2 / 2) / (d - 1).

    Args:
      x: Shape [k], one value a model.
      y: Shape [k].
      given: Shape [k], or [k, q] for q covariates, such as the training loss. Models with a
        value that is not finite anywhere are left out.
      method: "pearson" or "spearman".
      confidence: Of the interval.

    Returns:
      A `PartialCorrelation`; NaN for no degree of freedom and where the covariates determine
      x or y.

    Raises:
      ValueError: The shapes do not fit, or an argument is out of its range.

    References:
      Fisher, The distribution of the partial correlation coefficient, 1924.

    >>> x, y, given = [1, 2, 3, 4, 5], [1, 3, 2, 5, 4], [2, 1, 4, 3, 5]
    >>> found = partial_correlation(x, y, given)  # (.8 - .8 * .3) / sqrt(.36 * .91)
    >>> print(f"{found.r:.3f} with {found.degrees_of_freedom} degrees of freedom")
    0.978 with 2 degrees of freedom
    """
    check_choice("method", method, METHODS)
    check_share("confidence", confidence)
    x, y = vectors(x=x, y=y)
    given = np.asarray(given, dtype=float)
    if given.ndim not in (1, 2) or given.shape[0] != x.size:
        raise ValueError(
            f"given must have shape [{x.size}] or [{x.size}, covariates], got {given.shape}."
        )
    table = np.column_stack([x, y, given])
    table = table[np.isfinite(table).all(axis=1)]
    n = table.shape[0]
    if n == 0:
        return PartialCorrelation(math.nan, math.nan, 0, 0, UNDETERMINED)
    if method == "spearman":
        table = scipy.stats.rankdata(table, axis=0)
    residuals, rank = _residuals(table[:, :2], table[:, 2:])
    degrees_of_freedom = n - 2 - rank
    lengths = np.linalg.norm(residuals, axis=0)
    if degrees_of_freedom < 1 or lengths.min() == 0:
        return PartialCorrelation(math.nan, math.nan, n, max(degrees_of_freedom, 0), UNDETERMINED)
    first, second = (residuals / lengths).T
    r = float(np.clip(first @ second, -1, 1))
    return PartialCorrelation(
        r=r,
        p_value=_p_value(r, degrees_of_freedom),
        n=n,
        degrees_of_freedom=degrees_of_freedom,
        fisher_interval=_interval(r, degrees_of_freedom, method, confidence),
    )


def _residuals(values: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, int]:
    # Residuals that are rounding only are set to zero. Columns are scaled, so that the rank does
    # not depend on units; a constant column counts for nothing, because the intercept has it
    # already.
    constant = [is_constant(column) for column in values.T]
    values = np.where(constant, 0.0, values - values.mean(axis=0))
    columns = [column - column.mean() for column in given.T if not is_constant(column)]
    columns = [column / np.linalg.norm(column) for column in columns]
    if not columns:
        return values, 0
    basis, sizes, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=False)
    basis = basis[:, sizes > _ROUNDING * sizes[0]]
    residuals = values - basis @ (basis.T @ values)
    rounding = np.linalg.norm(residuals, axis=0) <= _ROUNDING * np.linalg.norm(values, axis=0)
    return np.where(rounding, 0.0, residuals), basis.shape[1]


def _p_value(r: float, degrees_of_freedom: int) -> float:
    if abs(r) == 1:
        return 0.0
    t = abs(r) * math.sqrt(degrees_of_freedom / ((1 - abs(r)) * (1 + abs(r))))
    return float(2 * scipy.stats.t.sf(t, degrees_of_freedom))


def _interval(r: float, degrees_of_freedom: int, method: str, confidence: float) -> Interval:
    inflation = 1 + r**2 / 2 if method == "spearman" else 1.0
    spare = degrees_of_freedom - 1
    return fisher_interval(r, inflation / spare if spare else math.inf, confidence)
