"""Extrapolated SGD."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_jax import pytree
from sam_jax.optim import checks
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.perturbations.common import advance, select, value_at
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Gradients, Params, ScalarOrSchedule


class ExtrapolationState(NamedTuple):
    """The number of updates so far and the gradient that the last one returned."""

    count: jax.Array
    previous: Gradients  # float32 or wider; zero before the first update


def extrap_sgd(extrapolation: ScalarOrSchedule, mask: Mask = None) -> SharpnessAwareTransformation:
    r"""Extrapolated SGD: the gradient one step of the previous gradient ahead.

    .. math::
      g_t = \nabla L_t(w_t - \hat\gamma \, g_{t-1}), \qquad g_{-1} = 0

    The point of the gradient lies where the parameters are about to go, *down* the previous
    gradient; the perturbation smooths the loss as noise does, and stabilises large steps as the
    extragradient method does. The cost is one gradient: the clean gradient that update receives is
    not used, and under jit never computed.

    Args:
      extrapolation: gamma hat, the learning rate of the look ahead, or a schedule of it.
      mask: the leaves that are extrapolated, as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is. It keeps the previous
      gradient, so `m_sam` takes it for one sub-batch only.

    Raises:
      ValueError: extrapolation is negative, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: w**2)
      >>> tx = sam_jax.extrap_sgd(extrapolation=0.25)
      >>> params = jnp.array(1.0)
      >>> first, state = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> second, _ = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
      >>> print(first, second)  # the second at 1 - 0.25 * 2
      2.0 1.0

    Source: Lin, Kong, Stich and Jaggi 2020, "Extrapolation for Large-batch Training in Deep
    Learning", with one worker.
    """
    checks.check_not_negative("extrapolation", extrapolation)

    def init(params: Params) -> ExtrapolationState:
        zeros = pytree.zeros_like(params)
        return ExtrapolationState(jnp.zeros((), jnp.int32), zeros)

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: ExtrapolationState,
        *,
        clean: Any = None,
        **_: Any,
    ) -> tuple[SharpnessAwareGradient, ExtrapolationState]:
        ahead = pytree.scale(
            select(state.previous, params, mask), -value_at(extrapolation, state.count)
        )
        new, aux = grad_fn(pytree.add(params, ahead))
        result = SharpnessAwareGradient(new, None if clean is None else clean[1], aux, ahead)
        # A gradient that is not finite would make the next one so too.
        is_finite = jnp.isfinite(pytree.norm(select(new, params, mask)))
        kept = jax.tree.map(
            lambda g, old: jnp.where(is_finite, pytree.widen(g), old).astype(old.dtype),
            new,
            state.previous,
        )
        return result, advance(state)._replace(previous=kept)

    return SharpnessAwareTransformation(init, gradient, memory="the previous gradient")
