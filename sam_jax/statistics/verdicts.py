"""The verdict on a claim from the interval of its effect."""

import math

from sam_jax.statistics.samples import check_choice

DIRECTIONS = ("positive", "negative", "equivalent")


def verdict(interval: tuple[float, float], direction: str, *, margin: float = 0.0) -> str:
    """Return whether a claim about an effect holds, fails or is undecided.

    The claim "positive" says effect > margin, "negative" effect < -margin and "equivalent"
    -margin < effect < margin. It holds if every value of the closed interval fits the claim,
    fails if none does, and is undecided otherwise. That an interval contains zero is no
    evidence of equivalence; a 90% interval within the margins is that at the 5% level (two
    one-sided tests).

    Args:
      interval: The ends (low, high) of the effect's confidence interval, such as
        `mean_difference(...).interval`. A NaN leaves the claim undecided.
      direction: "positive", "negative" or "equivalent".
      margin: The smallest effect that matters, in units of the effect; zero or more, and
        positive for "equivalent".

    Returns:
      "holds", "fails" or "undecided".

    Raises:
      ValueError: The ends are not in order, or the margin does not fit the direction.

    References:
      Schuirmann, A comparison of the two one-sided tests procedure and the power approach, 1987.

    >>> verdict((0.01, 0.04), "positive"), verdict((0.01, 0.04), "negative")
    ('holds', 'fails')
    >>> verdict((-0.01, 0.04), "positive"), verdict((-0.01, 0.04), "equivalent", margin=0.05)
    ('undecided', 'holds')
    """
    check_choice("direction", direction, DIRECTIONS)
    low, high = interval
    if not (0 <= margin < math.inf) or (direction == "equivalent" and margin == 0):
        wanted = "positive" if direction == "equivalent" else "zero or positive"
        raise ValueError(f"margin must be {wanted} for {direction!r}, got {margin!r}.")
    if math.isnan(low) or math.isnan(high):
        return "undecided"
    if low > high:
        raise ValueError(f"The interval must be (low, high), got ({low!r}, {high!r}).")
    if direction == "negative":
        low, high = -high, -low
    if direction == "equivalent":
        holds = -margin < low and high < margin
        fails = low >= margin or high <= -margin
    else:
        holds = low > margin
        fails = high <= margin
    return "holds" if holds else "fails" if fails else "undecided"
