"""Figures of records and of landscapes, with matplotlib's object-oriented interface only."""

from sam_jax import extras

extras.needs(__name__, "lab", "matplotlib", "mpl_toolkits", "plotly")

from sam_jax.plotting.base import FONT_SIZE as FONT_SIZE
from sam_jax.plotting.base import GREY as GREY
from sam_jax.plotting.base import HIGHLIGHT as HIGHLIGHT
from sam_jax.plotting.base import LINES as LINES
from sam_jax.plotting.base import LOG_RATIO as LOG_RATIO
from sam_jax.plotting.base import MARKERS as MARKERS
from sam_jax.plotting.base import PALETTE as PALETTE
from sam_jax.plotting.base import Curve as Curve
from sam_jax.plotting.base import Point as Point
from sam_jax.plotting.base import Style as Style
from sam_jax.plotting.base import curves_with_bands as curves_with_bands
from sam_jax.plotting.base import draw_points as draw_points
from sam_jax.plotting.base import label_axes as label_axes
from sam_jax.plotting.base import save as save
from sam_jax.plotting.base import scatter_with_regression as scatter_with_regression
from sam_jax.plotting.base import set_scale as set_scale
from sam_jax.plotting.base import small_multiples as small_multiples
from sam_jax.plotting.base import styles as styles
from sam_jax.plotting.base import suitable_scale as suitable_scale
from sam_jax.plotting.landscapes import Landmark as Landmark
from sam_jax.plotting.landscapes import colour_bar as colour_bar
from sam_jax.plotting.landscapes import landscape_contours as landscape_contours
from sam_jax.plotting.landscapes import landscape_lines as landscape_lines
from sam_jax.plotting.legend import shared_legend as shared_legend
from sam_jax.plotting.shades import Shades as Shades
from sam_jax.plotting.shades import mean_plane as mean_plane
from sam_jax.plotting.shades import shades as shades
from sam_jax.plotting.shades import titled as titled
from sam_jax.plotting.surfaces import landscape_surface as landscape_surface
