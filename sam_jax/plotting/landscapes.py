"""Contours of loss landscapes, and lines with their spread over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullLocator

from sam_jax.metrics.landscape.grids import LossLine, LossPlane
from sam_jax.plotting import base
from sam_jax.plotting.shades import (
    COLOUR_MAP,
    Shades,
    grid_of,
    level_texts,
    shades,
    titled,
    values_of,
)

UNDEFINED = "not finite"


class Landmark(NamedTuple):
    """A labelled model, or another point of a plane."""

    label: str
    x: float  # in the coordinates of the plane
    y: float  # likewise


def landscape_contours(
    axes: Axes,
    plane: LossPlane,
    *,
    landmarks: Sequence[Landmark] = (),
    path: np.ndarray | None = None,
    seeds: Sequence[tuple[LossPlane, float]] = (),
    quantity: str | None = None,
    clip: float | None = None,
    scale: Shades | None = None,
    bar: bool = True,
    title: str = "",
    x_label: str = "x",
    y_label: str = "y",
    value_label: str = "Loss",
) -> QuadContourSet | None:
    """Draw filled contours of a plane with lines, a colour bar, models and a path.

    Cells with a corner that is not finite are hatched.

    Args:
      axes: the panel, of a figure from `small_multiples`.
      plane: from `loss_plane`; its `batch_norm` is written below the title.
      landmarks: the models to mark and to name.
      path: a trajectory or a curve, shape [n, 2], in the coordinates of the plane.
      seeds: further planes, such as those whose mean is `plane`, with the value that a dashed line
        is drawn at in each.
      quantity: the field of `plane.values` to draw, such as "accuracy"; None where the values
        are one array.
      clip: the highest level; None for the largest value.
      scale: the levels and colours of several panels, from `shades`; None for the levels and
        colours of `plane`.
      bar: whether to draw a colour bar; one is enough for panels of one scale.
      title: the title of the panel.
      x_label: the name of the first direction.
      y_label: the name of the second direction.
      value_label: the name of the values, for the colour bar.

    Returns:
      The filled contours; None where no value is finite, or the grid has a single row or column.

    >>> import jax.numpy as jnp
    >>> from sam_jax.metrics import loss_plane
    >>> x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> grid = np.linspace(-1, 1, 5)
    >>> plane = loss_plane(lambda w: jnp.sum(w**2), jnp.zeros(2), x, y, grid, grid)

    >>> _, [axes] = base.small_multiples(1, columns=1)
    >>> filled = landscape_contours(axes, plane, landmarks=[Landmark("minimum", 0.0, 0.0)])
    >>> filled.levels[[0, -1]].tolist()
    [0.0, 2.0]
    """
    xs, ys, values = grid_of(plane, quantity)
    scale = shades(values, clip) if scale is None else scale
    if not np.isfinite(values).all():
        corner, width, height = (xs.min(), ys.min()), np.ptp(xs), np.ptp(ys)
        hatched = Rectangle(corner, width, height, **_HATCH, zorder=0.5)
        axes.add_patch(hatched)
    filled = None
    if scale is not None and np.isfinite(values).any() and min(values.shape) > 1:
        shown = np.ma.masked_invalid(values)
        filled = axes.contourf(xs, ys, shown, scale.levels, cmap=COLOUR_MAP, norm=scale.norm,
                               extend=scale.extend)  # fmt: skip
        lines = axes.contour(xs, ys, shown, scale.levels, colors="white", linewidths=0.6)
        levels = np.asarray(lines.levels)
        texts = dict(zip(levels, level_texts(levels), strict=True))
        names = axes.clabel(lines, levels[1::3], fmt=texts, colors="black",
                            fontsize=base.FONT_SIZE - 3, zorder=2.5)  # fmt: skip
        for name in names:
            name.set_path_effects(_outline(1.5))
        if bar:
            colour_bar([axes], filled, scale, value_label)
    for seed, level in seeds:
        axes.contour(*grid_of(seed, quantity), [level], colors="black", linewidths=1.0,
                     linestyles="dashed")  # fmt: skip
    if path is not None:
        path = np.asarray(path, dtype=float)
        axes.plot(path[:, 0], path[:, 1], color="black", linewidth=1.3, marker=".", markersize=5,
                  path_effects=_outline(1.3 + 1.6), zorder=3)  # fmt: skip
    for number, mark in enumerate(landmarks):
        mean = float(np.mean([other.y for other in landmarks]))
        below = mark.y < mean  # off the lines between them
        _draw_landmark(axes, mark, base.MARKERS[number % len(base.MARKERS)], below)
    base.label_axes(axes, titled(title, [plane.batch_norm]), x_label, y_label)
    axes.grid(False)
    if not np.isfinite(values).all():
        axes.legend(handles=[Patch(**_HATCH, label=UNDEFINED)], fontsize=base.FONT_SIZE - 2,
                    loc="upper right", framealpha=0.9)  # fmt: skip
    return filled


def colour_bar(
    panels: Sequence[Axes],
    filled: QuadContourSet,
    scale: Shades,
    value_label: str,
    location: str = "right",
) -> None:
    """Draw a colour bar beside panels that share a scale, with plain numbers at every other level.

    Args:
      panels: the panels.
      filled: the contours of any of them.
      scale: the levels and colours that they were drawn with.
      value_label: the name of the values.
      location: where the bar goes, "right" or "bottom".

    >>> import jax.numpy as jnp
    >>> from sam_jax.metrics import loss_plane
    >>> x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> grid = np.linspace(-1, 1, 5)
    >>> plane = loss_plane(lambda w: jnp.sum(w**2), jnp.zeros(2), x, y, grid, grid)

    >>> figure, panels = base.small_multiples(2, columns=2)
    >>> scale = shades(plane.values)
    >>> for axes in panels:
    ...     filled = landscape_contours(axes, plane, scale=scale, bar=False)
    >>> colour_bar(panels, filled, scale, "training loss")
    >>> figure.axes[-1].get_ylabel()
    'training loss'
    """
    side = "rowspan" if location == "right" else "colspan"
    long = len({getattr(axes.get_subplotspec(), side) for axes in panels}) > 1
    bar = panels[0].figure.colorbar(
        filled, ax=list(panels), location=location, aspect=50 if long else 20
    )
    bar.set_label(value_label, fontsize=base.FONT_SIZE)
    named = scale.levels[::2]
    bar.set_ticks(list(named), labels=level_texts(named))
    axis = bar.ax.yaxis if location == "right" else bar.ax.xaxis
    axis.set_minor_locator(NullLocator())
    bar.ax.tick_params(labelsize=base.FONT_SIZE - 2)


def landscape_lines(
    axes: Axes,
    lines: Mapping[str, Sequence[LossLine]],
    *,
    quantity: str | None = None,
    title: str = "",
    x_label: str = "Distance",
    value_label: str = "Loss",
    scale: str | None = None,
) -> None:
    """Draw the mean of several seeds along a line, with a band of their standard deviation.

    Args:
      axes: the panel, of a figure from `small_multiples`.
      lines: label -> the lines of all seeds, at the same distances. A single one has no band;
        a distance where a seed is not finite leaves a gap.
      quantity: the field of the values to draw; None where the values are one array.
      title: the title of the panel; the lines' `batch_norm` is written below it.
      x_label: the name of the distances.
      value_label: the name of the values.
      scale: "linear" or "log"; None for the one that suits the values.

    Raises:
      ValueError: seeds at different distances, or lines of different `batch_norm`, which are
        not comparable.

    >>> distances = np.linspace(-1, 1, 5)
    >>> seeds = [LossLine(a * distances**2 + 0.1, distances) for a in (1.0, 1.5)]
    >>> _, [axes] = base.small_multiples(1, columns=1)
    >>> landscape_lines(axes, {"SAM": seeds}, title="Mean of two seeds")
    >>> axes.lines[0].get_ydata().round(2).tolist()
    [1.35, 0.41, 0.1, 0.41, 1.35]
    """
    policies = {line.batch_norm for seeds in lines.values() for line in seeds}
    if len(policies) > 1:
        raise ValueError(
            f"Lines of different batch_norm are not comparable, got {sorted(map(str, policies))}. "
            "Draw them in panels of their own."
        )
    curves = []
    for (label, seeds), style in zip(lines.items(), base.styles(list(lines)), strict=True):
        distances = np.asarray(seeds[0].distances, dtype=float)
        if any(not np.array_equal(distances, line.distances) for line in seeds):
            raise ValueError(f"The lines of {label!r} must be at the same distances.")
        values = np.stack([values_of(line, quantity) for line in seeds])
        values = np.where(np.isfinite(values).all(axis=0), values, np.nan)
        spread = values.std(axis=0, ddof=1) if len(seeds) > 1 else None
        curves.append(base.Curve(label, distances, values.mean(axis=0), style, spread))
    base.curves_with_bands(axes, curves, scale=scale)
    base.label_axes(axes, titled(title, policies), x_label, value_label)


_HATCH = {"facecolor": "white", "edgecolor": base.GREY, "hatch": "////", "linewidth": 0.0}
# Names of models hide the labels of contours, which are dense around models.
_LABEL_BOX = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}


def _outline(width: float) -> list[patheffects.AbstractPathEffect]:
    return [patheffects.Stroke(linewidth=width, foreground="white"), patheffects.Normal()]


def _draw_landmark(axes: Axes, mark: Landmark, marker: str, below: bool) -> None:
    axes.plot(mark.x, mark.y, linestyle="none", marker=marker, color="black", markersize=8,
              markeredgecolor="white", label=mark.label, zorder=4)  # fmt: skip
    inwards = -1 if mark.x > np.mean(axes.get_xlim()) else 1  # no label beyond the panel
    axes.annotate(mark.label, (mark.x, mark.y), xytext=(6 * inwards, -8 if below else 8),
                  textcoords="offset points", ha="left" if inwards > 0 else "right",
                  va="top" if below else "bottom",
                  fontsize=base.FONT_SIZE - 1, bbox=_LABEL_BOX, zorder=5)  # fmt: skip
