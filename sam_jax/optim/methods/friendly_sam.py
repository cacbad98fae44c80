"""Friendly SAM."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Scalar, ScalarOrSchedule


def friendly_sam(
    rho: ScalarOrSchedule = 0.2,
    sigma: Scalar = 1.0,
    lmbda: Scalar = 0.9,
    order: perturbations.Order = "paper",
    mask: Mask = None,
) -> SharpnessAwareTransformation:
    r"""Friendly SAM: perturb along the part of the gradient that is of this batch alone.

    .. math::
      G(w_t) = \nabla L(w_t + \epsilon_t), \quad \epsilon_t = \rho \frac{d_t}{\|d_t\|_2}, \quad
      d_t = g_t - \sigma m_t, \quad m_t = \lambda m_{t-1} + (1 - \lambda) g_t, \quad
      m_0 = g_0 = \nabla L(w_0)

    The moving average m stands in for the gradient of the whole training set. For sigma = 0 this is
    SAM. The cost is two gradients; m is kept in the state, in float32 or wider.

    Args:
      rho: radius of the ball, or a schedule of it; the released command uses 0.2.
      sigma: how much of the average is taken off; the paper uses 1.
      lmbda: decay of the average; the released runs use 0.6 and 0.95, its class defaults to 0.9.
      order: "paper" as above, so that for sigma = 1 the first step has no perturbation. "code" as
        the released code: it subtracts the average of the steps before, d_t = g_t - sigma m_{t-1},
        and begins with d_0 = g_0. From the second step on, both have the same direction
        for sigma = 1.
      mask: which leaves are perturbed, as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is. `m_sam` takes it with
      one sub-batch only, because there is one average.

    Raises:
      ValueError: rho or sigma is negative, lmbda is not in [0, 1], order is unknown, or grad_fn is
        missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.friendly_sam(rho=0.05)
      >>> params = jnp.array([1.0, -0.5])
      >>> gradient, state = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient)  # the first step has nothing of its own
      [ 4.  -0.5]

    Source: Li et al. 2024, "Friendly Sharpness-Aware Minimization"; nblt/F-SAM. The first step is a
    SAM step in the released code and with order="code"; m_0 = g_0, with which order="paper" makes
    it plain, is our reading of the paper's formula.
    """
    return sharpness_aware(
        perturbations.friendly_ascent(rho, sigma, lmbda, order, mask),
        memory=perturbations.MOVING_AVERAGE,
    )
