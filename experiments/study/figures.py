"""A figure of a report, and what figures of several seeds draw."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.study.table import Cell
from sam_jax import plotting

CAP = 2.5  # half the length of the ends of an error bar, in points
PIXELS_PER_INCH = 84  # on the page; the files have more


class ReportFigure(NamedTuple):
    """A figure with the stem of its files and the words beneath it."""

    name: str  # such as "Figure 5, sound preset"
    stem: str
    caption: str
    figure: Figure
    number: int = 0  # 0 for a figure without one

    @property
    def width(self) -> int:
        """Its width on the page in pixels."""
        return round(PIXELS_PER_INCH * self.figure.get_figwidth())


def curve_over_seeds(
    label: str, x: np.ndarray, values: np.ndarray, look: plotting.Style
) -> plotting.Curve:
    """Return the mean of several curves with a band of its standard error, none for one curve.

    Args:
      label: of the curve.
      x: the abscissa, [k].
      values: a curve a seed, [seeds, k].
      look: its style.
    """
    seeds = len(values)
    stderr = values.std(axis=0, ddof=1) / np.sqrt(seeds) if seeds > 1 else None
    return plotting.Curve(label, x, values.mean(axis=0), look, stderr)


def draw_cells(
    axes: Axes, x: Sequence[float], cells: Sequence[Cell], look: plotting.Style, label: str
) -> None:
    """Draw means with bars of their standard errors, joined by a line."""
    axes.errorbar(
        x,
        [cell.mean for cell in cells],
        yerr=np.nan_to_num([cell.stderr for cell in cells]),
        color=look.colour,
        marker=look.marker,
        linestyle=look.line,
        capsize=CAP,
        label=label,
    )


def draw_reference(axes: Axes, mean: float, label: str) -> None:
    """Draw the mean that all others are compared with as a dashed line."""
    axes.axhline(mean, color=plotting.GREY, linestyle="--", linewidth=1.0, label=label)


def save_figures(folder: pathlib.Path, figures: Iterable[ReportFigure]) -> None:
    """Write every figure as PNG and SVG to `folder/figures`."""
    for figure in figures:
        plotting.save(figure.figure, folder / "figures" / figure.stem)
