"""Ascent in a ball that scales with the parameters."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from sam_jax import pytree
from sam_jax.optim import checks
from sam_jax.optim.perturbations.common import (
    Mask,
    ScheduleState,
    advance,
    init_schedule,
    last_name,
    select,
    value_at,
)
from sam_jax.typing import Gradients, Params, PyTree, Scalar, ScalarOrSchedule

Rescaling = Literal["element", "filter"]


def adaptive_ascent(
    rho: ScalarOrSchedule,
    eta: Scalar = 0.01,
    mask: Mask = None,
    rescaling: Rescaling = "element",
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the steepest ascent within a ball that scales with each parameter.

    .. math::
      \epsilon = \rho \, \frac{T_w^2 g}{\|T_w g\|_2}, \qquad T_w = \mathrm{diag}(|w| + \eta)

    Leaves whose last path name is "bias" are not rescaled: T_w = 1 there.

    Args:
      rho: radius of the ball in the rescaled coordinates, or a schedule of it.
      eta: added to |w| so that small weights can still move.
      mask: as in `ascent`.
      rescaling: "element" as above; "filter" puts the norm of its filter in place of |w| for every
        weight of a convolution. Those are the leaves of more than two axes, the last of which
        counts the filters, as in Flax.

    Returns:
      A transformation from the gradient to epsilon; a zero gradient gives zero.

    Raises:
      ValueError: rho or eta is negative, or rescaling is unknown.

    Source: Kwon et al. 2021, equation 14 with the operators of section 3.
    """
    checks.check_not_negative("rho", rho)
    checks.check_not_negative("eta", eta)
    checks.check_choice("rescaling", rescaling, ("element", "filter"))

    def operator(path: tuple, w: jax.Array) -> jax.Array:
        w = pytree.widen(w)
        if last_name(path) == "bias":
            return jnp.ones_like(w)
        if rescaling == "filter" and w.ndim > 2:
            return pytree.norms(w, axis=range(w.ndim - 1)) + eta
        return jnp.abs(w) + eta

    def update(
        gradient: Gradients, state: ScheduleState, params: Params = None, **_: Any
    ) -> tuple[PyTree, ScheduleState]:
        # Both factors are selected, for zero times an infinite or NaN weight would be NaN.
        t = select(jax.tree.map_with_path(operator, params), params, mask)
        rescaled = jax.tree.map(lambda t, g: t * pytree.widen(g), t, select(gradient, params, mask))
        direction = jax.tree.map(jnp.multiply, t, pytree.normalise(rescaled))
        return pytree.scale(direction, value_at(rho, state.count)), advance(state)

    return optax.GradientTransformationExtraArgs(init_schedule, update)
