"""Ascent in a ball of its own for every layer."""

from typing import Any

import jax
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


def layerwise_ascent(
    rho: ScalarOrSchedule, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb every layer along its own gradient, in proportion to its weights.

    .. math::
      \epsilon_l = \rho \, \|w_l\|_2 \, \frac{g_l}{\|g_l\|_2}

    A layer is one leaf of the parameters. One whose weights are all zero stays.

    Args:
      rho: length of the perturbation of a layer relative to its weights, or a schedule of it.
      mask: as in `ascent`.

    Returns:
      A transformation from the gradient to epsilon; a zero gradient of a layer gives zero.

    Raises:
      ValueError: rho is negative.

    Source: Liu et al. 2022.
    """
    checks.check_not_negative("rho", rho)

    def update(
        gradient: Gradients, state: ScheduleState, params: Params = None, **_: Any
    ) -> tuple[PyTree, ScheduleState]:
        # Both factors are selected, for zero times an infinite or NaN weight would be NaN.
        direction = jax.tree.map(
            lambda w, g: pytree.norm(w) * pytree.normalise(g),
            select(params, params, mask),
            select(gradient, params, mask),
        )
        return pytree.scale(direction, value_at(rho, state.count)), advance(state)

    return transformation(init_schedule, update)
