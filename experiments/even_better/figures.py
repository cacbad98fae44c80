"""Figures 3, 5, 6, 7, 10 and 11 of the study, from the runs' records."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.even_better.correlations import (
    column_setting,
    correlate,
    describe,
    signed,
    span,
    test_losses,
)
from experiments.even_better.results import (
    PRESETS,
    Model,
    Results,
    number,
    select,
    settings_of,
)
from experiments.even_better.tables import SETTINGS, Column, column_means, columns_of, law
from sam_jax import plotting
from sam_jax.metrics.statistics import mean_and_stderr

BARS = "Error bars: standard error over seeds, where there are several."
BANDS = "Lines: mean over seeds; bands: standard error."


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
    groups = [column.group for column in columns]
    figure, panels = plotting.small_multiples(
        len(columns), max(groups.count(group) for group in groups), panel=(3.0, 2.6)
    )
    for axes, column in zip(panels, columns, strict=True):
        _against_test_loss(axes, results, column, "Perturbed loss")
    plotting.shared_legend(figure)
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
    figure, panels = plotting.small_multiples(len(columns), 2, panel=(4.4, 3.6))
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
    plotting.shared_legend(figure)
    caption = f"Test loss against the asymmetry factor. {' '.join(texts)} {BARS}"
    return [ReportFigure(5, preset, f"figure_5_{preset}", caption, figure)]


def curve_figures(results: Results, preset: str) -> list[ReportFigure]:
    """Figures 6 and 11: the loss along a direction, for all models together and one by one."""
    figures = []
    laws = settings_of(results, "loss_curve", preset, SETTINGS["loss_curve"])
    for setting in laws:
        pairs = zip(results.models, model_styles(results.models), strict=True)
        drawn = [(m, curve(results, m, style, preset, setting)) for m, style in pairs]
        drawn = [(model, line) for model, line in drawn if np.isfinite(line.y).any()]
        if not drawn:
            continue
        suffix = f"{preset}_{setting['distribution']}" if len(laws) > 1 else preset
        kind = f"({law(setting)} direction)"
        together, one_by_one = _curves_together(drawn), _curves_one_by_one(drawn)
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
    figure, panels = plotting.small_multiples(2, 2, panel=(5.2, 3.8))
    names = (("test_loss", "Test loss", 1.0), ("test_accuracy", "Test accuracy / %", 100.0))
    for axes, (field, y_label, unit) in zip(panels, names, strict=True):
        pairs = zip(results.all_models, model_styles(results.all_models), strict=True)
        lines = [history(results, model, style, field, unit) for model, style in pairs]
        lines = [line for line in lines if np.isfinite(line.y).any()]
        if not lines:
            return []
        loss = field == "test_loss"
        plotting.curves_with_bands(axes, lines, markers=6, scale="log" if loss else "linear")
        plotting.label_axes(axes, "", "Epoch", y_label)
        if not loss:  # the first epochs would leave no room for the differences at the end
            values = np.concatenate([line.y for line in lines])
            axes.set_ylim(bottom=np.nanpercentile(values, 10), top=100.3)
    plotting.shared_legend(figure)
    caption = (
        f"Test loss and accuracy per epoch; the lowest tenth of the accuracies is cut. {BANDS}"
    )
    return [ReportFigure(7, None, "figure_7", caption, figure)]


def model_styles(models: tuple[Model, ...]) -> list[plotting.Style]:
    """Return a style a model: one colour for every optimiser and batch."""
    return plotting.styles([(model.optimiser, model.batch) for model in models])


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


def _against_test_loss(axes: Axes, results: Results, column: Column, x_label: str) -> None:
    points = [
        plotting.Point(model.label, x.mean, y.mean, style, x.stderr, y.stderr)
        for model, style, x, y in zip(
            results.models,
            model_styles(results.models),
            column_means(results, column),
            test_losses(results),
            strict=True,
        )
    ]
    plotting.scatter_with_regression(axes, points)
    found = correlate(results, column).pearson
    plotting.label_axes(
        axes,
        f"{column_setting(column)}\nr = {signed(found.r)} (n = {found.n})",
        x_label,
        "Test loss",
    )


def _curves_together(drawn: list[tuple[Model, plotting.Curve]]) -> Figure:
    figure, (axes,) = plotting.small_multiples(1, 1, panel=(5.2, 4.0))
    plotting.curves_with_bands(axes, [line for _, line in drawn], markers=7)
    plotting.label_axes(axes, "", "Distance μ", "Training loss")
    plotting.shared_legend(figure)
    return figure


def _curves_one_by_one(drawn: list[tuple[Model, plotting.Curve]]) -> Figure:
    figure, panels = plotting.small_multiples(len(drawn), 5, panel=(2.55, 2.2))
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
        plotting.label_axes(axes, model.label, "μ", "" if index % 5 else "Training loss")
    return figure
