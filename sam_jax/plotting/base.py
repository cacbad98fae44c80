"""Building blocks of figures: points with a regression line, curves with bands, small multiples.

Only matplotlib's object-oriented interface is used, on the Agg canvas, so that nothing global
(backend, pyplot state, rcParams) changes. The colours of Okabe and Ito remain distinguishable with
colour blindness; every series also has its own marker, so that a figure can be read in grey.
"""

import pathlib
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe and Ito (2008), black first; yellow is left out because it vanishes on white.
PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")
LINES = ("-", "--", ":", "-.")
HIGHLIGHT = "#E69F00"
GREY = "#666666"
FONT_SIZE = 10.0
LOG_RATIO = 30.0  # a logarithmic axis pays off from about one and a half decades on


class Style(NamedTuple):
    """The colour, marker and line of one series, as matplotlib names them."""

    colour: str
    marker: str
    line: str


class Point(NamedTuple):
    """One labelled point in a style; an error that is not finite is not drawn."""

    label: str
    x: float  # in the units of the axes
    y: float  # likewise
    style: Style
    x_error: float = float("nan")  # half the width of its bar
    y_error: float = float("nan")  # likewise


class Curve(NamedTuple):
    """One labelled curve in a style; where `error` is finite a band of that half-width is drawn."""

    label: str
    x: np.ndarray  # shape [n]
    y: np.ndarray  # shape [n]
    style: Style
    error: np.ndarray | None = None


def styles(groups: Sequence[Hashable]) -> list[Style]:
    """Return one style a series: colour by group, line by rank in the group, marker by series.

    Args:
      groups: The group of every series, in the order of drawing.

    Returns:
      As many styles; the lists of colours, lines and markers are cycled when they run out.

    >>> [style.line for style in styles(["SGD", "SAM", "SAM"])]
    ['-', '-', '--']
    """
    order = list(dict.fromkeys(groups))
    result = []
    for index, group in enumerate(groups):
        rank = list(groups[:index]).count(group)
        result.append(
            Style(
                PALETTE[order.index(group) % len(PALETTE)],
                MARKERS[index % len(MARKERS)],
                LINES[rank % len(LINES)],
            )
        )
    return result


