"""Figure 5: the test loss against the asymmetry factor, and their correlation."""

from experiments.even_better.figures.common import BARS, report_figure
from experiments.even_better.figures.perturbed_loss import against_test_loss
from experiments.even_better.read.results import PRESETS, StudyResults
from experiments.even_better.tables.columns import column_setting, columns_of
from experiments.even_better.tables.correlations import correlate
from experiments.study.figures import ReportFigure
from experiments.study.formats import describe, span
from sam_jax import plotting


def figure_05(results: StudyResults) -> list[ReportFigure]:
    """Return a figure a preset, a panel for every distance; the caption has the correlations."""
    return [figure for preset in PRESETS for figure in _of_preset(results, preset)]


def _of_preset(results: StudyResults, preset: str) -> list[ReportFigure]:
    columns = columns_of(results, "asymmetry_factor", preset, "factor")
    if not columns:
        return []
    figure, panels = plotting.small_multiples(len(columns), 2, panel=(4.0, 3.4))
    texts = []
    for axes, column in zip(panels, columns, strict=True):
        row = correlate(results, column)
        against_test_loss(axes, results, column, "Asymmetry factor Ω", row.pearson)
        texts.append(
            f"{column_setting(column).capitalize()}: Pearson's {describe(row.pearson)}; "
            f"leaving out any one model, r runs from {span(row.pearson.leave_one_out)}; Spearman's "
            f"{describe(row.spearman)}."
        )
        names = [model.name for model in results.models]
        measured = [r for r in results.select(**column.where) if r["arm"] in names]
        invalid = sum(record["num_not_positive"] for record in measured)
        directions = sum(record["num_directions"] for record in measured)
        texts.append(
            f"In {invalid} of {directions} directions the loss does not rise on both sides of w*."
        )
    plotting.shared_legend(figure, below=True)
    caption = f"Test loss against the asymmetry factor. {' '.join(texts)} {BARS}"
    return [report_figure(5, preset, f"figure_5_{preset}", caption, figure)]
