"""The granulated rank correlation: does a measure follow each hyperparameter on its own?"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sam_jax.statistics.samples import vectors


class GranulatedKendall(NamedTuple):
    """Kendall's coefficient over all models, and within groups that differ in one choice."""

    mean: float  # Psi, the mean of psi over the axes
    psi: dict[str, float]  # for every axis, NaN where no group has two models
    tau: float  # over all pairs of models
    num_groups: dict[str, int]  # groups of at least two models behind every psi
    n: int  # models with finite values


def granulated_kendall(
    measure: ArrayLike,
    gap: ArrayLike,
    hyperparameters: Mapping[str, Sequence[Hashable]],
    *,
    axes: Sequence[str] | None = None,
) -> GranulatedKendall:
    """Return Kendall's coefficient within groups of models that differ in one hyperparameter.

    tau = sum over i != j of sign(measure_i - measure_j) sign(gap_i - gap_j) / (n (n - 1)), in
    which a tie counts zero. For an axis a, a group holds the models that agree in every
    hyperparameter but a. psi_a is the mean of tau over these groups, all with the same weight, and
    Psi is the mean of psi over the axes. A measure that merely follows one hyperparameter may reach
    a high tau over all models, but not a high psi on the other axes.

    The published definition is for a full grid. Where models are missing, groups of fewer than
    two are left out, as are axes without any group from Psi.

    Args:
      measure: Shape [k], one value a model.
      gap: Shape [k], the values that the measure should rank, such as test minus training loss.
        Models with a value that is not finite are left out.
      hyperparameters: Name -> k values that can be compared for equality.
      axes: The names to take psi of, by default all. Others are only held equal within the
        groups: name the seed in `hyperparameters` but not here, and every seed is compared
        with itself.

    Returns:
      A `GranulatedKendall`.

    Raises:
      ValueError: Lengths differ, an axis has no hyperparameter, or two models share all
        hyperparameters.

    References:
      Jiang, Neyshabur, Mobahi, Krishnan and Bengio, Fantastic generalization measures and where
      to find them, 2020, https://arxiv.org/abs/1912.02178 (section 2.2.1).

    >>> grid = {"rho": [0.0, 0.0, 0.1, 0.1], "batch": [128, 256, 128, 256]}
    >>> found = granulated_kendall([4, 3, 2, 1], [0.4, 0.5, 0.2, 0.3], grid)
    >>> found.psi, found.mean
    ({'rho': 1.0, 'batch': -1.0}, 0.0)
    """
    measure, gap = vectors(measure=measure, gap=gap)
    axes = tuple(hyperparameters) if axes is None else tuple(axes)
    _check_grid(hyperparameters, axes, measure.size)
    kept = np.flatnonzero(np.isfinite(measure) & np.isfinite(gap)).tolist()
    groups = {axis: _groups(hyperparameters, axis, kept) for axis in axes}
    psi = {
        axis: _mean([_tau(measure[group], gap[group]) for group in groups[axis]]) for axis in axes
    }
    return GranulatedKendall(
        mean=_mean([value for value in psi.values() if not math.isnan(value)]),
        psi=psi,
        tau=_tau(measure[kept], gap[kept]),
        num_groups={axis: len(groups[axis]) for axis in axes},
        n=len(kept),
    )


def _check_grid(
    hyperparameters: Mapping[str, Sequence[Hashable]], axes: tuple[str, ...], n: int
) -> None:
    if not axes or not set(axes) <= set(hyperparameters):
        raise ValueError(
            f"axes must name at least one of the hyperparameters {list(hyperparameters)}, "
            f"got {list(axes)}."
        )
    for name, values in hyperparameters.items():
        if len(values) != n:
            raise ValueError(f"Each of the {n} models needs its {name}, got {len(values)} values.")
    if len(set(zip(*hyperparameters.values(), strict=True))) < n:
        raise ValueError(
            "Two models share all hyperparameters. Average them first, or name what tells them "
            "apart, such as the seed, in hyperparameters and leave it out of axes."
        )


def _groups(
    hyperparameters: Mapping[str, Sequence[Hashable]], axis: str, kept: list[int]
) -> list[list[int]]:
    # The models that agree in all but the axis, where there are two or more.
    others = [values for name, values in hyperparameters.items() if name != axis]
    groups: dict[tuple, list[int]] = {}
    for index in kept:
        groups.setdefault(tuple(values[index] for values in others), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def _tau(measure: np.ndarray, gap: np.ndarray) -> float:
    n = measure.size
    if n < 2:
        return math.nan
    agreement = np.sign(np.subtract.outer(measure, measure)) * np.sign(np.subtract.outer(gap, gap))
    return float(agreement.sum() / (n * (n - 1)))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan
