"""Stable SAM."""

from sam_jax.optim import combinations, perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import ScalarOrSchedule


def stable_sam(rho: ScalarOrSchedule = 0.05, mask: Mask = None) -> SharpnessAwareTransformation:
    r"""Stable SAM: the direction of SAM's gradient with the length of the plain one.

    .. math::
      G(w) = \frac{\|g\|_2}{\|g_s\|_2} \, g_s, \qquad
      g_s = \nabla L\left(w + \rho \frac{g}{\|g\|_2}\right), \quad g = \nabla L(w)

    In a valley SAM's gradient is longer than the plain one, which limits the learning rate. This
    gradient allows the learning rate of the plain gradient. The norms run over all parameters. The
    cost is two gradients.

    Args:
      rho: radius of the ball, or a schedule of it; as for SAM.
      mask: which leaves are perturbed, as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho is negative, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.stable_sam(rho=0.05)
      >>> params = jnp.array([1.0, -0.5])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient, jnp.linalg.norm(grad_fn(params)))
      [ 4.006005  -0.4493592] 4.031129

    Source: Tan et al. 2024, "Stabilizing Sharpness-Aware Minimization Through A Simple
    Renormalization Strategy", algorithm 1.
    """
    return sharpness_aware(perturbations.ascent(rho, mask=mask), combinations.rescaled)
