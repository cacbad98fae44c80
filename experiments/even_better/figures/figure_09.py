"""Figure 9: the planes of Figure 4 as surfaces, and cuts through them."""

from collections.abc import Sequence

import numpy as np

from experiments.even_better.arms import Model
from experiments.even_better.figures.common import BANDS, averaged, model_styles, report_figure
from experiments.even_better.figures.landscapes import QUANTITY, landscapes
from experiments.even_better.read.planes import middle_of
from experiments.even_better.read.results import StudyResults
from experiments.study.figures import ReportFigure
from sam_jax import plotting
from sam_jax.metrics.landscape.grids import LossPlane

GROUPS = (("sgd", "small"), ("sam", "small"), ("average_sam", "small"), ("sam", "large"))


def figure_09(results: StudyResults) -> list[ReportFigure]:
    """Return the surfaces of some models and cuts through them, where planes were measured."""
    found = landscapes(results)
    if found is None:
        return []
    chosen = surface_models(list(found.means))
    return [
        _surfaces({model: found.means[model] for model in chosen}, found.scale),
        _cuts({model: found.planes[model] for model in chosen}, model_styles(results)),
    ]


def surface_models(models: Sequence[Model]) -> list[Model]:
    """Return one model each of SGD, small SAM, small average SAM and large SAM: the last of each.

    Models are in the order of rho and epochs: the longest of SGD, the largest rho of the others.
    """
    chosen = []
    for group in GROUPS:
        members = [model for model in models if (model.optimiser, model.batch) == group]
        chosen += members[-1:]
    return chosen


def _surfaces(means: dict[Model, LossPlane], scale: plotting.Shades) -> ReportFigure:
    figure, panels = plotting.small_multiples(len(means), 2, panel=(4.6, 4.0), projection="3d")
    for axes, (model, mean) in zip(panels, means.items(), strict=True):
        plotting.landscape_surface(
            axes, mean, scale=scale, title=model.label, value_label="Training loss"
        )
    caption = (
        "The planes of Figure 4 as surfaces, of four kinds of models as in the study: the mean "
        "over the seeds. The next figure shows how much they differ, where there are several."
    )
    return report_figure(9, None, "figure_9", caption, figure)


def _cuts(
    planes: dict[Model, list[LossPlane]], styles: dict[Model, plotting.Style]
) -> ReportFigure:
    figure, panels = plotting.small_multiples(2, 2, panel=(4.0, 3.2))
    for axes, name in zip(panels, ("x", "y"), strict=True):
        curves = []
        for model, found in planes.items():
            axis = [np.asarray(getattr(plane, f"{name}s")) for plane in found]
            cuts = [_cut(plane, name) for plane in found]
            points = list(zip(np.concatenate(axis), np.concatenate(cuts), strict=True))
            curves.append(averaged(model.label, points, styles[model]))
        plotting.curves_with_bands(axes, curves)
        other = "y" if name == "x" else "x"
        policy = next(iter(planes.values()))[0].batch_norm
        title = f"{other} = 0, batch norm: {policy}"
        plotting.label_axes(axes, title, name, "Training loss")
    plotting.shared_legend(figure, width=2.0, below=True)
    caption = f"Cuts through the surfaces of Figure 9 at the models. {BANDS}"
    return report_figure(9, None, "figure_9_cuts", caption, figure)


def _cut(plane: LossPlane, name: str) -> np.ndarray:
    """Return the losses along one axis, in the row or column nearest to the model."""
    row, column = middle_of(plane)
    values = np.asarray(plane.values[QUANTITY])
    return values[row] if name == "x" else values[:, column]
