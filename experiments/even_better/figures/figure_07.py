"""Figure 7: test loss and accuracy per epoch."""

import numpy as np

from experiments.even_better.arms import Model
from experiments.even_better.figures.common import BANDS, averaged, model_styles, report_figure
from experiments.even_better.read.results import StudyResults
from experiments.study.figures import ReportFigure
from experiments.study.results import number
from sam_jax import plotting


def figure_07(results: StudyResults) -> list[ReportFigure]:
    """Figure 7: test loss and accuracy per epoch."""
    figure, panels = plotting.small_multiples(2, 2, panel=(4.1, 3.4))
    names = (("test_loss", "Test loss", 1.0), ("test_accuracy", "Test accuracy / %", 100.0))
    for axes, (field, y_label, unit) in zip(panels, names, strict=True):
        pairs = model_styles(results).items()
        lines = [history(results, model, style, field, unit) for model, style in pairs]
        lines = [line for line in lines if np.isfinite(line.y).any()]
        if not lines:
            return []
        loss = field == "test_loss"
        plotting.curves_with_bands(axes, lines, markers=6, scale="log" if loss else "linear")
        plotting.label_axes(axes, "", "Epoch", y_label)
        if not loss:  # the first epochs would leave no room for the differences at the end
            axes.set_ylim(*_range_at_the_end(lines))
    plotting.shared_legend(figure, below=True)
    caption = (
        "Test loss and accuracy per epoch; the range of the accuracies comes from the second half "
        f"of the epochs. {BANDS}"
    )
    return [report_figure(7, None, "figure_7", caption, figure)]


def history(
    results: StudyResults, model: Model, style: plotting.Style, field: str, unit: float
) -> plotting.Curve:
    """Return a quantity per epoch of a model, averaged over the seeds."""
    points = [
        (number(line["epoch"]), unit * number(line.get(field)))
        for seed in results.seeds
        for line in results.histories.get((model.name, seed), ())
    ]
    return averaged(model.label, points, style)


def _range_at_the_end(lines: list[plotting.Curve]) -> tuple[float, float]:
    """Return the range of the second halves of some curves, and a margin."""
    values = np.concatenate([line.y[len(line.y) // 2 :] for line in lines])
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.1 * (high - low) or 0.1
    return low - margin, high + margin
