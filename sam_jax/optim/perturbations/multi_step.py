"""Several projected ascent steps."""

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


def multi_step_ascent(
    rho: ScalarOrSchedule,
    steps: int,
    step_size: ScalarOrSchedule | None = None,
    mask: Mask = None,
    normalised: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb by several gradient steps, each projected onto the ball.

    .. math::
      \epsilon_0 = 0, \qquad
      \epsilon_{k+1} = \Pi_\rho\left(\epsilon_k +
      \alpha \frac{\nabla L(w + \epsilon_k)}{\|\nabla L(w + \epsilon_k)\|_2}\right), \qquad
      \Pi_\rho(\epsilon) = \min\left(1, \frac{\rho}{\|\epsilon\|_2}\right) \epsilon

    Args:
      rho: radius of the ball, or a schedule of it.
      steps: number of ascent steps, at least one. Each but the first calls grad_fn, and is
        compiled on its own.
      step_size: alpha, or a schedule of it; None for rho, with which one step is `ascent`.
      mask: as in `ascent`.
      normalised: whether a step divides by the norm of its gradient, as above.

    Returns:
      A transformation from the gradient to epsilon; a zero gradient gives zero.

    Raises:
      ValueError: rho or step_size is negative, or steps is not a positive int.

    Source: Foret et al. 2021, the appendix on inner maximisation; tml-epfl/understanding-sam, whose
    step size is a multiple of rho, by default rho.
    """
    checks.check_not_negative("rho", rho)
    if step_size is not None:
        checks.check_not_negative("step_size", step_size)
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(
            f"steps must be a positive int, got {steps!r}; in optax.inject_hyperparams name it in "
            "static_args."
        )

    def update(
        gradient: Gradients,
        state: ScheduleState,
        params: Params = None,
        *,
        grad_fn: GradFn,
        **_: Any,
    ) -> tuple[PyTree, ScheduleState]:
        radius = value_at(rho, state.count)
        length = radius if step_size is None else value_at(step_size, state.count)
        epsilon = None
        for _step in range(steps):
            if epsilon is not None:
                gradient = grad_fn(pytree.add(params, epsilon))
            direction = select(gradient, params, mask)
            step = pytree.scale(pytree.normalise(direction) if normalised else direction, length)
            epsilon = step if epsilon is None else jax.tree.map(jnp.add, epsilon, step)
            epsilon = _project(epsilon, radius)
        return epsilon, advance(state)

    return transformation(init_schedule, update)


def _project(epsilon: PyTree, radius: Scalar) -> PyTree:
    """Return the nearest point of the ball."""
    length = pytree.norm(epsilon)
    inside = length <= radius
    return pytree.scale(epsilon, jnp.where(inside, 1, pytree.safe_divide(radius, length)))
