"""Corrections of p values for the number of hypotheses that were tested."""

import numpy as np
from numpy.typing import ArrayLike

from sam_jax.statistics.samples import check_choice, vector

METHODS = ("holm", "benjamini_hochberg")


def adjust_p_values(p_values: ArrayLike, method: str = "holm") -> np.ndarray:
    """Return p values that may be compared to a level as if each were the only one.

    Over m sorted values p(1) <= ... <= p(m), Holm's are max over j <= i of (m - j + 1) p(j): a
    level of 0.05 bounds the probability of any false rejection, however the tests depend.
    Benjamini and Hochberg's are min over j >= i of m p(j) / j: it bounds the expected share of
    the false ones among the rejections, for tests that are independent or positively dependent.
    Both end at one.

    Args:
      p_values: Shape [k]. NaN is no test: it stays, and m does not count it.
      method: "holm" or "benjamini_hochberg".

    Returns:
      The adjusted p values in the order given, shape [k].

    Raises:
      ValueError: A p value is outside of [0, 1], or the method is not known.

    References:
      Holm, A simple sequentially rejective multiple test procedure, 1979.
      Benjamini and Hochberg, Controlling the false discovery rate, 1995.

    >>> adjust_p_values([0.01, 0.04, 0.03]).round(4).tolist()
    [0.03, 0.06, 0.06]
    >>> adjust_p_values([0.01, 0.04, 0.03], "benjamini_hochberg").round(4).tolist()
    [0.03, 0.04, 0.04]
    """
    check_choice("method", method, METHODS)
    p_values = vector("p_values", p_values)
    tested = ~np.isnan(p_values)
    found = p_values[tested]
    if found.size and not (found.min() >= 0 and found.max() <= 1):
        raise ValueError(f"p values must lie in [0, 1] or be NaN, got {p_values.tolist()}.")
    order = np.argsort(found)
    ranks = np.arange(1, found.size + 1)
    if method == "holm":
        adjusted = np.maximum.accumulate((found.size - ranks + 1) * found[order])
    else:
        adjusted = np.minimum.accumulate((found.size / ranks * found[order])[::-1])[::-1]
    found[order] = np.minimum(adjusted, 1.0)
    result = p_values.copy()
    result[tested] = found
    return result
