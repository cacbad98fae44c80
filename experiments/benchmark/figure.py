"""One figure of all ratios, each beside what it is to reach."""

import math
from collections.abc import Sequence

from experiments.benchmark.tasks import Line
from experiments.study.figures import ReportFigure
from sam_jax import plotting

GOOD, BAD = "#0072B2", "#D55E00"


def ratios_figure(lines: Sequence[Line]) -> ReportFigure:
    """Return the figure: one line a row of the table, ratios on a logarithmic axis."""
    shown = [
        line
        for line in lines
        if line.unit == "×" and line.number.median > 0 and math.isfinite(line.number.median)
    ]
    figure, (axes,) = plotting.small_multiples(1, 1)
    figure.set_size_inches(11.0, 1.4 + 0.26 * len(shown))
    for row, line in enumerate(reversed(shown)):
        colour = {True: GOOD, False: BAD, None: plotting.GREY}[line.reached]
        number = line.number
        axes.plot([number.low, number.high], [row, row], color=colour, linewidth=2.0)
        axes.plot([number.median], [row], "o", color=colour)
        if math.isfinite(line.reach):
            marker = ">" if line.at_least else "<"
            axes.plot([line.reach], [row], marker, color="black", fillstyle="none")
    axes.set_yticks(range(len(shown)), [_label(line) for line in reversed(shown)], fontsize=8)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    values = [x for line in shown for x in (*line.number[:3], line.reach) if x > 0]
    plotting.set_scale(axes, "x", values or [1.0], "log")
    axes.axvline(1.0, color=plotting.GREY, linewidth=0.8)
    axes.set_xlabel("ratio")
    caption = (
        "Median and range over the rounds. A triangle is what is to be reached: the number lies on "
        "its side (left of ◁, right of ▷) where it is. Blue: reached; orange: not yet."
    )
    return ReportFigure("Figure 1", "ratios", caption, figure)


def _label(line: Line) -> str:
    return f"{line.work} | {line.against.split(',')[0]}"
