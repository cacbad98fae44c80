"""Figure 6: the loss along a direction, all models together."""

from matplotlib.figure import Figure

from experiments.even_better.figures.common import BANDS, report_figure
from experiments.even_better.figures.slices import Slices, slices
from experiments.even_better.read.results import StudyResults
from experiments.study.figures import ReportFigure
from sam_jax import plotting


def figure_06(results: StudyResults) -> list[ReportFigure]:
    """Return a figure a preset and direction."""
    return [
        report_figure(
            6,
            found.preset,
            f"figure_6_{found.suffix}",
            f"Training loss at distance μ from the minimum {found.kind}. {BANDS}",
            _together(found),
        )
        for found in slices(results)
    ]


def _together(found: Slices) -> Figure:
    figure, (axes,) = plotting.small_multiples(1, 1, panel=(5.6, 4.0))
    plotting.curves_with_bands(axes, [line for _, line in found.drawn], markers=7)
    plotting.label_axes(axes, found.policy, "Distance μ", "Training loss")
    plotting.shared_legend(figure, below=True)
    return figure
