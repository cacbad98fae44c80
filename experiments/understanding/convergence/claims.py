"""The claims on convergence, and how they are tested."""

import math
from collections.abc import Callable, Sequence

from experiments.study.claims import Part, above
from experiments.study.verdicts import Claim
from experiments.understanding.convergence.problems import KINDS, NET, NOISY, OVERPARAMETRISED, Kind
from experiments.understanding.convergence.run import ARMS, Arm
from experiments.understanding.convergence.training import METHODS
from experiments.understanding.evidence import SeedEvidence

PAPER = "Andriushchenko and Flammarion (2022)"
BESIDE = "Beside the paper"
ZERO = 10.0  # orders of magnitude that count as zero training loss
STAYS = math.log10(0.8)  # the least change of a loss that has stopped to fall
FALLS = 0.75  # the least exponent of a loss that falls as 1 / t
TEN_TIMES = 1.0  # an order of magnitude

Parts = Callable[[SeedEvidence], list[Part]]


def arms(
    kinds: Sequence[Kind], schedule: str, methods: Sequence[str] = tuple(METHODS)
) -> list[tuple[int, Arm]]:
    """Return the rows and arms of some problems and methods with a schedule."""
    return [
        (row, arm)
        for row, arm in enumerate(ARMS)
        if arm.kind in kinds and arm.method in methods and arm.schedule == schedule
    ]


def _each(chosen: Sequence[tuple[int, Arm]], quantity: str, bound: float) -> Parts:
    """Return a test of each arm: the mean of a quantity over seeds is above a bound."""

    def parts(evidence: SeedEvidence) -> list[Part]:
        return [
            part
            for row, arm in chosen
            for part in above(
                f"{arm.kind.name}: {arm.label}", evidence.values(quantity)[row], bound
            )
        ]

    return parts


def _over_decreasing(evidence: SeedEvidence) -> list[Part]:
    """Test each constant schedule of the noisy problem against the decreasing one, seed by seed."""
    late, found = evidence.values("late_loss"), []
    pairs = zip(arms([NOISY], "constant"), arms([NOISY], "decreasing"), strict=True)
    for (row, arm), (other, _) in pairs:
        label = f"{arm.kind.name}: {arm.method}, m = {arm.m}"
        found += above(label, late[row] - late[other], TEN_TIMES)
    return found


CLAIMS = (
    Claim(
        "zero_loss",
        "Where the model interpolates, unnormalised m-SAM reaches zero training loss with a "
        "constant step size and radius.",
        PAPER,
        "The training loss falls by more than 10 orders of magnitude.",
        _each(arms([OVERPARAMETRISED, NET], "constant", ["USAM"]), "fall", ZERO),
    ),
    Claim(
        "floor",
        "Where the model does not interpolate, a constant step size and radius keep a floor.",
        PAPER,
        "The excess loss of the last fifth over that between 30 % and 50 %, log10, is above that "
        "of 0.8.",
        _each(arms([NOISY], "constant"), "change", STAYS),
    ),
    Claim(
        "floor_height",
        "Without interpolation, that floor is more than ten times what a decreasing step size and "
        "radius reach in as many steps.",
        PAPER,
        "The log10 of the late excess loss, constant minus decreasing, is above 1.",
        _over_decreasing,
    ),
    Claim(
        "decreasing",
        "With a decreasing step size γ ~ 1/t and radius ~ √γ the excess loss falls as 1/t.",
        PAPER,
        "The exponent a of t^-a is above 0.75.",
        _each(arms([NOISY], "decreasing"), "exponent", FALLS),
    ),
    Claim(
        "critical_point",
        "With a decreasing step size and radius the gradient goes to zero on every problem.",
        PAPER,
        "The exponent a of t^-a of the squared norm of the gradient is above 0.75.",
        _each(arms(KINDS, "decreasing"), "gradient_exponent", FALLS),
    ),
    Claim(
        "normalised_floor",
        "With the normalised gradient a constant step size and radius keep a floor even where a "
        "linear model interpolates.",
        BESIDE,
        "As for the floor without interpolation.",
        _each(arms([OVERPARAMETRISED], "constant", ["SAM"]), "change", STAYS),
    ),
    Claim(
        "normalised_floor_net",
        "With the normalised gradient they keep a floor for the net, too.",
        BESIDE,
        "As for the linear model.",
        _each(arms([NET], "constant", ["SAM"]), "change", STAYS),
    ),
    Claim(
        "normalised_decreasing",
        "A decreasing step size and radius take the floors of the normalised gradient away.",
        BESIDE,
        "The exponent a of t^-a is above 0.75.",
        _each(arms([OVERPARAMETRISED, NET], "decreasing", ["SAM"]), "exponent", FALLS),
    ),
)
