"""SAM where the gradient is large."""

from sam_jax.optim import perturbations, schedules
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Scalar, ScalarOrSchedule


def ae_sam(
    rho: ScalarOrSchedule = 0.05,
    threshold: ScalarOrSchedule = 0.0,
    decay: Scalar = 0.9,
    mask: Mask = None,
) -> SharpnessAwareTransformation:
    r"""AE-SAM, an adaptive policy: SAM where the gradient is large, else the clean gradient.

    .. math::
      G_t(w) = \begin{cases}
      \nabla L(w + \epsilon) & \text{if } \|g_t\|^2 \ge \mu_t + c_t \sigma_t \\
      g_t & \text{else} \end{cases}, \qquad \epsilon = \rho \, \frac{g_t}{\|g_t\|_2}

    .. math::
      \mu_t = \delta \mu_{t-1} + (1 - \delta) \|g_t\|^2, \qquad
      \sigma_t^2 = \delta \sigma_{t-1}^2 + (1 - \delta) (\|g_t\|^2 - \mu_t)^2

    The averages start from the first gradient. The cost is one gradient and the fraction of steps
    that pass the threshold: under jit the others do not compute the second gradient.

    Args:
      rho: radius of the ball, or an optax schedule of it that advances by one per update. The paper
        keeps SAM's rho.
      threshold: c_t, or a schedule of it: large values make SAM steps rare, and very negative ones
        make all steps SAM steps. The paper lets it run linearly from lambda_2 to lambda_1, with
        more SAM steps late in training: `optax.linear_schedule(1.0, -1.0, steps)`.
      decay: delta of the moving averages, in [0, 1].
      mask: as in `sam`; only the perturbation is masked, and the norms above run over all leaves.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is. `m_sam` takes it with
      one sub-batch only, because it decides on the gradient of the whole batch.

    Raises:
      ValueError: rho is negative, decay lies outside [0, 1], or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.ae_sam(rho=0.05, threshold=1.0)
      >>> state = tx.init(jnp.array([1.0]))
      >>> for w in (1.0, 0.9, 1.1):  # the last gradient is the largest so far
      ...     params = jnp.array([w])
      ...     _, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
      ...     print(int(state.passes))  # steps so far that were SAM steps
      1
      1
      2

    Source: Jiang et al. 2023, "An Adaptive Policy to Employ Sharpness-Aware Minimization",
    algorithm 1. Where the averages start there is unverified; from zero, other steps would be SAM
    steps.
    """
    return sharpness_aware(
        perturbations.ascent(rho, mask=mask),
        schedule=schedules.on_large_gradients(threshold, decay),
        memory="the mean and the variance of the squared gradient norms",
    )
