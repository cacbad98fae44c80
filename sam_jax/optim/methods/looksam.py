"""LookSAM: the direction of one SAM step serves the steps that follow."""

from sam_jax.optim import perturbations, schedules
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Integer, Scalar, ScalarOrSchedule


def looksam(
    rho: ScalarOrSchedule = 0.05, k: Integer = 5, alpha: Scalar = 0.2, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""LookSAM: SAM on every k-th step, whose flattening direction the steps between reuse.

    .. math::
      t = 0, k, 2k, \dots: \quad G = g_s = \nabla L(w + \epsilon), \quad
      g_v = g_s - \frac{\langle g_s, g \rangle}{\|g\|_2^2} g, \quad
      \epsilon = \rho \, \frac{g}{\|g\|_2}

    .. math::
      \text{other steps:} \quad G = g + \alpha \, \frac{\|g\|_2}{\|g_v\|_2} g_v

    Norms and the projection run over all parameters together. The cost is 1 + 1/k gradients: under
    jit the other steps do not compute the second one.

    Args:
      rho: radius of the ball, or an optax schedule of it that advances by one per update. The paper
        tunes it as for SAM, with larger values (0.1 to 1) for large batches and transformers.
      k: steps from one SAM step to the next; the paper uses 5 and 10.
      alpha: length of the reused direction relative to the gradient. The paper uses 0.7, for vision
        transformers and batches of thousands; at small batches that slows the training down, and
        0.1 to 0.3 comes close to SAM.
      mask: as in `sam`; only the perturbation is masked.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is. It keeps one copy of the
      parameters, so `m_sam` takes it with one sub-batch only.

    Raises:
      ValueError: rho or alpha is negative, k is not a positive whole number, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.looksam(rho=0.05, k=5, alpha=0.7)
      >>> params = jnp.array([1.0, -0.5])
      >>> state = tx.init(params)
      >>> for _ in range(2):  # the same parameters each time
      ...     gradient, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
      ...     print(gradient)
      [ 4.6253943 -0.518837 ]
      [4.3500004 2.3000002]

    Source: Liu et al. 2022, "Towards Efficient and Scalable Sharpness-Aware Minimization",
    algorithm 1.
    """
    return sharpness_aware(
        perturbations.ascent(rho, mask=mask),
        schedule=schedules.reusing_direction(k, alpha, rho),
        memory="the direction that the last SAM step added to the gradient",
    )
