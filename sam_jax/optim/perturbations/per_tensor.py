"""Ascent in a ball of its own for every leaf of the parameters."""

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
from sam_jax.typing import GradFn, Gradients, Params, PyTree, Scalar, ScalarOrSchedule


def projected_ascent(
    epsilon: ScalarOrSchedule,
    learning_rate: Scalar = 1.0,
    steps: int = 1,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Climb by gradient steps, each leaf kept in a ball of its own.

    .. math::
      \Delta_0 = 0, \qquad
      \Delta_{k+1, l} = \Pi_\epsilon\big(\Delta_{k, l} + \zeta \, \nabla_l L(w + \Delta_k)\big),
      \qquad \Pi_\epsilon(x) = \min(1, \epsilon / \|x\|_2) \, x

    Args:
      epsilon: the radius of the ball of every leaf l, or a schedule of it.
      learning_rate: zeta, the size of the ascent steps; the gradient is not normalised.
      steps: how many; each after the first evaluates a gradient.
      mask: as in `ascent`.

    Returns:
      A transformation from the gradient to Delta; a zero gradient gives zero.

    Raises:
      ValueError: epsilon or learning_rate is negative, or steps is not a positive int.

    Source: Zheng et al. 2021, algorithm 1, with the ball that its released code gives each tensor.
    """
    checks.check_not_negative("epsilon", epsilon)
    checks.check_not_negative("inner_learning_rate", learning_rate)
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"inner_steps must be a positive int, got {steps!r}.")

    def update(
        gradient: Gradients,
        state: ScheduleState,
        params: Params = None,
        *,
        grad_fn: GradFn,
        **_: Any,
    ) -> tuple[PyTree, ScheduleState]:
        radius = value_at(epsilon, state.count)

        def climb(position: PyTree, gradient: Gradients) -> PyTree:
            chosen = select(gradient, params, mask)
            moved = jax.tree.map(lambda d, g: d + learning_rate * pytree.widen(g), position, chosen)
            return jax.tree.map(lambda d: _project(d, radius), moved)

        position = climb(pytree.zeros_like(select(params, params, mask)), gradient)
        for _step in range(steps - 1):
            position = climb(position, grad_fn(pytree.add(params, position)))
        return position, advance(state)

    return transformation(init_schedule, update)


def _project(x: jax.Array, radius: Scalar) -> jax.Array:
    """Return the nearest point of the ball of a radius around zero."""
    length = pytree.norm(x)
    return jnp.where(length > radius, pytree.safe_divide(radius, length) * x, x)
