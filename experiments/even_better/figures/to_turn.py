"""The planes of the figures as surfaces that a reader turns on the page."""

import numpy as np

from experiments.even_better.figures.connections import HIGHEST, regularised_loss
from experiments.even_better.figures.landscapes import landscapes
from experiments.even_better.read.connections import Connection
from experiments.even_better.read.results import StudyResults
from experiments.study.surfaces import Path, Surfaces
from sam_jax import plotting
from sam_jax.metrics.landscape.grids import LossPlane


def surfaces(results: StudyResults) -> list[Surfaces]:
    """Return the planes around the models, and those through every pair of them."""
    return [*_of_models(results), *_of_pairs(results)]


def _of_models(results: StudyResults) -> list[Surfaces]:
    found = landscapes(results)
    if found is None:
        return []
    caption = (
        "The planes of Figure 4, the mean over the seeds, all on one scale. Choose a model, "
        "and drag to turn."
    )
    planes = {model.label: mean for model, mean in found.means.items()}
    return [Surfaces("Figure 9, to be turned", "figure_9_to_turn", caption, planes, number=9)]


def _of_pairs(results: StudyResults) -> list[Surfaces]:
    planes: dict[str, LossPlane] = {}
    paths: dict[str, Path] = {}
    for pair in results.pairs:
        first = pair[0]
        test = plotting.mean_plane([first.plane], "test_loss")
        for words, plane in (("training", regularised_loss(first)), ("test", test)):
            name = f"{first.label}, {words} loss"
            planes[name] = plane
            paths[name] = Path(np.array(first.curve["coordinates"]), _landmarks(first))
    if not any(np.isfinite(plane.values).any() for plane in planes.values()):
        return []
    caption = (
        "The planes of Figures 2 and 8 of the first seed, the training loss with the l2 term; the "
        f"line is the trained curve. Losses above {HIGHEST:g} are drawn there."
    )
    return [
        Surfaces(
            "Figures 2 and 8, to be turned",
            "figure_2_to_turn",
            caption,
            planes,
            "Loss",
            paths,
            HIGHEST,
            2,
        )
    ]


def _landmarks(connection: Connection) -> dict[str, tuple[float, float]]:
    return dict(zip(("t = 0", "t = 1", "bend"), connection.curve["landmarks"], strict=True))
