"""A figure of a report."""

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.figure import Figure

from sam_jax import plotting

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


def save_figures(folder: pathlib.Path, figures: Iterable[ReportFigure]) -> None:
    """Write every figure as PNG and SVG to `folder/figures`."""
    for figure in figures:
        plotting.save(figure.figure, folder / "figures" / figure.stem)
