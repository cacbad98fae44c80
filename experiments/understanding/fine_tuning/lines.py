"""The losses along the line from the start of a fine-tuning to its end."""

import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from experiments.study.arms import Arm, seed_folder
from experiments.study.study import Run
from experiments.understanding.fine_tuning.arms import Plan, Tuned, starts_from
from sam_jax.measuring.batch_norm_policy import BatchNormPolicy
from sam_jax.measuring.landscapes import measure_line, read_line
from sam_jax.metrics.landscape.grids import LossLine
from sam_jax.training.trained import Trained, check_whole, load_trained


def line_path(workdir: pathlib.Path | str, arm: Arm, seed: int) -> pathlib.Path:
    """Return the file with the line of a fine-tuned model, in the folder of its run."""
    return seed_folder(workdir, arm, seed) / "line.jsonl"


def positions(plan: Plan) -> np.ndarray:
    """Return the positions on the line: 0 is the start, 1 the end."""
    line = plan.config.line
    return np.linspace(line.low, line.high, line.points)


def measure_lines(plan: Plan, workdir: pathlib.Path, runs: Sequence[Run], at_once: int) -> None:
    """Measure both sets along the line from start to end, for every fine-tuned model.

    The statistics of batch norm are computed again at every point.
    """
    line = plan.config.line
    policy = BatchNormPolicy(line.batch_norm, line.batch_norm_batch_size)
    for run in runs:
        assert isinstance(run.arm, Tuned)
        start = starts_from(plan, run.arm)
        if start is None:
            continue
        path = line_path(workdir, run.arm, run.seed)
        _, first = load_trained(seed_folder(workdir, start, run.seed))
        _, last = run.load()
        direction = jax.tree.map(lambda a, b: b - a, first.state.params, last.state.params)
        measure_line(
            last,
            direction,
            positions(plan),
            path,
            origin=first.state.params,
            batch_norm=policy,
            batch_size=run.training.evaluation.batch_size,
            about={"start": start.name, "end": run.arm.name, "seed": run.seed},
            label=f"{run.label} line",
        )


def fits(plan: Plan, arm: Tuned, training: ml_collections.ConfigDict, run: Trained) -> None:
    """Raise a ValueError where a line is measured on a set that is not held on the device."""
    if starts_from(plan, arm) is not None:
        check_whole(run)


def lines_of(workdir: pathlib.Path | str, plan: Plan, arm: Arm) -> list[LossLine]:
    """Return the measured lines of an arm, one a seed."""
    return [read_line(line_path(workdir, arm, seed)) for seed in plan.seeds]
