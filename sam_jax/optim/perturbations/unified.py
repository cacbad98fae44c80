"""Ascent along the gradient, normalised, unnormalised or in between."""

from typing import Any

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
from sam_jax.typing import Gradients, Params, PyTree, ScalarOrSchedule


def unified_ascent(
    rho: ScalarOrSchedule, lmbda: ScalarOrSchedule, mask: Mask = None, project: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the gradient, by a mean of its normalised and its unnormalised length.

    .. math::
      \epsilon = \rho \left(1 - \lambda + \frac{\lambda}{\|g\|_2}\right) g

    Args:
      rho: length of the normalised part and factor of the other, or a schedule of it.
      lmbda: lambda in [0, 1], or a schedule of it; 0 is unnormalised, 1 normalised.
      mask: as in `ascent`.
      project: whether an epsilon that is longer than rho is shortened to it.

    Returns:
      A transformation from the gradient to epsilon; a zero gradient gives zero.

    Raises:
      ValueError: rho is negative, or lmbda is not in [0, 1].

    Source: Oikonomou and Loizou 2025.
    """
    checks.check_not_negative("rho", rho)
    checks.check_fraction("lmbda", lmbda)

    def update(
        gradient: Gradients, state: ScheduleState, params: Params = None, **_: Any
    ) -> tuple[PyTree, ScheduleState]:
        gradient = select(gradient, params, mask)
        weight = value_at(lmbda, state.count)
        length = pytree.norm(gradient)
        factor = 1 - weight + pytree.safe_divide(weight, length)
        if project:
            factor = jnp.minimum(factor, pytree.safe_divide(1.0, length))
        return pytree.scale(gradient, value_at(rho, state.count) * factor), advance(state)

    return transformation(init_schedule, update)
