"""Figure 3: the test loss against the training loss at adversarial points."""

from experiments.even_better.figures.perturbed_loss import perturbed_loss_figures
from experiments.even_better.read.results import PRESETS, StudyResults
from experiments.study.figures import ReportFigure


def figure_03(results: StudyResults) -> list[ReportFigure]:
    """Return a figure a preset, a panel for every setting of the measure."""
    return [
        figure
        for preset in PRESETS
        for figure in perturbed_loss_figures(results, 3, "adversarial_sharpness", preset)
    ]
