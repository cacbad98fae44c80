"""What every claim of the study is tested by: functions from evidence to the parts of a claim.

Groups are "small-batch SAM" and so on; a claim about a group is about the mean over its models.
"""

from collections.abc import Callable, Sequence

import numpy as np

from experiments.even_better import claim_tests as tests
from experiments.even_better.claim_tests import Part
from experiments.even_better.evidence import Evidence, Quantity, model_means
from experiments.even_better.results import model_label

RHOS = (0.05, 0.1, 0.2)  # of the study's adversarial measures
SIGMAS = (0.5, 1.0)  # of its average measures
POOR = 0.5  # below it a correlation is not large, in the words of Cohen (1988)
SHARE = 0.05  # differences of the test loss below this share of it count as none
BARRIER = 0.1  # of the ends' test loss: a rise above it makes a barrier
APPROXIMATELY = 0.1  # the same for losses that are said to be approximately equal
GROUPS = {
    "SGD": ("sgd", "small"),
    "small-batch SAM": ("sam", "small"),
    "large-batch SAM": ("sam", "large"),
    "small-batch average SAM": ("average_sam", "small"),
    "large-batch average SAM": ("average_sam", "large"),
}
TEST_LOSS, FACTOR = Quantity("test_loss"), Quantity("asymmetry_factor")


def _group(evidence: Evidence, name: str) -> list[int]:
    return evidence.group(*GROUPS[name])


def _rivals(evidence: Evidence, name: str) -> dict[str, list[int]]:
    found = {other: _group(evidence, other) for other in GROUPS if other != name}
    return {other: rows for other, rows in found.items() if rows}


def asymmetry_correlates(evidence: Evidence) -> list[Part]:
    """The asymmetry factor goes with the test loss, with and without the outlier of Figure 5."""
    outlier = evidence.group("average_sam", "small", 0.5)
    label = model_label("average_sam", evidence.batch_sizes.get("small", 0), 0.5)
    parts = tests.correlation(evidence, "all models", FACTOR, "positive")
    if outlier:
        parts += tests.correlation(
            evidence, f"without {label}, as in Figure 5", FACTOR, "positive", without=outlier
        )
    return parts


def lowest_of(name: str, *quantities: Quantity) -> Callable[[Evidence], list[Part]]:
    """A group has the lowest mean of all groups, in each of the quantities."""

    def parts(evidence: Evidence) -> list[Part]:
        return [
            part
            for quantity in quantities
            if (group := _group(evidence, name))
            for part in tests.lowest(
                evidence, _label(evidence, quantity), group, _rivals(evidence, name), quantity
            )
        ]

    return parts


def sam_beats_sgd(evidence: Evidence) -> list[Part]:
    """Small-batch SAM has a lower test loss than SGD."""
    groups = _group(evidence, "small-batch SAM"), _group(evidence, "SGD")
    label = "small-batch SAM minus SGD"
    return tests.difference(evidence, label, *groups, TEST_LOSS, "negative")


def average_does_not_improve(evidence: Evidence) -> list[Part]:
    """Average SAM lowers the test loss of SGD by less than `SHARE` of it, at either batch."""
    sgd = _group(evidence, "SGD")
    margin = SHARE * _mean(evidence, sgd, TEST_LOSS)
    return [
        part
        for name in ("small-batch average SAM", "large-batch average SAM")
        for part in tests.difference(
            evidence,
            f"{name} minus SGD",
            _group(evidence, name),
            sgd,
            TEST_LOSS,
            "positive",
            margin=margin,
        )
    ]


def average_is_constant(evidence: Evidence) -> list[Part]:
    """Every average SAM has about the mean test loss of the others."""
    rows = evidence.group("average_sam", "small") + evidence.group("average_sam", "large")
    if len(rows) < 2:
        return []
    return [
        part
        for row in rows
        for part in tests.difference(
            evidence,
            f"{_model(evidence, row)} minus the others",
            [row],
            [other for other in rows if other != row],
            TEST_LOSS,
            "equivalent",
            margin=APPROXIMATELY * _mean(evidence, rows, TEST_LOSS),
            confidence=1 - 2 * tests.LEVEL,
        )
    ]


def poorly_correlated(
    name: str, batches: tuple[str, ...], radii: tuple[float, ...]
) -> Callable[[Evidence], list[Part]]:
    """The correlations of a measure with the test loss are below `POOR`."""

    def parts(evidence: Evidence) -> list[Part]:
        quantities = [Quantity(name, batch, rho) for batch in batches for rho in radii]
        return [
            part
            for quantity in quantities
            for part in tests.correlation(
                evidence, _label(evidence, quantity), quantity, "negative", bound=POOR
            )
        ]

    return parts


def small_is_the_better_proxy(name: str) -> Callable[[Evidence], list[Part]]:
    """A measure goes better with the test loss when it is taken with the small m."""

    def parts(evidence: Evidence) -> list[Part]:
        return [
            part
            for rho in RHOS
            for part in tests.better_correlated(
                evidence,
                f"ρ = {rho:g}",
                Quantity(name, "small", rho),
                Quantity(name, "large", rho),
            )
        ]

    return parts


