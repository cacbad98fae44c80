"""The measurements: the outcome of every training, and Hessians along two of them."""

import pathlib

import ml_collections

from experiments.sam_paper.settings import Plan, Setting
from experiments.study.outcomes import measure_outcome
from experiments.study.study import Run
from sam_jax.measuring.measure import EVALUATIONS, measure_run
from sam_jax.runs import checkpoints, records
from sam_jax.runs.records import Record
from sam_jax.training.trained import Trained, check_whole

SPECTRUM = ("top_eigenvalues", "spectral_density")


def measure(plan: Plan, run: Run) -> None:
    """Write the outcome of a training, and measure the Hessian at its kept checkpoints.

    The error of a training with wrong labels is that on the test set, whose labels are right.
    """
    measure_outcome(run)
    if run.arm in plan.spectra:
        for epoch in kept_epochs(run.folder, run.training.checkpoint.keep):
            measure_run(run.folder, epoch, ("sound",), SPECTRUM)


def fits(plan: Plan, arm: Setting, training: ml_collections.ConfigDict, run: Trained) -> None:
    """Raise a ValueError where a Hessian is measured on a set that is not held on the device."""
    if arm in plan.spectra:
        check_whole(run)


def kept_epochs(folder: pathlib.Path, keep: int) -> list[int]:
    """Return the epochs of the checkpoints that a run holds."""
    with checkpoints.open_manager(folder, keep) as manager:
        return checkpoints.epochs_of(manager)


def spectra_of(folder: pathlib.Path) -> list[Record]:
    """Return the records of the Hessian of a run, [] where none was measured."""
    return [r for r in records.read(folder / EVALUATIONS) if r["measure"] in SPECTRUM]
