"""How many seeds it takes to tell two models apart."""

import math
from collections.abc import Callable

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from sam_jax.statistics.samples import check_share

_MOST_SEEDS = 10**6
_CERTAIN = 1e9  # a non-centrality at which every test rejects


def seeds_to_separate(
    difference: float,
    deviations: ArrayLike,
    *,
    paired: bool = False,
    power: float = 0.8,
    level: float = 0.05,
) -> int:
    """Return the seeds a model needs so that a t test finds a difference of two means.

    It is the smallest n at which the two-sided test of `mean_difference` rejects at `level` with a
    probability of at least `power`. The test statistic has a non-central t law with
    difference / stderr as its non-centrality:

    - Unpaired, stderr = sqrt((s^2 + s'^2) / n), with Welch's degrees of freedom,
      (n - 1) (s^2 + s'^2)^2 / (s^4 + s'^4), exact for s = s'.
    - Paired, stderr = s / sqrt(n), with n - 1 degrees of freedom.

    The answer is as good as the deviations. For a sample of three seeds, the true deviation lies
    between 0.5 and 6.3 times the sample's (95%, normal law). The number of seeds goes with the
    square of the deviation. So the true number lies between about 0.3 and 40 times the answer.

    Args:
      difference: The true difference of the means, in the units of the deviations.
      deviations: The standard deviation over seeds, one for both models or [s, s']. Paired:
        the one deviation of the differences between pairs.
      paired: Whether both models are trained from the same seeds and compared seed by seed.
      power: The probability of finding the difference.
      level: The probability of a finding where there is no difference.

    Returns:
      The number of seeds of each model, at least 2.

    Raises:
      ValueError: The difference is zero or not finite; a deviation is negative or not finite; there
        are more than two deviations; power is not above level; or more than a million seeds are
        needed.

    References:
      Cohen, Statistical power analysis for the behavioral sciences, 1988.

    >>> seeds_to_separate(0.5, 1.0)  # half a deviation
    64
    >>> seeds_to_separate(0.5, 1.0, paired=True)
    34
    """
    check_share("power", power)
    check_share("level", level)
    if power <= level:
        raise ValueError(f"power must be above level, got {power!r} and {level!r}.")
    if not math.isfinite(difference) or difference == 0:
        raise ValueError(f"No number of seeds separates two means that differ by {difference!r}.")
    deviations = np.atleast_1d(np.asarray(deviations, dtype=float))
    if deviations.shape not in ((1,), (2,)) or (paired and deviations.size > 1):
        raise ValueError(
            "deviations must be one number, or one for each of the two models where they are not "
            f"paired; got shape {deviations.shape}{' for pairs' if paired else ''}."
        )
    if not np.isfinite(deviations).all() or deviations.min() < 0:
        raise ValueError(f"deviations must be zero or positive, got {deviations.tolist()}.")
    if deviations.max() == 0:
        return 2
    if not paired:
        deviations = np.broadcast_to(deviations, 2)
    return _smallest(lambda n: _power(n, abs(difference), deviations, level) >= power)


def _power(n: int, difference: float, deviations: np.ndarray, level: float) -> float:
    # deviations: one for pairs, two otherwise. Shares of the larger, so that no square underflows.
    largest = deviations.max()
    variances = (deviations / largest) ** 2
    degrees_of_freedom = (n - 1) * variances.sum() ** 2 / np.sum(variances**2)
    noncentrality = min(math.sqrt(n / variances.sum()) * (difference / largest), _CERTAIN)
    critical = scipy.stats.t.ppf(1 - level / 2, degrees_of_freedom)
    upper = scipy.stats.nct.sf(critical, degrees_of_freedom, noncentrality)
    # SciPy has no number for the lower tail of large ones, where it is zero for all that matters.
    lower = scipy.stats.nct.cdf(-critical, degrees_of_freedom, noncentrality)
    return float(upper + np.nan_to_num(lower))


def _smallest(enough: Callable[[int], bool]) -> int:
    # The smallest n >= 2 with enough(n), which holds for all larger ones: doubling, then halving.
    high = 2
    while not enough(high):
        if high >= _MOST_SEEDS:
            raise ValueError(
                f"It takes more than {_MOST_SEEDS} seeds: the difference is too small against the "
                "deviations."
            )
        high = min(2 * high, _MOST_SEEDS)
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