def minimises_its_own(name: str) -> Callable[[Evidence], list[Part]]:
    """Every SAM model is the lowest of all in the measure with its own m and rho."""

    def parts(evidence: Evidence) -> list[Part]:
        found = []
        for index, model in enumerate(evidence.models):
            if model.optimiser == "sam":
                rivals = {
                    _model(evidence, row): [row]
                    for row in range(len(evidence.models))
                    if row != index
                }
                label = _model(evidence, index)
                quantity = Quantity(name, model.batch, model.rho)
                found += tests.lowest(evidence, label, [index], rivals, quantity)
        return found

    return parts


def as_flat_by_large_batches(evidence: Evidence) -> list[Part]:
    """With the large m, both batches of SAM reach about the same perturbed loss."""
    groups = _group(evidence, "small-batch SAM"), _group(evidence, "large-batch SAM")
    quantities = [Quantity("adversarial_loss", "large", rho) for rho in RHOS]
    return [
        part
        for quantity in quantities
        for part in tests.difference(
            evidence,
            _label(evidence, quantity),
            *groups,
            quantity,
            "equivalent",
            margin=APPROXIMATELY * _mean(evidence, groups[1], quantity),
            confidence=1 - 2 * tests.LEVEL,
        )
    ]


def sometimes_sharper(evidence: Evidence) -> list[Part]:
    """Large-batch SAM is sharper than SGD by at least one of two measures."""
    groups = _group(evidence, "large-batch SAM"), _group(evidence, "SGD")
    quantities = [Quantity("adversarial_sharpness", batch, 0.1) for batch in ("small", "large")]
    return [
        part
        for quantity in quantities
        for part in tests.difference(
            evidence,
            f"large-batch SAM minus SGD, {_label(evidence, quantity)}",
            *groups,
            quantity,
            "positive",
            confidence=1 - tests.LEVEL / len(quantities),
        )
    ]


def longer_is_worse(evidence: Evidence) -> list[Part]:
    """SGD has a higher test loss after twice the epochs."""
    sgd = _group(evidence, "SGD")
    if not sgd or not evidence.longer(TEST_LOSS).size:
        return []
    both = evidence._replace(
        models=(evidence.models[sgd[0]],) * 2,
        values=lambda q: np.concatenate([evidence.longer(q), evidence.values(q)[sgd[:1]]]),
    )
    label = "SGD, twice the epochs minus once"
    return tests.difference(both, label, [0], [1], TEST_LOSS, "positive")


def separated(shape: str) -> Callable[[Evidence], list[Part]]:
    """Between the models of every pair the test loss rises by more than `BARRIER` of its ends'.

    A trained curve can refute that: one without a rise is a way around. One with a rise proves
    nothing, because another curve may be without.
    """

    def parts(evidence: Evidence) -> list[Part]:
        found = [
            part
            for pair in evidence.connections
            for part in tests.above(pair.label, getattr(pair, shape), BARRIER)
        ]
        if shape == "line":
            return found
        return [
            part._replace(verdict="undecided", needed="all curves")
            if part.verdict == "holds"
            else part
            for part in found
        ]

    return parts


def smaller_basins(evidence: Evidence) -> list[Part]:
    """The basins of large-batch models take a smaller share of the plane than those of small."""
    pairs = (
        ("large-batch SAM", "small-batch SAM"),
        ("large-batch average SAM", "small-batch average SAM"),
    )
    return _between_groups(evidence, pairs, Quantity("basin_share"), "negative")


def batch_rules(*quantities: Quantity) -> Callable[[Evidence], list[Part]]:
    """The batch changes the quantities by more than the choice of SAM or average SAM does."""
    # In the two-way table of optimiser (SAM, average SAM) and batch, the batch's effect is larger
    # than the optimiser's of either sign exactly if both of these differences are positive.
    pairs = (
        ("large-batch SAM", "small-batch average SAM"),
        ("large-batch average SAM", "small-batch SAM"),
    )

    def parts(evidence: Evidence) -> list[Part]:
        return [
            part
            for quantity in quantities
            for part in _between_groups(
                evidence, pairs, quantity, "positive", f", {_label(evidence, quantity)}"
            )
        ]

    return parts


def _between_groups(
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
            _group(evidence, name),
            _group(evidence, other),
            quantity,
            direction,
        )
    ]


def _label(evidence: Evidence, quantity: Quantity) -> str:
    names = {"curve_rise": "rise of the loss curve"}
    words = names.get(quantity.name, quantity.name.replace("_", " "))
    if quantity.measured_batch is None:
        return words
    size = evidence.batch_sizes.get(quantity.measured_batch, quantity.measured_batch)
    symbol = evidence.average_radius if quantity.name.startswith("average") else "ρ"
    return f"m = {size}, {symbol} = {quantity.measured_rho:g}"


def _model(evidence: Evidence, row: int) -> str:
    model = evidence.models[row]
    return model_label(model.optimiser, evidence.batch_sizes[model.batch], model.rho)


def _mean(evidence: Evidence, rows: list[int], quantity: Quantity) -> float:
    return float(model_means(evidence, quantity)[rows].mean()) if rows else 0.0
