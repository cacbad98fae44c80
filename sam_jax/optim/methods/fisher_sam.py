"""Fisher SAM."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Scalar, ScalarOrSchedule


def fisher_sam(
    rho: ScalarOrSchedule = 0.1, eta: Scalar = 1.0, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""Fisher SAM: the ball is an ellipsoid of the Fisher information.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon = \rho \, \frac{F^{-1} g}{\sqrt{g^\top F^{-1} g}}, \quad
      F^{-1} = \mathrm{diag}\left(\frac{1}{1 + \eta g^2}\right), \quad g = \nabla L(w)

    Parameters to which the model is sensitive move less. The diagonal of the Fisher information is
    taken to be the square of the batch gradient. The paper approximates the mean square of the
    examples' gradients by it. For eta = 0 this is SAM. The cost is two gradients.

    Args:
      rho: radius in the metric of F, the paper's gamma, or a schedule of it. No official code is
        known; third-party code takes 0.1. Where gradients are small, F is near the identity and
        SAM's radius fits.
      eta: weight of the Fisher information; third-party code takes 1.
      mask: which leaves are perturbed, as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho or eta is negative, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> tx = sam_jax.fisher_sam(rho=0.5, eta=1.0)
      >>> params = jnp.array([1.0, 2.0])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient)  # epsilon is along [1/2, 2/5]
      [1.2192645 2.1754117]

    Source: Kim et al. 2022, "Fisher SAM: Information Geometry and Sharpness Aware Minimisation".
    """
    return sharpness_aware(perturbations.fisher_ascent(rho, eta, mask))
