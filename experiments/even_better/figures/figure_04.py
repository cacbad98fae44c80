"""Figure 4: contours of the loss around every model, and the share of its basin."""

from collections.abc import Sequence

from experiments.even_better.arms import Model
from experiments.even_better.figures.common import report_figure
from experiments.even_better.figures.landscapes import QUANTITY, landscapes
from experiments.even_better.read.planes import basin_level, basin_share
from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.correlations import test_losses
from experiments.even_better.thresholds import RISE
from experiments.study.figures import ReportFigure
from experiments.study.formats import describe
from sam_jax import plotting
from sam_jax.metrics.landscape.grids import LossPlane
from sam_jax.statistics import correlation, mean_and_stderr


def figure_04(results: StudyResults) -> list[ReportFigure]:
    """Return the figure, where planes were measured."""
    found = landscapes(results)
    if found is None:
        return []
    return [_contours(found.planes, found.means, found.scale, _correlation(results, found.planes))]


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
        f"seed: where the loss is {RISE:g} above the model's; “basin” is the share of the "
        "plane within it (mean ± standard error). Basin and test loss of the compared models: "
        f"{found}. (In the study's released contours, of ten runs, seven of them of its "
        "Table 1, r = −0.80, p = 0.005.)"
    )
    return report_figure(4, None, "figure_4", caption, figure)


def _correlation(results: StudyResults, planes: dict[Model, list[LossPlane]]) -> str:
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
