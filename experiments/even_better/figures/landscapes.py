"""The planes of losses around the models, as Figures 4 and 9 show them."""

from typing import NamedTuple

import numpy as np

from experiments.even_better.arms import Model
from experiments.even_better.read.results import StudyResults
from sam_jax import plotting
from sam_jax.metrics.landscape.grids import LossPlane

QUANTITY = "train_loss"


class Landscapes(NamedTuple):
    """The planes of every model that has any, their means over the seeds and a common scale."""

    planes: dict[Model, list[LossPlane]]
    means: dict[Model, LossPlane]
    scale: plotting.Shades


def landscapes(results: StudyResults) -> Landscapes | None:
    """Return the landscapes; None where no plane is finite anywhere."""
    planes = {model: model_planes(results, model) for model in results.arms}
    planes = {model: found for model, found in planes.items() if found}
    means = {model: plotting.mean_plane(found, QUANTITY) for model, found in planes.items()}
    finite = [mean.values for mean in means.values() if np.isfinite(mean.values).any()]
    scale = plotting.shades(np.concatenate(finite, axis=None)) if finite else None
    return None if scale is None else Landscapes(planes, means, scale)


def model_planes(results: StudyResults, model: Model) -> list[LossPlane]:
    """Return the planes of a model, by seed."""
    return [
        results.planes[model.name, seed]
        for seed in results.seeds
        if (model.name, seed) in results.planes
    ]
