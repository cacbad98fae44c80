"""The sample sizes that would decide an undecided verdict."""

import math

import scipy.stats

from sam_jax import statistics

POWER, LEVEL = 0.8, 0.05


def seeds_needed(
    found: statistics.MeanDifference, bound: float = 0.0, level: float = LEVEL
) -> int | None:
    """Return the seeds that would separate two paired means, if the differences found are true.

    Args:
      found: A paired difference.
      bound: The value to tell the difference apart from.
      level: The probability of a finding where there is no difference.

    Returns:
      The seeds for a power of 80%; None where there is no spread or no
      difference to go by, or where a million seeds are not enough.

    >>> seeds_needed(statistics.mean_difference([3.0, 2.0, 4.0], [2.5, 2.5, 2.0], paired=True))
    30
    """
    deviation = found.stderr * math.sqrt(found.n[0])
    if not (math.isfinite(deviation) and deviation > 0) or found.difference == bound:
        return None
    try:
        return statistics.seeds_to_separate(
            found.difference - bound, deviation, paired=True, power=POWER, level=level
        )
    except ValueError:  # more than a million
        return None


def models_needed(r: float, bound: float = 0.0) -> int | None:
    """Return the models that would tell a correlation from a bound, if the r found is true.

    n = 3 + ((z(1 - level / 2) + z(power)) / (artanh r - artanh bound))^2, from the normal law of
    Fisher's transformation.

    Returns:
      The models for a power of 80% at a level of 5%; None for |r| = 1 and r = bound.

    >>> models_needed(0.5), models_needed(0.0)
    (30, None)
    """
    if not abs(r) < 1 or r == bound:
        return None
    quantiles = scipy.stats.norm.ppf(1 - LEVEL / 2) + scipy.stats.norm.ppf(POWER)
    return math.ceil(3 + (quantiles / (math.atanh(r) - math.atanh(bound))) ** 2)