def suitable_scale(values: Sequence[float] | np.ndarray) -> str:
    """Return "log" or "symlog" for values that span orders of magnitude, else "linear".

    Args:
      values: Any shape; those that are not finite do not count.

    >>> suitable_scale([1.0, 2.0]), suitable_scale([0.1, 50.0]), suitable_scale([-1.0, 0.1, 90.0])
    ('linear', 'log', 'symlog')
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    sizes = np.abs(finite[finite != 0])
    if sizes.size == 0 or sizes.max() / sizes.min() <= LOG_RATIO:
        return "linear"
    return "log" if finite.min() > 0 else "symlog"


def set_scale(
    axes: Axes, axis: str, values: Sequence[float] | np.ndarray, scale: str | None = None
) -> str:
    """Give one axis a scale, ticks with plain numbers, and return the name of the scale.

    Args:
      axes: The panel.
      axis: "x" or "y".
      values: The values that the axis has to show.
      scale: "linear", "log" or "symlog"; None for the one that suits the values.

    Returns:
      The name of the scale.

    >>> _, [axes] = small_multiples(1, columns=1)
    >>> set_scale(axes, "y", [0.001, 0.1, 3.0]), axes.get_yscale()
    ('log', 'log')
    """
    scale = suitable_scale(values) if scale is None else scale
    sizes = np.abs(np.asarray(values, dtype=float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    threshold = {"linthresh": float(np.median(sizes))} if scale == "symlog" and sizes.size else {}
    (axes.set_xscale if axis == "x" else axes.set_yscale)(scale, **threshold)
    if scale == "log":
        ticks = axes.xaxis if axis == "x" else axes.yaxis
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        narrow = sizes.size > 0 and sizes.max() / sizes.min() < 2 * LOG_RATIO
        ticks.set_major_formatter(plain)
        ticks.set_minor_locator(LogLocator(subs=(2, 5) if narrow else tuple(range(2, 10))))
        ticks.set_minor_formatter(plain if narrow else NullFormatter())
    return scale


def small_multiples(
    count: int,
    columns: int,
    panel: tuple[float, float] = (3.4, 2.8),
    projection: str | None = None,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` empty panels in a grid.

    Args:
      count: Number of panels, at least 1.
      columns: Panels in a row.
      panel: Width and height of a panel in inches.
      projection: None for plane panels, "3d" for panels of surfaces.

    Returns:
      The figure, on an Agg canvas with constrained layout, and its panels row by row.

    >>> figure, panels = small_multiples(5, columns=3, panel=(3.0, 2.0))
    >>> len(panels), figure.get_size_inches().tolist()
    (5, [9.0, 4.0])
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout=layout)
    FigureCanvasAgg(figure)
    panels = [
        figure.add_subplot(rows, columns, index + 1, projection=projection)
        for index in range(count)
    ]
    return figure, panels


def label_axes(axes: Axes, title: str = "", x_label: str = "", y_label: str = "") -> None:
    """Write the texts of a panel and give it the house's light frame.

    Args:
      axes: The panel, drawn already.
      title: Its title.
      x_label: The name of the abscissa.
      y_label: The name of the ordinate.

    >>> _, [axes] = small_multiples(1, columns=1)
    >>> label_axes(axes, "Adversarial sharpness", "rho", "rise of the loss")
    >>> axes.get_title(), axes.get_xlabel(), axes.get_ylabel()
    ('Adversarial sharpness', 'rho', 'rise of the loss')
    """
    axes.set_title(title, fontsize=FONT_SIZE)
    axes.set_xlabel(x_label, fontsize=FONT_SIZE)
    axes.set_ylabel(y_label, fontsize=FONT_SIZE)
    axes.tick_params(which="both", labelsize=FONT_SIZE - 1)
    limits_of: dict[Literal["x", "y"], tuple[float, float]] = {
        "x": axes.get_xlim(),
        "y": axes.get_ylim(),
    }
    for axis, limits in limits_of.items():
        if (axes.get_xscale() if axis == "x" else axes.get_yscale()) == "linear":
            # Values that differ in a late digit have long labels, and few of these fit abreast.
            long = np.ptp(limits) < 0.03 * np.max(np.abs(limits))
            axes.locator_params(axis=axis, nbins=5 if axis == "y" else 3 if long else 4)
    axes.grid(True, color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw_points(axes: Axes, points: Sequence[Point]) -> list[Point]:
    """Draw the points that are finite, with their error bars, and return them.

    Args:
      axes: The panel.
      points: Any points; an error that is not finite has no bar.

    Returns:
      The points that were drawn.

    >>> _, [axes] = small_multiples(1, columns=1)
    >>> sgd, sam = styles(["SGD", "SAM"])
    >>> points = [Point("SGD", 0.1, 0.08, sgd, y_error=0.01), Point("SAM", 0.1, np.nan, sam)]
    >>> [point.label for point in draw_points(axes, points)]
    ['SGD']
    """
    finite = [point for point in points if np.isfinite([point.x, point.y]).all()]
    for point in finite:
        axes.errorbar(
            point.x,
            point.y,
            xerr=point.x_error if np.isfinite(point.x_error) else None,
            yerr=point.y_error if np.isfinite(point.y_error) else None,
            fmt=point.style.marker,
            color=point.style.colour,
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            elinewidth=0.9,
            label=point.label,
        )
    return finite


def scatter_with_regression(axes: Axes, points: Sequence[Point]) -> tuple[float, float] | None:
    """Draw points with error bars and, through those that are finite, the least-squares line.

    The line is fitted to the plain values also where an axis is logarithmic, on which it bends.

    Args:
      axes: The panel.
      points: The points; those that are not finite are left out.

    Returns:
      Slope and intercept of the line, or None where fewer than three points or a single
      abscissa leave it undetermined.

    >>> _, [axes] = small_multiples(1, columns=1)
    >>> [style] = styles(["SAM"])
    >>> points = [Point("SAM", x, 2 * x + 1, style) for x in (0.0, 1.0, 2.0)]
    >>> slope, intercept = scatter_with_regression(axes, points)
    >>> print(f"{slope:.2f} x + {intercept:.2f}")
    2.00 x + 1.00
    """
    finite = draw_points(axes, points)
    x, y = (np.array([getattr(point, name) for point in finite]) for name in ("x", "y"))
    set_scale(axes, "x", x, "log" if suitable_scale(x) == "log" else "linear")
    axes.margins(0.08)  # no marker on the frame
    if x.size < 3 or np.ptp(x) == 0:
        return None
    slope, intercept = np.polyfit(x, y, 1)
    grid = np.linspace(x.min(), x.max(), 200)
    axes.plot(grid, slope * grid + intercept, color=GREY, linewidth=1.2, zorder=1)
    return float(slope), float(intercept)


def curves_with_bands(
    axes: Axes, curves: Sequence[Curve], markers: int = 8, scale: str | None = None
) -> None:
    """Draw curves with bands of their errors.

    Args:
      axes: The panel.
      curves: The curves; values that are not finite leave gaps.
      markers: About how many points of a curve carry its marker; 0 for none.
      scale: Scale of the ordinate; None for the one that suits the values.

    >>> _, [axes] = small_multiples(1, columns=1)
    >>> distances, [style] = np.linspace(-1, 1, 5), styles(["SAM"])
    >>> curve = Curve("SAM", distances, 1 + distances**2, style, error=np.full(5, 0.1))
    >>> curves_with_bands(axes, [curve])
    >>> len(axes.lines), len(axes.collections), axes.get_yscale()
    (1, 1, 'linear')
    """
    for index, curve in enumerate(curves):
        # Markers of different curves start at different points, or they would hide one another.
        step = max(1, len(curve.x) // markers) if markers else 1
        axes.plot(
            curve.x,
            curve.y,
            color=curve.style.colour,
            linestyle=curve.style.line,
            linewidth=1.5,
            marker=curve.style.marker if markers else None,
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.4,
            markevery=(index % step, step),
            label=curve.label,
        )
        if curve.error is not None:
            low, high = curve.y - curve.error, curve.y + curve.error
            colour = curve.style.colour
            axes.fill_between(
                curve.x,
                low,
                high,
                facecolor=(colour, 0.15),
                edgecolor=(colour, 0.7),  # tells the bands of one colour apart
                linestyle=curve.style.line,
                linewidth=0.5,
            )
    if curves:
        set_scale(axes, "y", np.concatenate([curve.y for curve in curves]), scale)


def save(figure: Figure, path_stem: pathlib.Path | str) -> tuple[pathlib.Path, pathlib.Path]:
    """Write a figure as PNG at 150 dots an inch and as SVG.

    Args:
      figure: The figure.
      path_stem: Path without extension; missing folders are made.

    Returns:
      The paths of the PNG and of the SVG.

    >>> import tempfile
    >>> figure, _ = small_multiples(1, columns=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save(figure, f"{folder}/rho_0.5")]
    ['rho_0.5.png', 'rho_0.5.svg']
    """
    stem = pathlib.Path(path_stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    # Not with_suffix, which would cut a stem such as "rho_0.5" short.
    png, svg = (stem.parent / f"{stem.name}.{kind}" for kind in ("png", "svg"))
    engine = figure.get_layout_engine()
    if engine is not None:  # laid out once; each of the two files would do it twice again
        engine.execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(png, dpi=150)
    figure.savefig(svg, metadata={"Date": None})
    return png, svg
