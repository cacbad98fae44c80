"""Ascent along directions that remember the gradients of past steps."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import pytree
from sam_jax.optim import checks
from sam_jax.optim.perturbations.common import (
    Mask,
    advance,
    incremented,
    select,
    transformation,
    value_at,
)
from sam_jax.typing import Gradients, Params, PyTree, Scalar, ScalarOrSchedule

# The contents of the state, in the words of SharpnessAwareTransformation.memory.
MOVING_AVERAGE = "the moving average of gradients"
Order = Literal["paper", "code"]


class MemoryState(NamedTuple):
    """The number of updates so far, and the moving average of their finite gradients."""

    count: jax.Array
    taken: jax.Array  # int32, gradients in the average
    average: PyTree


def friendly_ascent(
    rho: ScalarOrSchedule,
    sigma: Scalar = 1.0,
    lmbda: Scalar = 0.9,
    order: Order = "paper",
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the difference of this batch's gradient from the moving average of gradients.

    .. math::
      m_t = \lambda m_{t-1} + (1 - \lambda) g_t, \qquad
      m_0 = g_0, \qquad
      d_t = g_t - \sigma m_t, \qquad \epsilon_t = \rho \, \frac{d_t}{\|d_t\|_2}

    Args:
      rho: radius of the ball, or a schedule of it.
      sigma: how much of the average is taken off; 0 is `ascent`.
      lmbda: decay of the average, in [0, 1].
      order: "paper" as above; "code" takes off the average of the steps before, d_t = g_t - sigma
        m_{t-1}, with d_0 = g_0.
      mask: as in `ascent`.

    Returns:
      A transformation from the gradient to epsilon; a zero d gives zero.

    Raises:
      ValueError: rho or sigma is negative, lmbda is not in [0, 1], or order is unknown.

    Source: Li et al. 2024; nblt/F-SAM.
    """
    checks.check_not_negative("rho", rho)
    checks.check_not_negative("sigma", sigma)
    checks.check_fraction("lmbda", lmbda)
    checks.warn_of_rounded_decay("lmbda", lmbda)
    checks.check_choice("order", order, ("paper", "code"))

    def update(
        gradient: Gradients, state: MemoryState, params: Params = None, **_: Any
    ) -> tuple[PyTree, MemoryState]:
        gradient = select(gradient, params, mask)
        # The average takes in the gradient itself, not the difference.
        new = _take_in(state, gradient, 1 - lmbda)
        taken_off = new.average
        if order == "code":
            taken_off = state.average  # zero before the first step
        difference = jax.tree.map(lambda g, m: pytree.widen(g) - sigma * m, gradient, taken_off)
        epsilon = pytree.scale(pytree.normalise(difference), value_at(rho, state.count))
        return epsilon, advance(new)

    return transformation(_init_average(mask), update)


def averaged_ascent(
    rho: ScalarOrSchedule, theta: Scalar = 0.4, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the moving average of gradients, whose variance is smaller.

    .. math::
      d_t = (1 - \theta) d_{t-1} + \theta g_t, \quad d_0 = g_0, \qquad
      \epsilon_t = \rho \, \frac{d_t}{\|d_t\|_2}

    Args:
      rho: radius of the ball, or a schedule of it.
      theta: weight of the new gradient, in [0, 1]; 1 is `ascent`.
      mask: as in `ascent`.

    Returns:
      A transformation from the gradient to epsilon; a zero average gives zero.

    Raises:
      ValueError: rho is negative, or theta is not in [0, 1].

    Source: Li and Giannakis 2023.
    """
    checks.check_not_negative("rho", rho)
    checks.check_fraction("theta", theta)

    def update(
        gradient: Gradients, state: MemoryState, params: Params = None, **_: Any
    ) -> tuple[PyTree, MemoryState]:
        gradient = select(gradient, params, mask)
        new = _take_in(state, gradient, theta)
        epsilon = pytree.scale(pytree.normalise(new.average), value_at(rho, state.count))
        return epsilon, advance(new)

    return transformation(_init_average(mask), update)


def _init_average(mask: Mask) -> Callable[[Params], MemoryState]:
    """Return the init of a perturbation that averages the gradients of the chosen leaves."""

    def init(params: Params) -> MemoryState:
        zeros = pytree.zeros_like(select(params, params, mask))
        return MemoryState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), zeros)

    return init


def _take_in(state: MemoryState, gradient: Gradients, weight: Scalar) -> MemoryState:
    """Return the state with the gradient in its average, which begins as the first one.

    A gradient that is not finite stays outside: it would never leave the average again.
    """
    is_first = state.taken == 0
    is_finite = jnp.isfinite(pytree.norm(gradient))

    def mean(m: jax.Array, g: jax.Array) -> jax.Array:
        g = pytree.widen(g)
        # Around the difference, so that the average of equal gradients is exactly each of them.
        mixed = jnp.where(is_first, g, m + weight * (g - m))
        return jnp.where(is_finite, mixed, m).astype(m.dtype)

    return state._replace(
        taken=jnp.where(is_finite, incremented(state.taken), state.taken),
        average=jax.tree.map(mean, state.average, gradient),
    )
