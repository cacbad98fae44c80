"""Figure 2: the curve between the first pair of models of the config."""

from experiments.even_better.figures.connections import connection_figures
from experiments.even_better.read.results import StudyResults
from experiments.study.figures import ReportFigure


def figure_02(results: StudyResults) -> list[ReportFigure]:
    """Return the planes of the pair and the losses along its curve."""
    return [
        figure for pair in results.pairs[:1] for figure in connection_figures(2, "figure_2", pair)
    ]
