"""Figure 10: the test loss against the training loss at random points."""

from experiments.even_better.figures.common import ReportFigure
from experiments.even_better.figures.perturbed_loss import perturbed_loss_figures
from experiments.even_better.read.results import PRESETS, Results


def figure_10(results: Results) -> list[ReportFigure]:
    """Return a figure a preset, a panel for every setting of the measure."""
    return [
        figure
        for preset in PRESETS
        for figure in perturbed_loss_figures(results, 10, "average_sharpness", preset)
    ]
