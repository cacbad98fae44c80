"""SAM in the late phase of training."""

from sam_jax.optim import perturbations, schedules
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Integer, ScalarOrSchedule


def late_phase_sam(
    rho: ScalarOrSchedule = 0.05, *, start: Integer, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""SAM from one step of training on, the clean gradient before it.

    .. math::
      G_t(w) = \nabla L(w + \epsilon) \text{ for } t \ge \mathrm{start},
      \quad \text{else } \nabla L(w), \qquad \epsilon = \rho \, \frac{g}{\|g\|_2}

    The cost is one gradient before `start` and two from there on.

    Args:
      rho: radius of the ball, or an optax schedule of it that advances by one per update from the
        beginning of training.
      start: the first step with a perturbation, counted from 0. A few epochs at the end already
        find minima as flat as SAM all along; the last 30 % of training is a safe choice.
      mask: as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho is negative, start is negative or not whole, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.late_phase_sam(rho=0.05, start=1)
      >>> params = jnp.array([1.0, -0.5])
      >>> state = tx.init(params)
      >>> for _ in range(2):  # the same parameters each time
      ...     gradient, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
      ...     print(gradient)
      [ 4.  -0.5]
      [ 4.6253943 -0.518837 ]

    Source: Andriushchenko and Flammarion 2022, section 3, who switch between SGD and SAM during
    training; Zhou et al. 2024, "Sharpness-Aware Minimization Efficiently Selects Flatter Minima
    Late in Training".
    """
    return sharpness_aware(
        perturbations.ascent(rho, mask=mask), schedule=schedules.from_step(start)
    )
