"""The benefit of a method against its cost."""

import numpy as np

from experiments.study.figures import ReportFigure
from experiments.study.table import Column
from experiments.variants.results import (
    VariantsResults,
    over_seeds,
    speed,
    total_gradients,
    total_time,
)
from experiments.variants.tables import OUTCOMES
from sam_jax import plotting
from sam_jax.statistics import mean_and_stderr

METHODS_A_COLOUR = 5  # with twelve markers in turn, every method looks different
FAR = 5.0  # times the range of the middle half
CAPTION = (
    "Test accuracy and loss against the cost of the whole training, relative to {reference}: "
    "floating-point operations on the left, measured time on the right. Vertical bars: standard "
    "error over seeds; horizontal bars: quartiles of the timed rounds. The dashed line is "
    "{reference}.{outside}"
)


def figure_1(results: VariantsResults) -> ReportFigure:
    """Return four panels, accuracy and loss against gradients and against time."""
    outside = []
    figure, panels = plotting.small_multiples(4, 2, panel=(4.6, 3.4))
    costs = (("gradients", "Gradients in all"), ("time", "Time in all"))
    shown = [(outcome, cost) for outcome in OUTCOMES for cost in costs]
    for axes, (outcome, (cost, words)) in zip(panels, shown, strict=True):
        points = _points(results, outcome, cost)
        shown_points, far = _without_far_ones(points)
        outside += far
        plotting.draw_points(axes, shown_points)
        first = points[0].y
        if np.isfinite(first):
            axes.axhline(first, color=plotting.GREY, linewidth=1.0, linestyle="--", zorder=1)
        axes.margins(0.08)
        name = {"test_accuracy": "Test accuracy / %", "test_loss": "Test loss"}[outcome.quantity]
        plotting.label_axes(axes, "", f"{words} ÷ {results.arms[0].label}", name)
    plotting.shared_legend(figure, width=2.1)
    names = ", ".join(dict.fromkeys(outside))
    note = f" Too far from the others to be drawn in every panel: {names}." if names else ""
    caption = CAPTION.format(reference=results.arms[0].label, outside=note)
    return ReportFigure("Figure 1", "cost", caption, figure)


def _points(results: VariantsResults, outcome: Column, cost: str) -> list[plotting.Point]:
    looks = plotting.styles([i // METHODS_A_COLOUR for i in range(len(results.arms))])
    points = []
    for method, look in zip(results.arms, looks, strict=True):
        y = mean_and_stderr(outcome.scale * over_seeds(results, method, outcome.quantity))
        if cost == "gradients":
            x, error = total_gradients(results, method), float("nan")
        else:
            found = speed(results, method)
            x = total_time(results, method)
            error = method.times_epochs * (1 / found.low - 1 / found.high) / 2
        points.append(plotting.Point(method.label, x, y.mean, look, error, y.stderr))
    return points


def _without_far_ones(
    points: list[plotting.Point],
) -> tuple[list[plotting.Point], list[str]]:
    """Split off the labels of points far above or below the middle half of all."""
    heights = np.array([point.y for point in points])
    if not np.isfinite(heights).any():
        return points, []
    low, high = np.nanquantile(heights, (0.25, 0.75))
    reach = FAR * (high - low) or np.inf
    near = [not (p.y < low - reach or p.y > high + reach) for p in points]
    near[0] = True  # what all are compared with
    kept = [point for point, is_near in zip(points, near, strict=True) if is_near]
    return kept, [p.label for p, is_near in zip(points, near, strict=True) if not is_near]
