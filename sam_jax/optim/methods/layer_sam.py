"""SAM with a ball of its own for every layer."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import ScalarOrSchedule


def layer_sam(rho: ScalarOrSchedule, mask: Mask = None) -> SharpnessAwareTransformation:
    r"""Layer-wise SAM: every layer moves in proportion to its weights.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon_l = \rho \, \|w_l\|_2 \, \frac{g_l}{\|g_l\|_2}, \quad g = \nabla L(w)

    A layer is one leaf of the parameters, kernel and bias apart. A leaf whose weights are all zero,
    such as a new bias, stays. The method is meant for large batches, where the optimisers LARS and
    LAMB scale their steps in the same way. The cost is two gradients.

    Args:
      rho: length of the perturbation of a layer relative to its weights, or a schedule of it. The
        whole of it is rho * ||w||, so that rho is SAM's radius divided by the norm of the weights.
      mask: which leaves are perturbed, as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho is negative, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w["a"] ** 2) + jnp.sum(w["b"] ** 4))
      >>> tx = sam_jax.layer_sam(rho=0.5)
      >>> params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([2.0])}
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient["a"], gradient["b"])  # each layer grew by half
      [ 9. 12.] [108.]

    Source: Liu et al. 2022, "Towards Efficient and Scalable Sharpness-Aware Minimization". The norm
    of the weights is unverified: some code of others has it, and some leaves it out.
    """
    return sharpness_aware(perturbations.layerwise_ascent(rho, mask))
