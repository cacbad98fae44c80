"""How the numbers of a report are written."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sam_jax.statistics import Correlation, MeanAndStderr


class Uncertain(Protocol):
    """A mean with its standard error."""

    @property
    def mean(self) -> float:
        """The mean."""
        ...

    @property
    def stderr(self) -> float:
        """Its standard error."""
        ...


MOST_DECIMALS = 6
MOST = 1e6  # from here on numbers are written with exponents
NOT_MEASURED = "not measured"


def cell_texts(cells: Sequence[MeanAndStderr], most: int, sign: str = "") -> list[str]:
    """Return "mean ± standard error" for every cell of a column, with the digits that suit them.

    Args:
      cells: the column.
      most: how many seeds a cell has at most; where fewer were measured, n is added.
      sign: "+" writes the sign of positive means too, as of differences.

    Returns:
      A text a cell. A single seed has no standard error ("—").

    >>> cell_texts([MeanAndStderr(1.25, 0.031, 3), MeanAndStderr(2.0, 0.02, 2)], 3)
    ['1.250 ± 0.031', '2.000 ± 0.020 (n = 2 of 3)']
    """
    digits = decimals(cells)

    def text(cell: MeanAndStderr) -> str:
        if cell.n == 0:
            return NOT_MEASURED
        # A number that the column's digits would round to nothing is written with an exponent.
        largest = max(abs(cell.mean), cell.stderr) if cell.stderr > 0 else abs(cell.mean)
        plain = largest == 0 or 0.5 * 10**-digits <= largest < MOST
        style = f"z.{digits}f" if plain else ".2e"
        mean = number_text(cell.mean, (sign if cell.mean else "") + style)
        stderr = number_text(cell.stderr, style)
        return f"{mean} ± {stderr}" + (f" (n = {counted(cell.n, most)})" if cell.n < most else "")

    return [text(cell) for cell in cells]


def decimals(cells: Sequence[Uncertain]) -> int:
    """Return the decimals that show two digits of a typical standard error, or four of a mean."""
    means = [cell.mean for cell in cells if math.isfinite(cell.mean)]
    errors = sorted(cell.stderr for cell in cells if cell.stderr > 0)
    largest = max(map(abs, means), default=0.0)
    spread = max(means, default=0.0) - min(means, default=0.0)
    if errors:
        wanted = 1 - math.floor(math.log10(errors[len(errors) // 2]))
    else:  # one seed: four digits, or what tells the models apart
        scales = [scale for scale in (largest / 100, spread / 10) if scale]
        wanted = max((1 - math.floor(math.log10(scale)) for scale in scales), default=3)
    return min(max(wanted, 0), MOST_DECIMALS)


def number_text(value: float, style: str) -> str:
    """Return a number in a format, with a true minus sign; a dash for NaN.

    >>> number_text(-0.5, ".2f"), number_text(float("nan"), ".2f")
    ('−0.50', '—')
    """
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "—"
    return f"{value:{style}}".replace("-", "−")


def counted(n: int, of: int) -> str:
    """Return how many values there are, and of how many where some are missing or not finite.

    >>> counted(4, 4), counted(3, 4)
    ('4', '3 of 4')
    """
    return str(n) if n == of else f"{n} of {of}"


def describe(found: Correlation) -> str:
    """Return r with its interval, p and n in words.

    >>> from sam_jax.statistics import correlation
    >>> describe(correlation([1, 2, 3, 4, 5], [1, 3, 2, 5, 4]))
    'r = 0.80 (95% CI −0.28 to 0.99), p = 0.104, n = 5'
    """
    if not math.isfinite(found.r):
        return f"r not determined (n = {counted(found.n, found.of)})"
    p_value = p_text(found.p_value)
    p_value = f"p {p_value}" if p_value.startswith("<") else f"p = {p_value}"
    interval = f"95% CI {span(found.fisher_interval)}"
    return f"r = {signed(found.r)} ({interval}), {p_value}, n = {counted(found.n, found.of)}"


def span(ends: tuple[float, float], digits: int = 2) -> str:
    """Return an interval or a range in words.

    >>> span((-0.5, 0.25)), span((float("nan"), float("nan")))
    ('−0.50 to 0.25', '—')
    """
    low, high = ends
    if not (math.isfinite(low) and math.isfinite(high)):
        return "—"
    return f"{signed(low, digits)} to {signed(high, digits)}"


def p_text(value: float) -> str:
    """Return a p value to three digits; "—" for NaN.

    >>> p_text(0.145), p_text(1e-6)
    ('0.145', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else signed(value, 3)


def signed(value: float, digits: int = 2) -> str:
    """Return a number with a true minus sign; "—" where it is not finite.

    >>> signed(-0.5), signed(float("nan"))
    ('−0.50', '—')
    """
    rounded = np.round(value, digits) + 0.0  # no minus before zero
    return f"{rounded:.{digits}f}".replace("-", "−") if math.isfinite(value) else "—"
