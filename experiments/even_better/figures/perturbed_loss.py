"""The test loss against a measure of every model, as Figures 3, 5 and 10 show it."""

from matplotlib.axes import Axes

from experiments.even_better.figures.common import BARS, model_styles, report_figure
from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.columns import column_means, column_setting, columns_of
from experiments.even_better.tables.correlations import pearson, test_losses
from experiments.study.figures import ReportFigure
from experiments.study.formats import counted, signed
from experiments.study.table import Column, instrument_column
from sam_jax import plotting
from sam_jax.statistics import Correlation

TRAINING = instrument_column("evaluation", "train_loss", group="", name="training loss")


def perturbed_loss_figures(
    results: StudyResults, number: int, measure: str, preset: str
) -> list[ReportFigure]:
    """Figures 3 and 10: the test loss against the perturbed loss, a panel for every setting."""
    columns = columns_of(results, measure, preset, "perturbed_loss")
    if not columns:
        return []
    if measure == "average_sharpness":  # which the study shows beside the training loss
        columns = (*columns, TRAINING)
    groups = [column.group for column in columns]
    figure, panels = plotting.small_multiples(
        len(columns), max(groups.count(group) for group in groups), panel=(2.7, 2.5)
    )
    for axes, column in zip(panels, columns, strict=True):
        x_label = "Training loss" if column == TRAINING else "Perturbed loss"
        against_test_loss(axes, results, column, x_label, pearson(results, column))
    plotting.shared_legend(figure, below=True)
    word = "adversarially" if measure == "adversarial_sharpness" else "randomly"
    caption = (
        f"Test loss against the training loss at {word} perturbed points, with least-squares "
        f"lines and Pearson's r over the models' seed means. {BARS}"
    )
    return [report_figure(number, preset, f"figure_{number}_{preset}", caption, figure)]


def against_test_loss(
    axes: Axes, results: StudyResults, column: Column, x_label: str, found: Correlation
) -> None:
    """Draw the models with their regression line; the title has Pearson's r."""
    styles = model_styles(results)
    cells, losses = column_means(results, column), test_losses(results)
    points = [
        plotting.Point(model.label, x.mean, y.mean, styles[model], x.stderr, y.stderr)
        for model, x, y in zip(results.models, cells, losses, strict=True)
    ]
    plotting.scatter_with_regression(axes, points)
    n = counted(found.n, found.of)
    plotting.label_axes(
        axes,
        f"{column_setting(column) or column.name}\nr = {signed(found.r)} (n = {n})",
        x_label,
        "Test loss",
    )
