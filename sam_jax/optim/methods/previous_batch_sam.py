"""SAM whose perturbation comes from the previous batch."""

from typing import Any

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Batch, Params, PyTree, Scalar, ScalarOrSchedule


def previous_batch_sam(
    rho: ScalarOrSchedule = 0.05, norm_order: Scalar = 2.0, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""SAM with the perturbation of the previous batch.

    .. math::
      G(w_t) = \nabla L_{B_t}(w_t + \epsilon_t), \qquad
      \epsilon_t = \rho \frac{g}{\|g\|_2}, \quad g = \nabla L_{B_{t-1}}(w_t)

    Ascent and descent see different examples, so that epsilon is a perturbation of the training
    loss rather than of the batch's own. The cost is two gradients: the clean gradient that update
    receives is not used, and under jit never computed.

    Args:
      rho: radius of the ball, or a schedule of it; as for SAM.
      norm_order: p of the ball's norm, in (1, inf], as in `sam`.
      mask: which leaves are perturbed, as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser. Its update needs `previous_batch` (at the
      first step the batch itself), and a grad_fn that takes it as a second argument. Without this
      argument, grad_fn stands for the step's own batch:
      `grad_fn=lambda params, batch=batch: gradient(params, batch)`. In `gradient`, clean_aux is
      None, because no pass at w sees the batch.

    Raises:
      ValueError: rho is negative, norm_order is not in (1, inf], or grad_fn or previous_batch is
        missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> loss_fn = lambda w, batch: jnp.mean((batch @ w - 1.0) ** 2)
      >>> previous, batch = jnp.array([[1.0]]), jnp.array([[2.0]])
      >>> grad_fn = lambda w, batch=batch: jax.grad(loss_fn)(w, batch)
      >>> tx = sam_jax.previous_batch_sam(rho=0.1)
      >>> w = jnp.array([0.75])
      >>> gradient, _ = tx.update(
      ...     grad_fn(w), tx.init(w), w, grad_fn=grad_fn, previous_batch=previous
      ... )
      >>> print(gradient)  # the previous batch pushes w down by 0.1, this one would push it up
      [1.1999998]

    Source: Andriushchenko and Flammarion 2022; tml-epfl/understanding-sam, whose first step takes a
    batch of zeros for the previous one.
    """
    inner = sharpness_aware(perturbations.ascent(rho, norm_order, mask))

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: PyTree,
        *,
        previous_batch: Batch = None,
        clean: Any = None,
        ascent_grad_fn: AuxiliaryGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        del clean  # of the batch of this step
        if previous_batch is None:
            raise ValueError(
                "previous_batch_sam needs the batch of the step before: call tx.update(grads, "
                "state, params, grad_fn=grad_fn, previous_batch=previous_batch), at the first step "
                "with the batch itself. It calls grad_fn(params, previous_batch)."
            )
        ascent_gradient, _ = (ascent_grad_fn or grad_fn)(params, previous_batch)
        return inner.gradient(grad_fn, params, state, clean=(ascent_gradient, None), **extra_args)

    return SharpnessAwareTransformation(inner.init, gradient)
