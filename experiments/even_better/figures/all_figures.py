"""Every figure of the report, by its number."""

from experiments.even_better.figures.figure_01 import figure_01
from experiments.even_better.figures.figure_02 import figure_02
from experiments.even_better.figures.figure_03 import figure_03
from experiments.even_better.figures.figure_04 import figure_04
from experiments.even_better.figures.figure_05 import figure_05
from experiments.even_better.figures.figure_06 import figure_06
from experiments.even_better.figures.figure_07 import figure_07
from experiments.even_better.figures.figure_08 import figure_08
from experiments.even_better.figures.figure_09 import figure_09
from experiments.even_better.figures.figure_10 import figure_10
from experiments.even_better.figures.figure_11 import figure_11
from experiments.even_better.read.results import StudyResults
from experiments.study.figures import ReportFigure


def all_figures(results: StudyResults) -> list[ReportFigure]:
    """Return every figure that has something to show, the sound preset before the published."""
    return [
        *figure_01(),
        *figure_02(results),
        *figure_03(results),
        *figure_04(results),
        *figure_05(results),
        *figure_06(results),
        *figure_07(results),
        *figure_08(results),
        *figure_09(results),
        *figure_10(results),
        *figure_11(results),
    ]
