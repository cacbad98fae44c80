"""Ascent along the gradient, in a ball of any p-norm."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import pytree
from sam_jax.known import known
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


def ascent(
    rho: ScalarOrSchedule, norm_order: Scalar = 2.0, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the steepest ascent within a ball of the p-norm.

    .. math::
      \epsilon = \rho \, \frac{\mathrm{sign}(g) |g|^{q-1}}{(\|g\|_q^q)^{1/p}},
      \qquad 1/p + 1/q = 1

    Args:
      rho: radius of the ball, or a schedule of it.
      norm_order: p, in (1, inf]; 2 gives rho * g / ||g||, inf gives rho * sign(g).
      mask: which leaves are perturbed: booleans with the structure (or a prefix) of params, or a
        function from params to them. The norm runs over the chosen leaves only.

    Returns:
      A transformation from the gradient to epsilon; a zero gradient gives zero.

    Raises:
      ValueError: rho is negative, or norm_order is not in (1, inf].

    Source: Foret et al. 2021, equation 2.
    """
    checks.check_not_negative("rho", rho)
    checks.check_norm_order(norm_order)

    def update(
        gradient: Gradients, state: ScheduleState, params: Params = None, **_: Any
    ) -> tuple[PyTree, ScheduleState]:
        direction = steepest_ascent(select(gradient, params, mask), norm_order)
        return pytree.scale(direction, value_at(rho, state.count)), advance(state)

    return transformation(init_schedule, update)


def steepest_ascent(gradient: Gradients, norm_order: Scalar) -> PyTree:
    """Return the unit vector of the p-norm that has the largest product with the gradient."""
    if known(norm_order) == 2:
        return pytree.normalise(gradient)
    # The direction does not depend on the gradient's scale: dividing by the largest entry first
    # keeps the powers below from overflowing or vanishing when p is close to one.
    gradient = pytree.scale(gradient, pytree.safe_divide(1.0, pytree.largest(gradient)))
    magnitudes = jax.tree.map(jnp.abs, gradient)
    q = 1 / (1 - 1 / norm_order)  # also right for p = inf, where p / (p - 1) would be inf / inf
    power_sum = jnp.sum(pytree.stack(jax.tree.map(lambda a: jnp.sum(a**q), magnitudes)))
    length = power_sum ** (1 / norm_order)
    return jax.tree.map(
        lambda g, a: jnp.sign(g) * a ** (q - 1) * pytree.safe_divide(1.0, length),
        gradient,
        magnitudes,
    )
