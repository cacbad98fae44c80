"""Figure 2: the curve between the first pair of models of the config."""

from collections.abc import Sequence

from experiments.even_better.figures.common import ReportFigure
from experiments.even_better.figures.connections import connection_figures
from experiments.even_better.read.connections import Connection


def figure_02(pairs: Sequence[Sequence[Connection]]) -> list[ReportFigure]:
    """Return the planes of the pair and the losses along its curve."""
    return [figure for pair in pairs[:1] for figure in connection_figures(2, "figure_2", pair)]
