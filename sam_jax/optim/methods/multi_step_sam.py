"""SAM with several ascent steps."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import ScalarOrSchedule


def multi_step_sam(
    rho: ScalarOrSchedule = 0.05,
    steps: int = 2,
    step_size: ScalarOrSchedule | None = None,
    mask: Mask = None,
    normalised: bool = True,
) -> SharpnessAwareTransformation:
    r"""SAM whose perturbation takes several projected ascent steps.

    .. math::
      G(w) = \nabla L(w + \epsilon_K), \qquad \epsilon_0 = 0, \quad
      \epsilon_{k+1} = \Pi_\rho\left(\epsilon_k +
      \alpha \frac{\nabla L(w + \epsilon_k)}{\|\nabla L(w + \epsilon_k)\|_2}\right)

    with the projection onto the ball of radius rho. The cost is K + 1 gradients, each compiled on
    its own.

    Args:
      rho: radius of the ball, or a schedule of it; as for SAM.
      steps: K, at least 1; the papers try up to 5 and find no gain over one.
      step_size: alpha, or a schedule of it. None takes rho, as understanding-sam does: one step is
        then SAM, and every further one turns the perturbation on the sphere.
      mask: which leaves are perturbed, as in `sam`.
      normalised: whether every step divides by the norm of its gradient, as above. Without it one
        step is `usam(rho, project=True)`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho or step_size is negative, steps is not a positive int, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.multi_step_sam(rho=0.5, steps=3)
      >>> params = jnp.array([1.0, -0.9])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient)
      [11.558139  -6.3161445]

    Source: Foret et al. 2021, the appendix on inner maximisation; tml-epfl/understanding-sam with
    `--sam_iters`, and for normalised=False `--sam_no_grad_norm`. With several sub-batches its
    unnormalised steps are as many times as short, for it divides the gradient by their number.
    """
    return sharpness_aware(perturbations.multi_step_ascent(rho, steps, step_size, mask, normalised))
