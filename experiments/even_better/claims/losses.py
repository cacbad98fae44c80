"""The tests of the claims about losses and sharpness: from evidence to parts."""

from collections.abc import Callable

import numpy as np

from experiments.even_better.claims.evidence import Evidence, ModelKey, Quantity
from experiments.even_better.claims.groups import (
    TEST_LOSS,
    between_groups,
    label_of,
    mean_of,
    model_name,
    others_of,
    rivals_of,
    rows_of,
)
from experiments.even_better.thresholds import APPROXIMATELY, POOR, SHARE
from experiments.study import claims as tests
from experiments.study.claims import Part

RHOS = (0.05, 0.1, 0.2)  # of the study's adversarial measures
SIGMAS = (0.5, 1.0)  # of its average measures


def lowest_of(name: str, *quantities: Quantity) -> Callable[[Evidence], list[Part]]:
    """A group has the lowest mean of all groups, in each of the quantities."""

    def parts(evidence: Evidence) -> list[Part]:
        return [
            part
            for quantity in quantities
            for part in tests.extreme(
                evidence,
                label_of(evidence, quantity),
                rows_of(evidence, name),
                rivals_of(evidence, name),
                quantity,
            )
        ]

    return parts


def best_of_table_1(evidence: Evidence) -> list[Part]:
    """Small-batch SAM has the lowest test loss of all with rho 0.1, the best accuracy with 0.2."""
    accuracy = Quantity("test_accuracy")
    found = []
    for rho, quantity, direction in ((0.1, TEST_LOSS, "negative"), (0.2, accuracy, "positive")):
        row = evidence.group("sam", "small", rho)[:1]
        label = f"ρ = {rho:g}, {label_of(evidence, quantity)}"
        found += _best_of_all(evidence, label, row, quantity, direction)
    return found


def best_training_is_not_best(evidence: Evidence) -> list[Part]:
    """Large-batch average SAM of rho 1 has the lowest training loss, and not the test loss."""
    row = evidence.group("average_sam", "large", 1.0)[:1]
    training = _best_of_all(evidence, "train loss", row, Quantity("train_loss"))
    label = "its test loss minus that of small-batch SAM"
    sam = rows_of(evidence, "small-batch SAM")
    return training + tests.difference(evidence, label, row, sam, TEST_LOSS, "positive")


def larger_rho_is_flatter(evidence: Evidence) -> list[Part]:
    """Small-batch SAM of rho 0.1 has a lower loss than of rho 0.05 by the measure of the latter."""
    quantity = Quantity("adversarial_loss", "small", 0.05)
    larger, smaller = (evidence.group("sam", "small", rho) for rho in (0.1, 0.05))
    label = f"ρ = 0.1 minus ρ = 0.05, {label_of(evidence, quantity)}"
    return tests.difference(evidence, label, larger, smaller, quantity, "negative")


def average_is_flatter(evidence: Evidence) -> list[Part]:
    """Large-batch average SAM has a lower loss than SAM at adversarial points of the large m."""
    pair = ("large-batch average SAM", "large-batch SAM")
    return [
        part
        for rho in RHOS
        for quantity in [Quantity("adversarial_loss", "large", rho)]
        for part in between_groups(
            evidence, [pair], quantity, "negative", f", {label_of(evidence, quantity)}"
        )
    ]


def sam_beats_sgd(evidence: Evidence) -> list[Part]:
    """Small-batch SAM has a lower test loss than SGD."""
    groups = rows_of(evidence, "small-batch SAM"), rows_of(evidence, "SGD")
    label = "small-batch SAM minus SGD"
    return tests.difference(evidence, label, *groups, TEST_LOSS, "negative")


def average_does_not_improve(evidence: Evidence) -> list[Part]:
    """Average SAM lowers the test loss of SGD by less than `SHARE` of it, at either batch."""
    sgd = rows_of(evidence, "SGD")
    allowance = SHARE * mean_of(evidence, sgd, TEST_LOSS)
    return [
        part
        for name in ("small-batch average SAM", "large-batch average SAM")
        for part in tests.difference(
            evidence,
            f"{name} minus SGD",
            rows_of(evidence, name),
            sgd,
            TEST_LOSS,
            "positive",
            allowance=allowance,
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
            f"{model_name(evidence, row)} minus the others",
            [row],
            [other for other in rows if other != row],
            TEST_LOSS,
            "equivalent",
            allowance=APPROXIMATELY * mean_of(evidence, rows, TEST_LOSS),
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
                evidence, label_of(evidence, quantity), quantity, "negative", bound=POOR
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
                label = model_name(evidence, index)
                quantity = Quantity(name, model.batch, model.rho)
                found += _best_of_all(evidence, label, [index], quantity)
        return found

    return parts


def as_flat_by_large_batches(evidence: Evidence) -> list[Part]:
    """With the large m, both batches of SAM reach about the same perturbed loss."""
    groups = rows_of(evidence, "small-batch SAM"), rows_of(evidence, "large-batch SAM")
    quantities = [Quantity("adversarial_loss", "large", rho) for rho in RHOS]
    return [
        part
        for quantity in quantities
        for part in tests.difference(
            evidence,
            label_of(evidence, quantity),
            *groups,
            quantity,
            "equivalent",
            allowance=APPROXIMATELY * mean_of(evidence, groups[1], quantity),
            confidence=1 - 2 * tests.LEVEL,
        )
    ]


def sometimes_sharper(evidence: Evidence) -> list[Part]:
    """Large-batch SAM is sharper than SGD by at least one of two measures."""
    groups = rows_of(evidence, "large-batch SAM"), rows_of(evidence, "SGD")
    quantities = [Quantity("adversarial_sharpness", batch, 0.1) for batch in ("small", "large")]
    return [
        part
        for quantity in quantities
        for part in tests.difference(
            evidence,
            f"large-batch SAM minus SGD, {label_of(evidence, quantity)}",
            *groups,
            quantity,
            "positive",
            confidence=1 - tests.LEVEL / len(quantities),
        )
    ]


def longer_is_worse(evidence: Evidence) -> list[Part]:
    """SGD has a higher test loss after twice the epochs."""
    sgd = rows_of(evidence, "SGD")
    if not sgd or not evidence.longer(TEST_LOSS).size:
        return []
    both = evidence._replace(
        models=(ModelKey("sgd, longer", "small", 0.0), evidence.models[sgd[0]]),
        values=lambda q: np.concatenate([evidence.longer(q), evidence.values(q)[sgd[:1]]]),
    )
    label = "SGD, twice the epochs minus once"
    return tests.difference(both, label, [0], [1], TEST_LOSS, "positive")


def smaller_basins(evidence: Evidence) -> list[Part]:
    """The basins of large-batch models take a smaller share of the plane than small-batch ones."""
    pairs = (
        ("large-batch SAM", "small-batch SAM"),
        ("large-batch average SAM", "small-batch average SAM"),
    )
    return between_groups(evidence, pairs, Quantity("basin_share"), "negative")


def _best_of_all(
    evidence: Evidence, label: str, row: list[int], quantity: Quantity, direction: str = "negative"
) -> list[Part]:
    """Test one model, or none where it was not trained, against every other one."""
    others = others_of(evidence, row[0]) if row else {}
    return tests.extreme(evidence, label, row, others, quantity, direction)
