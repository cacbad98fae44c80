"""Loss landscapes as surfaces, in the colours of the contours of the same plane."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from mpl_toolkits.mplot3d import Axes3D

from sam_jax.metrics.landscape.grids import LossPlane
from sam_jax.plotting import base
from sam_jax.plotting.shades import COLOUR_MAP, Shades, grid_of, shades, short, titled


def landscape_surface(
    axes: Axes,
    plane: LossPlane,
    *,
    quantity: str | None = None,
    clip: float | None = None,
    scale: Shades | None = None,
    title: str = "",
    x_label: str = "x",
    y_label: str = "y",
    value_label: str = "Loss",
) -> None:
    """Draw a plane as a surface over its grid, in the colours of its contours.

    Where the contours are logarithmic, so is the height. The surface is cut off flat at the highest
    level; values that are not finite are left out.

    Args:
      axes: a panel of `small_multiples(..., projection="3d")`.
      plane: from `loss_plane`; its `batch_norm` is written below the title.
      quantity: the field of `plane.values` to draw; None where the values are one array.
      clip: the highest level; None for the largest value.
      scale: the levels and colours of several panels, from `shades`; None for the levels and
        colours of `plane`.
      title: the title of the panel.
      x_label: the name of the first direction.
      y_label: the name of the second direction.
      value_label: the name of the values.

    >>> import jax.numpy as jnp
    >>> from sam_jax.metrics import loss_plane
    >>> x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> grid = np.linspace(-1, 1, 5)
    >>> plane = loss_plane(lambda w: jnp.sum(w**2), jnp.zeros(2), x, y, grid, grid)

    >>> _, [axes] = base.small_multiples(1, columns=1, projection="3d")
    >>> landscape_surface(axes, plane, title="A bowl")
    >>> axes.get_title(), len(axes.collections)
    ('A bowl', 1)
    """
    assert isinstance(axes, Axes3D), 'a surface needs a panel with projection="3d"'
    xs, ys, values = grid_of(plane, quantity)
    shared = scale is not None
    scale = scale if shared else shades(values, clip)
    if scale is not None and min(values.shape) > 1:
        logarithmic = isinstance(scale.norm, LogNorm)
        heights = _heights(values, scale)
        # A facet has the colour of the mean height of its four corners.
        middle = (heights[1:, 1:] + heights[:-1, 1:] + heights[1:, :-1] + heights[:-1, :-1]) / 4
        middle = 10**middle if logarithmic else middle
        colours = matplotlib.colormaps[COLOUR_MAP](scale.norm(np.nan_to_num(middle, nan=1.0)))
        # The artist asks for a colour a corner and reads the colour of the first corner of a facet.
        colours = np.pad(colours, ((0, 1), (0, 1), (0, 0)), mode="edge")
        x, y = np.meshgrid(xs, ys)
        axes.plot_surface(x, y, heights, facecolors=colours, rstride=1, cstride=1, shade=False,
                          linewidth=0.2, edgecolor="white", antialiased=True)  # fmt: skip
        if shared:  # panels of one scale have one height too
            ends = scale.levels[[0, -1]]
            axes.set_zlim(*(np.log10(ends) if logarithmic else ends))
        if logarithmic:
            low, high = np.log10(scale.levels[[0, -1]])
            decades = np.arange(np.ceil(low - 1e-9), np.floor(high + 1e-9) + 1)
            axes.zaxis.set_major_locator(FixedLocator(decades))
            axes.zaxis.set_major_formatter(FuncFormatter(lambda power, _: short(10**power)))
    axes.set_title(titled(title, [plane.batch_norm]), fontsize=base.FONT_SIZE)
    axes.set_xlabel(x_label, fontsize=base.FONT_SIZE)
    axes.set_ylabel(y_label, fontsize=base.FONT_SIZE)
    axes.set_zlabel(value_label, fontsize=base.FONT_SIZE)
    axes.tick_params(labelsize=base.FONT_SIZE - 2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.view_init(elev=35, azim=-60)


def _heights(values: np.ndarray, scale: Shades) -> np.ndarray:
    clipped = np.where(np.isfinite(values), values, np.nan)
    clipped = np.clip(clipped, scale.levels[0], scale.levels[-1])
    return np.log10(clipped) if isinstance(scale.norm, LogNorm) else clipped
