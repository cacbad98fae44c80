"""The tests of the claims about asymmetry, and about the causes of the sharpness."""

from collections.abc import Callable

import numpy as np

from experiments.even_better.arms import model_label
from experiments.even_better.claims.evidence import Evidence, Quantity
from experiments.even_better.claims.groups import FACTOR, between_groups, label_of, model_name
from experiments.study import claims as tests
from experiments.study.claims import Part
from experiments.study.evidence import arm_means


def asymmetry_correlates(bound: float = 0.0) -> Callable[[Evidence], list[Part]]:
    """The asymmetry factor goes with the test loss, with and without the outlier of Figure 5."""

    def parts(evidence: Evidence) -> list[Part]:
        outlier = evidence.group("average_sam", "small", 0.5)
        label = model_label("average_sam", evidence.batch_sizes.get("small", 0), 0.5)
        found = tests.correlation(evidence, "all models", FACTOR, "positive", bound=bound)
        if outlier:
            words = f"without {label}, as in Figure 5"
            found += tests.correlation(
                evidence, words, FACTOR, "positive", bound=bound, without=outlier
            )
        return found

    return parts


def average_factors_range(evidence: Evidence) -> list[Part]:
    """Of the average SAMs, the highest mean asymmetry factor is above the lowest."""
    rows = evidence.group("average_sam", "small") + evidence.group("average_sam", "large")
    means = arm_means(evidence, FACTOR)
    rows = sorted((row for row in rows if np.isfinite(means[row])), key=lambda row: means[row])
    if len(rows) < 2:
        return []
    pairs = len(rows) * (len(rows) - 1) / 2  # these two were chosen among them
    return tests.difference(
        evidence,
        f"{model_name(evidence, rows[-1])} minus {model_name(evidence, rows[0])}",
        rows[-1:],
        rows[:1],
        FACTOR,
        "positive",
        confidence=1 - tests.LEVEL / pairs,
    )


def batch_rules(*quantities: Quantity) -> Callable[[Evidence], list[Part]]:
    """The batch changes the quantities by more than the choice of SAM or average SAM does."""
    # In the two-way table of optimiser (SAM, average SAM) and batch: both of these differences are
    # positive exactly if the batch's effect is larger than the optimiser's, of either sign.
    pairs = (
        ("large-batch SAM", "small-batch average SAM"),
        ("large-batch average SAM", "small-batch SAM"),
    )

    def parts(evidence: Evidence) -> list[Part]:
        return [
            part
            for quantity in quantities
            for part in between_groups(
                evidence, pairs, quantity, "positive", f", {label_of(evidence, quantity)}"
            )
        ]

    return parts
