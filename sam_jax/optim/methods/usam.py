"""SAM without the normalisation of the ascent gradient, and all between that and SAM."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import ScalarOrSchedule


def usam(
    rho: ScalarOrSchedule, mask: Mask = None, project: bool = False
) -> SharpnessAwareTransformation:
    r"""Unnormalised SAM: the perturbation is proportional to the gradient.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad \epsilon = \rho \, g, \quad g = \nabla L(w)

    The perturbation vanishes where the gradient does, unlike SAM's. Inside `m_sam` the gradient of
    a sub-batch is the gradient of its mean loss, so rho keeps its meaning for every m. The cost is
    two gradients.

    Args:
      rho: factor of the gradient, or a schedule of it. To start as SAM with a radius r does, it is
        r / ||g|| with the norm of a gradient at the start of training.
      mask: which leaves are perturbed, as in `sam`.
      project: whether an epsilon that is longer than rho is shortened to it, as the released code
        does with a gradient longer than one: epsilon = rho * g * min(1, 1 / ||g||).

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho is negative, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.usam(rho=0.25)
      >>> params = jnp.array([1.0, -0.5])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient)  # at [2, -0.625]
      [32.        -0.9765625]

    Source: Andriushchenko and Flammarion 2022, "Towards Understanding Sharpness-Aware
    Minimization"; tml-epfl/understanding-sam with `--sam_no_grad_norm` is `project=True`.
    With several sub-batches its gradient of one is divided by their number, and so is its rho in
    effect.
    """
    return sharpness_aware(perturbations.unified_ascent(rho, 0.0, mask, project))


def unified_sam(
    rho: ScalarOrSchedule = 0.1, lmbda: ScalarOrSchedule = 0.5, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""Unified SAM: a mean of normalised and unnormalised SAM.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon = \rho \left(1 - \lambda + \frac{\lambda}{\|g\|_2}\right) g, \quad g = \nabla L(w)

    For lambda = 1 this is SAM, for lambda = 0 unnormalised SAM. The paper also lets lambda run over
    the updates t = 1, 2, ...: from SAM to unnormalised SAM by 1 / t, which is
    `lmbda=lambda count: 1 / (count + 1)`, and the other way by 1 - 1 / t, which is
    `lmbda=lambda count: 1 - 1 / (count + 1)`. The cost is two gradients.

    Args:
      rho: radius of the normalised part and factor of the other, or a schedule of it; the paper's
        code uses 0.1.
      lmbda: lambda in [0, 1], or a schedule of it that advances by one per update.
      mask: which leaves are perturbed, as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho is negative, lmbda is not in [0, 1], or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2))
      >>> tx = sam_jax.unified_sam(rho=0.1, lmbda=0.5)
      >>> params = jnp.array([3.0, 4.0])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient)  # epsilon = 0.1 * (0.5 + 0.5 / 10) * [6, 8]
      [6.66 8.88]

    Source: Oikonomou and Loizou 2025, "Sharpness-Aware Minimization: General Analysis and Improved
    Rates". The schedules above divide in float32, also where parameters are float64.
    """
    return sharpness_aware(perturbations.unified_ascent(rho, lmbda, mask))
