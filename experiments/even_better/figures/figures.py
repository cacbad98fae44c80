"""Figures 3, 5, 6, 7, 10 and 11 of the study, from the runs' records."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.even_better.arms import Model
from experiments.even_better.read.results import PRESETS, Results, number, select, settings_of
from experiments.even_better.tables.correlations import column_setting, correlate, test_losses
from experiments.even_better.tables.tables import SETTINGS, Column, column_means, columns_of, law
from experiments.study.formats import describe, signed, span
from sam_jax import metrics, plotting
from sam_jax.metrics.statistics import correlation, mean_and_stderr

BARS = "Error bars: standard error over seeds, where there are several."
BANDS = "Lines: mean over seeds; bands: standard error, where there are several."
TRAINING = Column("", "training loss", "train_loss", {"measure": "evaluation"})


class ReportFigure(NamedTuple):
    """A figure with the stem of its files and the words beneath it."""

    number: int
    preset: str | None
    stem: str
    caption: str
    figure: Figure


def all_figures(results: Results) -> list[ReportFigure]:
    """Return every figure that has something to show, the sound preset before the published."""
    figures = training_figures(results)
    for preset in PRESETS:
        figures += perturbed_loss_figures(results, 3, "adversarial_sharpness", preset)
        figures += asymmetry_figures(results, preset)
        figures += curve_figures(results, preset)
        figures += perturbed_loss_figures(results, 10, "average_sharpness", preset)
    return figures


def perturbed_loss_figures(
    results: Results, number: int, measure: str, preset: str
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
        _against_test_loss(axes, results, column, x_label)
    plotting.shared_legend(figure, below=True)
    word = "adversarially" if measure == "adversarial_sharpness" else "randomly"
    caption = (
        f"Test loss against the training loss at {word} perturbed points, with least-squares "
        f"lines and Pearson's r over the models' seed means. {BARS}"
    )
    return [ReportFigure(number, preset, f"figure_{number}_{preset}", caption, figure)]


def asymmetry_figures(results: Results, preset: str) -> list[ReportFigure]:
    """Figure 5: the test loss against the asymmetry factor."""
    columns = columns_of(results, "asymmetry_factor", preset, "factor")
    if not columns:
        return []
    figure, panels = plotting.small_multiples(len(columns), 2, panel=(4.0, 3.4))
    texts = []
    for axes, column in zip(panels, columns, strict=True):
        _against_test_loss(axes, results, column, "Asymmetry factor Ω")
        row = correlate(results, column)
        texts.append(
            f"{column_setting(column).capitalize()}: Pearson's {describe(row.pearson)}; "
            f"leaving out any one model, r runs from {span(row.pearson.leave_one_out)}; Spearman's "
            f"{describe(row.spearman)}."
        )
        names = [model.name for model in results.models]
        measured = [r for r in select(results, **column.where) if r["model"] in names]
        invalid = sum(record["num_not_positive"] for record in measured)
        directions = sum(record["num_directions"] for record in measured)
        texts.append(
            f"In {invalid} of {directions} directions the loss does not rise on both sides of w*."
        )
    plotting.shared_legend(figure, below=True)
    caption = f"Test loss against the asymmetry factor. {' '.join(texts)} {BARS}"
    return [ReportFigure(5, preset, f"figure_5_{preset}", caption, figure)]


def curve_figures(results: Results, preset: str) -> list[ReportFigure]:
    """Figures 6 and 11: the loss along a direction, for all models together and one by one."""
    figures = []
    laws = settings_of(results, "loss_curve", preset, SETTINGS["loss_curve"])
    for setting in laws:
        styles = model_styles(results)
        drawn = [(m, curve(results, m, styles[m], preset, setting)) for m in results.models]
        drawn = [(model, line) for model, line in drawn if np.isfinite(line.y).any()]
        if not drawn:
            continue
        suffix = f"{preset}_{setting['distribution']}" if len(laws) > 1 else preset
        kind = f"({law(setting)} direction)"
        together, one_by_one = _curves_together(drawn, preset), _curves_one_by_one(drawn, preset)
        figures += [
            ReportFigure(
                6,
                preset,
                f"figure_6_{suffix}",
                f"Training loss at distance μ from the minimum {kind}. {BANDS}",
                together,
            ),
            ReportFigure(
                11,
                preset,
                f"figure_11_{suffix}",
                f"The curves of Figure 6 one by one {kind}: filled, the minimum w* that training "
                f"found; hollow, the lowest point of the curve. The ranges differ. {BANDS}",
                one_by_one,
            ),
        ]
    return sorted(figures, key=lambda figure: figure.number)


def training_figures(results: Results) -> list[ReportFigure]:
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
        "Test loss and accuracy per epoch; the range of the accuracies is that of the second half "
        f"of the epochs. {BANDS}"
    )
    return [ReportFigure(7, None, "figure_7", caption, figure)]


def model_styles(results: Results) -> dict[Model, plotting.Style]:
    """Return the style of every model in all figures: a colour for every optimiser and batch."""
    models = results.all_models
    groups = [(model.optimiser, model.batch) for model in models]
    return dict(zip(models, plotting.styles(groups), strict=True))


def curve(
    results: Results, model: Model, style: plotting.Style, preset: str, setting: dict[str, str]
) -> plotting.Curve:
    """Return the loss curve of a model, averaged over the seeds at every distance."""
    records = select(results, model=model.name, measure="loss_curve", preset=preset, **setting)
    points = [
        (number(distance), number(loss))
        for record in records
        for distance, loss in zip(record["distances"], record["losses"], strict=True)
    ]
    return averaged(model.label, points, style)


def history(
    results: Results, model: Model, style: plotting.Style, field: str, unit: float
) -> plotting.Curve:
    """Return a quantity per epoch of a model, averaged over the seeds."""
    points = [
        (number(line["epoch"]), unit * number(line.get(field)))
        for seed in results.seeds
        for line in results.histories.get((model.name, seed), ())
    ]
    return averaged(model.label, points, style)


def averaged(
    label: str, points: list[tuple[float, float]], style: plotting.Style
) -> plotting.Curve:
    """Return the mean and the standard error of (x, y) points at every x as a curve."""
    x = sorted({x for x, _ in points})
    found = [mean_and_stderr([y for at, y in points if at == value]) for value in x]
    y, error = (np.array([getattr(f, name) for f in found]) for name in ("mean", "stderr"))
    # A loss that overflowed has no place on an axis.
    return plotting.Curve(label, np.array(x), np.where(np.isfinite(y), y, np.nan), style, error)


def _range_at_the_end(lines: list[plotting.Curve]) -> tuple[float, float]:
    """Return the range of the second halves of some curves, and a margin."""
    values = np.concatenate([line.y[len(line.y) // 2 :] for line in lines])
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.1 * (high - low) or 0.1
    return low - margin, high + margin


def _against_test_loss(axes: Axes, results: Results, column: Column, x_label: str) -> None:
    styles = model_styles(results)
    cells, losses = column_means(results, column), test_losses(results)
    points = [
        plotting.Point(model.label, x.mean, y.mean, styles[model], x.stderr, y.stderr)
        for model, x, y in zip(results.models, cells, losses, strict=True)
    ]
    plotting.scatter_with_regression(axes, points)
    means = [cell.mean for cell in cells], [cell.mean for cell in losses]
    found = correlation(*means, resamples=1)
    plotting.label_axes(
        axes,
        f"{column_setting(column) or column.name}\nr = {signed(found.r)} (n = {found.n})",
        x_label,
        "Test loss",
    )


def _curves_together(drawn: list[tuple[Model, plotting.Curve]], preset: str) -> Figure:
    figure, (axes,) = plotting.small_multiples(1, 1, panel=(5.6, 4.0))
    plotting.curves_with_bands(axes, [line for _, line in drawn], markers=7)
    plotting.label_axes(axes, _policy(preset), "Distance μ", "Training loss")
    plotting.shared_legend(figure, below=True)
    return figure


def _curves_one_by_one(drawn: list[tuple[Model, plotting.Curve]], preset: str) -> Figure:
    columns = 4
    figure, panels = plotting.small_multiples(len(drawn), columns, panel=(2.1, 2.0))
    scale = plotting.suitable_scale(np.concatenate([line.y for _, line in drawn]))
    for index, (axes, (model, line)) in enumerate(zip(panels, drawn, strict=True)):
        plotting.curves_with_bands(axes, [line], markers=0, scale=scale)
        lowest = int(np.nanargmin(line.y))
        axes.plot(
            *(line.x[lowest], line.y[lowest]), "o", markersize=9, markeredgecolor="black",
            markerfacecolor="none",
        )  # fmt: skip
        (centre,) = np.nonzero(line.x == 0)
        axes.plot(*(line.x[centre], line.y[centre]), "o", markersize=6, color=plotting.HIGHLIGHT)
        plotting.label_axes(axes, model.label, "μ", "" if index % columns else "Training loss")
    figure.suptitle(_policy(preset), fontsize=plotting.FONT_SIZE)
    return figure


def _policy(preset: str) -> str:
    return plotting.titled("", [metrics.PRESETS[preset].curve.batch_norm])
