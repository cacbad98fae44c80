"""What several figures share: the styles of the models, and means over seeds as curves."""

import numpy as np
from matplotlib.figure import Figure

from experiments.even_better.arms import Model
from experiments.even_better.read.results import StudyResults
from experiments.study.figures import ReportFigure
from sam_jax import plotting
from sam_jax.statistics import mean_and_stderr

BARS = "Error bars: standard error over seeds, where there are several."
BANDS = "Lines: mean over seeds; bands: standard error, where there are several."


def report_figure(
    number: int, preset: str | None, stem: str, caption: str, figure: Figure
) -> ReportFigure:
    """Return a figure under the number that the study gives it."""
    name = f"Figure {number}" + (f", {preset} preset" if preset else "")
    return ReportFigure(name, stem, caption, figure, number)


def model_styles(results: StudyResults) -> dict[Model, plotting.Style]:
    """Return the style of every model in all figures: a colour for every optimiser and batch."""
    models = results.arms
    groups = [(model.optimiser, model.batch) for model in models]
    return dict(zip(models, plotting.styles(groups), strict=True))


def averaged(
    label: str, points: list[tuple[float, float]], style: plotting.Style
) -> plotting.Curve:
    """Return the mean and the standard error of (x, y) points at every x as a curve."""
    x = sorted({x for x, _ in points})
    found = [mean_and_stderr([y for at, y in points if at == value]) for value in x]
    y, error = (np.array([getattr(f, name) for f in found]) for name in ("mean", "stderr"))
    # A loss that overflowed has no place on an axis.
    return plotting.Curve(label, np.array(x), np.where(np.isfinite(y), y, np.nan), style, error)
