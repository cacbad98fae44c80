"""Adversarial model perturbation."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Scalar, ScalarOrSchedule


def amp(
    epsilon: ScalarOrSchedule = 0.5,
    inner_learning_rate: Scalar = 1.0,
    inner_steps: int = 1,
    mask: Mask = None,
) -> SharpnessAwareTransformation:
    r"""Adversarial model perturbation: gradient ascent, each leaf within a ball of its own.

    .. math::
      G(w) = \nabla L(w + \Delta_K), \qquad \Delta_0 = 0, \qquad
      \Delta_{k+1, l} = \Pi_\epsilon\big(\Delta_{k, l} + \zeta \, \nabla_l L(w + \Delta_k)\big)

    with the projection Pi onto the ball of radius epsilon. Unlike SAM the ascent step is not
    normalised: where zeta ||g_l|| is below epsilon the perturbation is zeta g_l, and shrinks with
    the gradient. The cost is K + 1 gradients.

    Args:
      epsilon: the radius of the ball of every leaf l, or a schedule of it; the released code
        uses 0.5.
      inner_learning_rate: zeta.
      inner_steps: K.
      mask: as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: epsilon or inner_learning_rate is negative, inner_steps is not a positive int, or
        grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.amp(epsilon=0.5)
      >>> params = jnp.array([1.0, 0.0])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient)  # 4 * 1.5**3
      [13.5  0. ]

    Source: Zheng, Zhang and Mao 2021, "Regularizing Neural Networks via Adversarial Model
    Perturbation", algorithm 1; hiyouga/AMP-Regularizer, which has a ball for each tensor.
    """
    return sharpness_aware(
        perturbations.projected_ascent(epsilon, inner_learning_rate, inner_steps, mask)
    )
