"""Figure 8: the curves between the second pair of models of the config, and those after it."""

from experiments.even_better.figures.connections import connection_figures
from experiments.even_better.read.results import StudyResults
from experiments.study.figures import ReportFigure


def figure_08(results: StudyResults) -> list[ReportFigure]:
    """Return the planes of every such pair and the losses along its curve."""
    figures = []
    for number, pair in enumerate(results.pairs[1:], start=2):
        stem = "figure_8" + (f"_pair_{number}" if number > 2 else "")
        figures += connection_figures(8, stem, pair)
    return figures
