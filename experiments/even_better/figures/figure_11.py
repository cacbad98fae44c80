"""Figure 11: the loss along a direction, the models one by one."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.even_better.figures.common import BANDS, report_figure
from experiments.even_better.figures.slices import Slices, slices
from experiments.even_better.read.results import StudyResults
from experiments.study.figures import ReportFigure
from sam_jax import plotting


def figure_11(results: StudyResults) -> list[ReportFigure]:
    """Return a figure a preset and direction."""
    return [
        report_figure(
            11,
            found.preset,
            f"figure_11_{found.suffix}",
            f"The curves of Figure 6 one by one {found.kind}: filled, the minimum w* that training "
            f"found; hollow, the lowest point of the curve. The ranges differ. {BANDS}",
            _one_by_one(found),
        )
        for found in slices(results)
    ]


def _one_by_one(found: Slices) -> Figure:
    columns, drawn = 4, found.drawn
    figure, panels = plotting.small_multiples(len(drawn), columns, panel=(2.1, 2.0))
    scale = plotting.suitable_scale(np.concatenate([line.y for _, line in drawn]))
    for index, (axes, (model, line)) in enumerate(zip(panels, drawn, strict=True)):
        plotting.curves_with_bands(axes, [line], markers=0, scale=scale)
        lowest = int(np.nanargmin(line.y))
        hollow: dict[str, Any] = {"markeredgecolor": "black", "markerfacecolor": "none"}
        axes.plot(line.x[lowest], line.y[lowest], "o", markersize=9, **hollow)
        (centre,) = np.nonzero(line.x == 0)
        axes.plot(line.x[centre], line.y[centre], "o", markersize=6, color=plotting.HIGHLIGHT)
        plotting.label_axes(axes, model.label, "μ", "" if index % columns else "Training loss")
    figure.suptitle(found.policy, fontsize=plotting.FONT_SIZE)
    return figure
