"""Means over seeds, and the difference of two of them."""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from sam_jax.statistics.samples import (
    UNDETERMINED,
    Interval,
    check_share,
    is_constant,
    vector,
    vectors,
)


class MeanAndStderr(NamedTuple):
    """A mean over n values and its standard error; NaN where there are too few values."""

    mean: float
    stderr: float  # standard error, in units of the mean
    n: int  # values that are not NaN


class MeanDifference(NamedTuple):
    """The difference of two means and its statistics; NaN where undetermined."""

    difference: float  # mean of the values minus mean of the others
    stderr: float  # of the difference
    degrees_of_freedom: float  # of Student's t law, not whole for Welch's test
    interval: Interval  # confidence interval of the difference
    p_value: float  # two-sided, from Student's t law
    cohens_d: float  # in units of the values' standard deviation
    n: tuple[int, int]  # values behind the two means


def mean_and_stderr(values: ArrayLike) -> MeanAndStderr:
    """Return the mean and its standard error, s / sqrt(n) with s the sample deviation (n - 1).

    Args:
      values: Any shape; NaN is left out. An infinite value makes the mean infinite.

    Returns:
      The mean (NaN for no value), the standard error (NaN for fewer than two) and n.

    >>> mean_and_stderr([1.0, 3.0, float("nan")])
    MeanAndStderr(mean=2.0, stderr=1.0, n=2)
    """
    array = np.asarray(values, dtype=float).ravel()
    array = array[~np.isnan(array)]
    n = array.size
    if n == 0:
        return MeanAndStderr(math.nan, math.nan, 0)
    with np.errstate(invalid="ignore"):  # the mean of inf and -inf
        mean = float(array.mean())
    if n == 1 or not np.isfinite(array).all():
        return MeanAndStderr(mean, math.nan, n)
    return MeanAndStderr(mean, float(array.std(ddof=1)) / math.sqrt(n), n)


def mean_difference(
    values: ArrayLike, others: ArrayLike, *, paired: bool = False, confidence: float = 0.95
) -> MeanDifference:
    """Return mean(values) - mean(others) with a t interval, a p value and Cohen's d.

    Paired, with d_i = values_i - others_i over n seeds and s their sample deviation: the
    standard error is s / sqrt(n) with n - 1 degrees of freedom, and Cohen's d is mean(d) / s.
    Effects that the two of a pair share, such as the initial weights of a seed, drop out.

    Unpaired, with deviations s, s' over n, n' seeds, e = s^2 / n and e' = s'^2 / n' (Welch's test):

    - The standard error is sqrt(e + e').
    - The degrees of freedom are (e + e')^2 / (e^2 / (n - 1) + e'^2 / (n' - 1)).
    - Cohen's d is the difference in units of the pooled deviation,
      sqrt(((n - 1) s^2 + (n' - 1) s'^2) / (n + n' - 2)).

    Args:
      values: Shape [k], one value a seed. NaN counts as not measured and is left out.
      others: Shape [l], of one length with `values` if paired, seed by seed; a pair with a NaN
        is left out.
      paired: Whether values and others belong to each other one by one.
      confidence: Of the interval, difference +- t stderr.

    Returns:
      A `MeanDifference`. All but the difference and n are NaN where an infinite value leaves no
      spread to compute or a mean has a single value. The interval, p and d are NaN where
      nothing varies: equal runs say nothing about other seeds.

    Raises:
      ValueError: The inputs are no vectors, do not pair, or the confidence is out of (0, 1).

    References:
      Welch, The generalization of Student's problem, 1947. Cohen, Statistical power analysis
      for the behavioral sciences, 1988.

    >>> found = mean_difference([0.25, 0.31, 0.28], [0.21, 0.25, 0.23], paired=True)
    >>> print(f"{found.difference:.3f} +- {found.stderr:.3f}, p = {found.p_value:.3f}")
    0.050 +- 0.006, p = 0.013
    """
    check_share("confidence", confidence)
    if paired:
        values, others = vectors(values=values, others=others)
        keep = ~(np.isnan(values) | np.isnan(others))
        values, others = values[keep], others[keep]
    else:
        values, others = vector("values", values), vector("others", others)
        values, others = values[~np.isnan(values)], others[~np.isnan(others)]
    n = (values.size, others.size)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = mean_and_stderr(values).mean - mean_and_stderr(others).mean
    if min(n) < 2 or not np.isfinite([*values, *others]).all():
        return MeanDifference(difference, math.nan, math.nan, UNDETERMINED, math.nan, math.nan, n)
    scale = max(np.abs(values).max(), np.abs(others).max())
    if paired:
        constant = is_constant(values - others, scale)
        stderr, degrees_of_freedom, deviation = _paired_spread(values - others)
    else:
        constant = is_constant(values, scale) and is_constant(others, scale)
        stderr, degrees_of_freedom, deviation = _welch_spread(values, others)
    if constant:
        return MeanDifference(difference, 0.0, math.nan, UNDETERMINED, math.nan, math.nan, n)
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, degrees_of_freedom)) * stderr
    return MeanDifference(
        difference=difference,
        stderr=stderr,
        degrees_of_freedom=degrees_of_freedom,
        interval=Interval(difference - half, difference + half),
        p_value=float(2 * scipy.stats.t.sf(abs(difference) / stderr, degrees_of_freedom)),
        cohens_d=difference / deviation,
        n=n,
    )


def _paired_spread(differences: np.ndarray) -> tuple[float, float, float]:
    # Standard error, degrees of freedom and the unit of Cohen's d.
    n = differences.size
    deviation = float(differences.std(ddof=1))
    return deviation / math.sqrt(n), float(n - 1), deviation


def _welch_spread(values: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    sizes = np.array([values.size, others.size])
    variances = np.array([values.var(ddof=1), others.var(ddof=1)])
    total = float(variances @ (1 / sizes))
    if total == 0:
        return 0.0, math.nan, 0.0
    shares = variances / sizes / total  # shares, so that no square underflows
    pooled = float((sizes - 1) @ variances / (sizes.sum() - 2))
    return math.sqrt(total), float(1 / np.sum(shares**2 / (sizes - 1))), math.sqrt(pooled)
