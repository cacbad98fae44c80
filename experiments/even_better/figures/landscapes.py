"""Figures 4 and 9 of the study: the losses of the models on planes of random directions."""

from collections.abc import Sequence

import numpy as np

from experiments.even_better.arms import Model
from experiments.even_better.figures.figures import BANDS, ReportFigure, averaged, model_styles
from experiments.even_better.read.planes import RISE, basin_level, basin_share, middle_of
from experiments.even_better.read.results import Results
from experiments.even_better.tables.correlations import test_losses
from experiments.study.formats import describe
from sam_jax import plotting
from sam_jax.metrics.landscape import LossPlane
from sam_jax.metrics.statistics import correlation, mean_and_stderr

QUANTITY = "train_loss"
GROUPS = (("sgd", "small"), ("sam", "small"), ("average_sam", "small"), ("sam", "large"))


def landscape_figures(results: Results) -> list[ReportFigure]:
    """Return Figures 4 and 9, where planes were measured."""
    planes = {model: model_planes(results, model) for model in results.all_models}
    planes = {model: found for model, found in planes.items() if found}
    means = {model: plotting.mean_plane(found, QUANTITY) for model, found in planes.items()}
    finite = [mean.values for mean in means.values() if np.isfinite(mean.values).any()]
    scale = plotting.shades(np.concatenate(finite, axis=None)) if finite else None
    if scale is None:
        return []
    chosen = surface_models(list(means))
    return [
        _contours(planes, means, scale, _correlation(results, planes)),
        _surfaces({model: means[model] for model in chosen}, scale),
        _cuts({model: planes[model] for model in chosen}, model_styles(results)),
    ]


def model_planes(results: Results, model: Model) -> list[LossPlane]:
    """Return the planes of a model, by seed."""
    return [
        results.planes[model.name, seed]
        for seed in results.seeds
        if (model.name, seed) in results.planes
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


def _contours(
    planes: dict[Model, list[LossPlane]],
    means: dict[Model, LossPlane],
    scale: plotting.Shades,
    found: str,
) -> ReportFigure:
    figure, panels = plotting.small_multiples(len(means), 3, panel=(2.7, 2.7))
    filled = None
    for axes, (model, mean) in zip(panels, means.items(), strict=True):
        shares = [basin_share(plane) for plane in planes[model]]
        drawn = plotting.landscape_contours(
            axes,
            mean,
            scale=scale,
            bar=False,
            seeds=[
                (plotting.mean_plane([plane], QUANTITY), basin_level(plane))
                for plane in planes[model]
            ],
            title=f"{model.label}\nbasin {_percent(shares)}",
        )
        filled = filled or drawn
    if filled is not None:
        plotting.colour_bar(panels, filled, scale, "Training loss")
    caption = (
        "Training loss around every model on planes of two random directions, filter by filter "
        "as long as the weights (Li et al., 2018), the mean over the seeds. Dashed, one line a "
        f"seed: where the loss is {RISE:g} above that of the model; “basin” is the share of the "
        "plane within it (mean ± standard error). Basin and test loss of the compared models: "
        f"{found}. (In the study's released contours, of ten runs, seven of them of its "
        "Table 1, r = −0.80, p = 0.005.)"
    )
    return ReportFigure(4, None, "figure_4", caption, figure)


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
    return ReportFigure(9, None, "figure_9", caption, figure)


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
    return ReportFigure(9, None, "figure_9_cuts", caption, figure)


def _cut(plane: LossPlane, name: str) -> np.ndarray:
    """Return the losses along one axis, in the row or column nearest to the model."""
    row, column = middle_of(plane)
    values = np.asarray(plane.values[QUANTITY])
    return values[row] if name == "x" else values[:, column]


def _correlation(results: Results, planes: dict[Model, list[LossPlane]]) -> str:
    """Return Pearson's r of the basins with the test loss, over the models that are compared."""
    shares = [
        mean_and_stderr([basin_share(plane) for plane in planes.get(model, [])]).mean
        for model in results.models
    ]
    losses = [cell.mean for cell in test_losses(results)]
    return describe(correlation(shares, losses, resamples=1))


def _percent(shares: Sequence[float]) -> str:
    found = mean_and_stderr(shares)
    if found.n == 0:
        return "—"
    error = f" ± {100 * found.stderr:.1f}" if found.n > 1 else ""
    return f"{100 * found.mean:.1f}{error}%"
