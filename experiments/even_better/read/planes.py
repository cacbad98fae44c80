"""The numbers read off the plane of losses around a model."""

import math

import numpy as np

from experiments.even_better.thresholds import RISE
from sam_jax.metrics.landscape.grids import LossPlane


def middle_of(plane: LossPlane) -> tuple[int, int]:
    """Return the row and the column of the point of a plane that is the model."""
    return int(np.argmin(np.abs(plane.ys))), int(np.argmin(np.abs(plane.xs)))


def basin_level(plane: LossPlane) -> float:
    """Return the training loss at the edge of a model's basin: the model's loss plus RISE."""
    return float(np.asarray(plane.values["train_loss"])[middle_of(plane)]) + RISE


def basin_share(plane: LossPlane) -> float:
    """Return the share of a plane's points whose training loss is below `basin_level`.

    NaN where the model's loss is not finite; a point that is not finite is above.
    """
    level = basin_level(plane)
    share = np.mean(np.asarray(plane.values["train_loss"]) < level)
    return float(share) if np.isfinite(level) else math.nan
