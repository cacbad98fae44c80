"""The groups of models that the study's claims are about, and how they are called.

A claim about a group, such as "small-batch SAM", is about the mean over its models.
"""

from collections.abc import Sequence

from experiments.even_better.arms import model_label
from experiments.even_better.claims.evidence import Evidence, Quantity
from experiments.study import claims as tests
from experiments.study.claims import Part
from experiments.study.evidence import arm_means

GROUPS = {
    "SGD": ("sgd", "small"),
    "small-batch SAM": ("sam", "small"),
    "large-batch SAM": ("sam", "large"),
    "small-batch average SAM": ("average_sam", "small"),
    "large-batch average SAM": ("average_sam", "large"),
}
TEST_LOSS, FACTOR = Quantity("test_loss"), Quantity("asymmetry_factor")


def rows_of(evidence: Evidence, name: str) -> list[int]:
    """Return the rows of a group of `GROUPS`."""
    return evidence.group(*GROUPS[name])


def rivals_of(evidence: Evidence, name: str) -> dict[str, list[int]]:
    """Return the rows of every other group, an empty list for one without models."""
    return {other: rows_of(evidence, other) for other in GROUPS if other != name}


def others_of(evidence: Evidence, row: int) -> dict[str, list[int]]:
    """Return every other model, as a group of one."""
    rows = range(len(evidence.models))
    return {model_name(evidence, other): [other] for other in rows if other != row}


def between_groups(
    evidence: Evidence,
    pairs: Sequence[tuple[str, str]],
    quantity: Quantity,
    direction: str,
    what: str = "",
) -> list[Part]:
    """Return the difference of every pair of groups; `what` ends its label."""
    return [
        part
        for name, other in pairs
        for part in tests.difference(
            evidence,
            f"{name} minus {other}{what}",
            rows_of(evidence, name),
            rows_of(evidence, other),
            quantity,
            direction,
        )
    ]


def label_of(evidence: Evidence, quantity: Quantity) -> str:
    """Return a quantity in words."""
    names = {"curve_rise": "rise of the loss curve"}
    words = names.get(quantity.name, quantity.name.replace("_", " "))
    if quantity.measured_batch is None:
        return words
    size = evidence.batch_sizes.get(quantity.measured_batch, quantity.measured_batch)
    symbol = evidence.average_radius if quantity.name.startswith("average") else "ρ"
    return f"m = {size}, {symbol} = {quantity.measured_rho:g}"


def model_name(evidence: Evidence, row: int) -> str:
    """Return the name of a model."""
    model = evidence.models[row]
    return model_label(model.optimiser, evidence.batch_sizes[model.batch], model.rho)


def mean_of(evidence: Evidence, rows: list[int], quantity: Quantity) -> float:
    """Return the mean over some models, zero over none."""
    return float(arm_means(evidence, quantity)[rows].mean()) if rows else 0.0
