"""Ascent in a ball of the Fisher information."""

from typing import Any

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
    select,
    transformation,
    value_at,
)
from sam_jax.typing import Gradients, Params, PyTree, Scalar, ScalarOrSchedule


def fisher_ascent(
    rho: ScalarOrSchedule, eta: Scalar = 1.0, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the steepest ascent within an ellipsoid of the Fisher information.

    .. math::
      \epsilon = \rho \, \frac{F^{-1} g}{\sqrt{g^\top F^{-1} g}}, \qquad
      F^{-1} = \mathrm{diag}\left(\frac{1}{1 + \eta g^2}\right)

    The diagonal of the Fisher information is taken to be the square of the gradient that is given.

    Args:
      rho: radius in the metric, sqrt(epsilon' F epsilon), or a schedule of it.
      eta: weight of the Fisher information against the identity; 0 is the ball of `ascent`.
      mask: as in `ascent`.

    Returns:
      A transformation from the gradient to epsilon; a zero gradient gives zero.

    Raises:
      ValueError: rho or eta is negative.

    Source: Kim et al. 2022.
    """
    checks.check_not_negative("rho", rho)
    checks.check_not_negative("eta", eta)

    def shrink(x: jax.Array, g: jax.Array) -> jax.Array:
        """Multiply by the root of F^-1 for the gradient g."""
        return pytree.widen(x) / jnp.hypot(1.0, jnp.sqrt(eta) * pytree.widen(g))

    def update(
        gradient: Gradients, state: ScheduleState, params: Params = None, **_: Any
    ) -> tuple[PyTree, ScheduleState]:
        gradient = select(gradient, params, mask)
        unit = pytree.normalise(jax.tree.map(shrink, gradient, gradient))
        direction = jax.tree.map(shrink, unit, gradient)
        return pytree.scale(direction, value_at(rho, state.count)), advance(state)

    return transformation(init_schedule, update)
