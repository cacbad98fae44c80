"""Figure 1 of the study from the definition: a symmetric and an asymmetric minimum."""

import jax.numpy as jnp
import numpy as np

from experiments.even_better.figures.common import report_figure
from experiments.study.figures import ReportFigure
from sam_jax import metrics, plotting
from sam_jax.typing import LossFn

STEEP, FLAT = 1.0, 0.0  # curvatures of the sides
REACH = 5.0


def figure_01() -> list[ReportFigure]:
    """Draw one-dimensional losses and the factors that the instrument finds for them."""
    sides = (("symmetric", STEEP), ("in between", STEEP / 4), ("asymmetric", FLAT))
    figure, (axes,) = plotting.small_multiples(1, 1, panel=(4.8, 3.4))
    distances = np.linspace(-REACH, REACH, 201)
    lines = []
    for (name, curvature), style in zip(sides, plotting.styles(range(len(sides))), strict=True):
        loss_fn = _loss(curvature)
        factor = float(_factor(loss_fn))
        losses = metrics.loss_curve(loss_fn, jnp.zeros(1), jnp.ones(1), jnp.asarray(distances))
        label = f"{name}: Ω = {factor:g}"
        lines.append(plotting.Curve(label, distances, np.asarray(losses), style))
    # One after the other from the steepest, so that the common left side shows the first.
    plotting.curves_with_bands(axes, lines, scale="linear")
    plotting.label_axes(axes, "", "Distance μ from the minimum", "Loss")
    plotting.shared_legend(figure, width=2.2, below=True)
    return [report_figure(1, None, "figure_1", _CAPTION, figure)]


_CAPTION = (
    "The asymmetry factor of three minima that share their left side, l(μ) = μ² for μ < 0 and "
    "c μ² for μ > 0 with c = 1, 1/4 and 0, computed by the instrument at distance 5. There is "
    "nothing random in it."
)


def _loss(curvature: float) -> LossFn:
    return lambda w: jnp.sum(jnp.where(w < 0, STEEP, curvature) * w**2)


def _factor(loss_fn: LossFn) -> jnp.ndarray:
    found = metrics.asymmetry_factor(
        loss_fn, jnp.zeros(1), distance=REACH, directions=jnp.ones((1, 1))
    )
    return found.factor
