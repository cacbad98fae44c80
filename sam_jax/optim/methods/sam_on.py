"""SAM on the normalisation layers only."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Scalar, ScalarOrSchedule


def sam_on(
    rho: ScalarOrSchedule, norm_order: Scalar = 2.0, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""SAM-ON: only the parameters of the normalisation layers are perturbed.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon = \rho \, \frac{g_N}{\|g_N\|_2}, \quad g = \nabla L(w)

    with g_N the gradient of the scales and shifts of the normalisation layers, zero elsewhere. The
    adaptive kind of the paper is `asam(rho, eta, mask=norm_layers)`, with `rescaled="all"` where
    shifts are rescaled too. The cost is two gradients, less the weight gradients of all other
    layers in the pass at w, which jit leaves out.

    Args:
      rho: radius of the ball over these parameters, or a schedule of it; larger than SAM's. The
        paper's example command trains a WRN-28-10 with the adaptive kind and rho = 10, biases
        rescaled.
      norm_order: p of the ball's norm, in (1, inf], as in `sam`.
      mask: which leaves belong to normalisation layers, booleans or a function of params as in
        `sam`, such as `leaves_where` makes of a predicate; None for `norm_layers`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho is negative, norm_order is not in (1, inf], grad_fn is missing, or there is no
        normalisation layer.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: (w["Dense_0"]["kernel"] * w["LayerNorm_0"]["scale"]) ** 2)
      >>> tx = sam_jax.sam_on(rho=0.5)
      >>> params = {"Dense_0": {"kernel": 1.0}, "LayerNorm_0": {"scale": 1.0}}
      >>> params = jax.tree.map(jnp.asarray, params)
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient["Dense_0"]["kernel"])  # 2 * 1 * 1.5**2
      4.5

    Source: Mueller et al. 2023, "Normalization Layers Are All That Sharpness-Aware Minimization
    Needs"; mueller-mp/SAM-ON.
    """
    mask = perturbations.norm_layers if mask is None else mask
    return sharpness_aware(perturbations.ascent(rho, norm_order, mask))
