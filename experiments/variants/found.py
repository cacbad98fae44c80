"""What the report begins with: the best method, its lead, the price, and the verdicts."""

import math
from collections.abc import Sequence

from experiments.study import findings
from experiments.study.verdicts import Tested
from experiments.variants.methods import Method
from experiments.variants.results import VariantsResults, speed, total_gradients
from experiments.variants.tables import OUTCOMES, references


def sentences(results: VariantsResults, tested: Sequence[Tested]) -> list[str]:
    """Return what was found, in five sentences where the costs were measured.

    Args:
      results: the results of the runs.
      tested: whether each method's accuracy is above the reference's.
    """
    (verdicts,) = findings.of_claims(tested, most=1)
    found = findings.of_arms(results, OUTCOMES[0], most=3)
    reference = results.arms[0].label
    verdicts = verdicts.removeprefix(f"Of {len(tested)} claims")
    return [
        *found,
        *_price(results),
        f"Of {len(tested)} claims that a method is more accurate than {reference}{verdicts}",
    ]


def _price(results: VariantsResults) -> list[str]:
    """Return how fast the fastest and the slowest method train beside the reference."""
    same = references(results)  # which differ in their epochs alone
    rates = {m: speed(results, m) for m in results.arms if m not in same}
    known = [method for method, rate in rates.items() if math.isfinite(rate.ratio)]
    if not known:
        return []
    known.sort(key=lambda method: -rates[method].ratio)

    def words(method: Method) -> str:
        rate, gradients = rates[method], total_gradients(results, method)
        return (
            f"{method.label} with {rate.ratio:.2f} times the images a second (quartiles "
            f"{rate.low:.2f} to {rate.high:.2f}) and {gradients:.2f} times the operations in all"
        )

    reference = results.arms[0].label
    slowest = f", the slowest is {words(known[-1])}" if len(known) > 1 else ""
    return [f"Beside {reference}, the fastest method is {words(known[0])}{slowest}."]
