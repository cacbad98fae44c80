"""Run the study: python -m experiments.understanding.m_sharpness --config=CONFIG --workdir=DIR.

Trains ERM, random perturbations and SAM for several m and radii, measures their sharpness and
writes the report to DIR/report/index.html. The same command goes on where a cut run stopped.

Try all of it on a few small nets first, and see what a config changes by --print_config:

    python -m experiments.understanding.m_sharpness --workdir=runs/try \\
        --config=configs/understanding/m_sharpness/digits.py:smoke
"""

import ml_collections

from experiments.study.command import main
from experiments.study.outcomes import measure_outcome, read_measured
from experiments.study.study import Run, Study
from experiments.understanding.m_sharpness.arms import (
    FIELDS,
    Perturbed,
    Plan,
    plan,
    training_config,
)
from experiments.understanding.m_sharpness.report import errors_table, report
from sam_jax.measuring.measure import measurements
from sam_jax.training.trained import Trained

SHARPNESS = ("adversarial_sharpness",)


def measure(plan: Plan, run: Run) -> None:
    """Write the outcome of a training and its sharpness at every m."""
    measure_outcome(run, SHARPNESS)


def fits(plan: Plan, arm: Perturbed, training: ml_collections.ConfigDict, run: Trained) -> None:
    """Raise a ValueError unless the set has the examples that the sharpness is measured on."""
    measurements(run, training.instruments, ("sound",), SHARPNESS)


STUDY = Study(
    config="configs/understanding/m_sharpness/digits.py",
    plan=plan,
    training_config=training_config,
    measure=measure,
    read=read_measured,
    report=report,
    fits=fits,
    fields=FIELDS,
    summary=lambda results: errors_table(results).grid().text(),
    compile_ahead=True,
)

if __name__ == "__main__":
    main(STUDY)
