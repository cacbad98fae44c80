"""VaSSO: SAM along a direction of less variance."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Scalar, ScalarOrSchedule


def vasso(
    rho: ScalarOrSchedule = 0.05, theta: Scalar = 0.4, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""Variance-suppressed SAM: perturb along the moving average of gradients.

    .. math::
      G(w_t) = \nabla L(w_t + \epsilon_t), \quad \epsilon_t = \rho \frac{d_t}{\|d_t\|_2}, \quad
      d_t = (1 - \theta) d_{t-1} + \theta g_t, \quad d_0 = g_0, \quad g_t = \nabla L(w_t)

    For theta = 1 this is SAM. The cost is two gradients; d is kept in the state, in float32 or
    wider.

    Args:
      rho: radius of the ball, or a schedule of it; as for SAM.
      theta: weight of the new gradient in the average, in [0, 1]; the paper's runs use 0.4 and 0.9.
      mask: which leaves are perturbed, as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is. `m_sam` takes it with
      one sub-batch only, because there is one average.

    Raises:
      ValueError: rho is negative, theta is not in [0, 1], or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.vasso(rho=0.05, theta=0.4)
      >>> params = jnp.array([1.0, -0.5])
      >>> gradient, state = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient)  # the first step is that of SAM
      [ 4.6253943 -0.518837 ]

    Source: Li and Giannakis 2023, "Enhancing Sharpness-Aware Optimization Through Variance
    Suppression".
    """
    return sharpness_aware(
        perturbations.averaged_ascent(rho, theta, mask), memory=perturbations.MOVING_AVERAGE
    )
