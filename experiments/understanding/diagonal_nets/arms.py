"""The networks of the released notebook with the test losses that it prints.

Cells are counted from 0. They were not run in their order, which explains two of them: in cell 4
n-SAM has the step size that cell 3 left behind, and in cell 5 the printed rho is another cell's.
"""

from typing import NamedTuple

import numpy as np

from experiments.understanding.diagonal_nets.sweep import Method

ITERATIONS = 10_001  # of a phase, in the notebook
DIVERGED = "diverged"
GD, N_SAM, ONE_SAM, DERIVATIVE = "GD", "n-SAM", "1-SAM", "1-SAM, loss derivative only"
# Whether every example has its own perturbation, and whether it moves only the loss's derivative.
FLAGS = {
    GD: (False, False),
    N_SAM: (False, False),
    ONE_SAM: (True, False),
    DERIVATIVE: (True, True),
}


class Phase(NamedTuple):
    """What a network is trained with for one phase."""

    method: str  # one of FLAGS
    learning_rate: float
    rho: float = 0.0


class Arm(NamedTuple):
    """One network."""

    cell: str
    scale: float  # the initial u; v is 0
    phases: tuple[Phase, Phase]
    recorded: tuple[float | str | None, float | str | None] = (
        None,
        None,
    )  # test losses after each phase

    @property
    def lasting(self) -> bool:
        """Whether both phases are one and the same method."""
        return self.phases[0] == self.phases[1]

    @property
    def label(self) -> str:
        """The methods with their radii."""
        names = [f"{p.method}, ρ = {p.rho:g}" if p.rho else p.method for p in self.phases]
        return names[0] if self.lasting else " → ".join(names)


def _arm(cell: str, scale: float, phase: Phase, recorded: float | str | None = None) -> Arm:
    """Return a network with one method throughout, recorded after its first phase."""
    return Arm(cell, scale, (phase, phase), (recorded, None))


def _over_rho(
    cell: str,
    scale: float,
    method: str,
    learning_rate: float,
    recorded: dict[float, float | str | None],
) -> list[Arm]:
    return [_arm(cell, scale, Phase(method, learning_rate, rho), x) for rho, x in recorded.items()]


RADII = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.9)
CELL_1 = [
    _arm("1", 0.1, Phase(GD, 5 / 30), 0.015056044189449159),
    *_over_rho(
        "1",
        0.1,
        N_SAM,
        5 / 30,
        {
            0.01: 0.015143589149560101,
            0.03: 0.01532189739609112,
            0.1: 0.01598195225147282,
            0.3: 0.018241642036376265,
            1.0: 0.03606494489010675,
        },
    ),
]
CELL_2 = [
    _arm("2", 0.02, Phase(GD, 5 / 30), 0.0006337885714222886),
    *_over_rho(
        "2",
        0.02,
        ONE_SAM,
        5 / 30,
        {
            0.01: 0.0004663830742908966,
            0.03: 0.00023853572282255735,
            0.1: 1.5396958089444108e-05,
            0.3: 0.024183218285324055,
        },
    ),
]
CELL_3 = [
    _arm("3", 0.1, Phase(GD, 10 / 30), 0.015747762611708224),
    *_over_rho(
        "3",
        0.1,
        ONE_SAM,
        10 / 30,
        {
            0.03: 0.009127933293039658,
            0.1: 0.0015235412218010903,
            0.15: 0.00025260386614471894,
            0.2: 1.5622244035909675e-05,
            0.3: 1.316634050881677e-08,
        },
    ),
]
CELL_4 = [
    _arm("4", 0.1, Phase(GD, 15 / 30), 0.016445781003091926),
    *_over_rho(
        "4",
        0.1,
        N_SAM,
        10 / 30,  # the step size of cell 3
        {
            0.001: 0.015756677115280553,
            0.003: 0.015774538224235406,
            0.01: 0.01583739124793595,
            0.03: 0.016019930687941112,
            0.1: 0.016695513663723727,
            0.3: 0.019007119935097728,
            0.9: 0.032812027137658364,
        },
    ),
    *_over_rho(
        "4",
        0.1,
        ONE_SAM,
        15 / 30,
        {
            0.001: 0.016174901502986682,
            0.003: 0.015641003537756094,
            0.01: 0.013855445463941646,
            0.03: 0.009469059057662111,
            0.1: 0.0015339774886805526,
            0.3: 6.350068450874803e-09,
            0.9: DIVERGED,
        },
    ),
]
ERM = Phase(GD, 1 / 30)
CELL_5 = [
    Arm("5", 0.1, (ERM, ERM), (0.014865600195083558, 0.014602323023706629)),
    Arm("5", 0.1, (ERM, Phase(ONE_SAM, 1 / 30, 10.0)), (None, 0.00014269229669575567)),
    Arm(
        "5",
        0.1,
        (Phase(ONE_SAM, 1 / 30, 0.175), ERM),
        (0.0001245758657536336, 9.834845199886545e-05),
    ),
]
# What cell 4 was meant to compare, and the variant of 1-SAM that the notebook does not run.
BEYOND = [
    *_over_rho("beyond", 0.1, N_SAM, 15 / 30, dict.fromkeys(RADII)),
    *_over_rho("beyond", 0.1, DERIVATIVE, 15 / 30, dict.fromkeys(RADII)),
]
ARMS: tuple[Arm, ...] = (*CELL_1, *CELL_2, *CELL_3, *CELL_4, *CELL_5, *BEYOND)


def methods(arms: tuple[Arm, ...], phase: int) -> Method:
    """Return the methods of a phase, with a leading axis of networks."""
    chosen = [arm.phases[phase] for arm in arms]
    per_example, loss_derivative_only = zip(*(FLAGS[p.method] for p in chosen), strict=True)
    return Method(
        np.array(per_example),
        np.array(loss_derivative_only),
        rho=np.array([p.rho for p in chosen]),
        learning_rate=np.array([p.learning_rate for p in chosen]),
    )
