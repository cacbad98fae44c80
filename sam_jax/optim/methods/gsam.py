"""GSAM: SAM without the clean gradient's part that does not help it, and its schedule of rho."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sam_jax.optim import checks, combinations, perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.perturbations.common import value_at
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Scalar, ScalarOrSchedule


def gsam(
    rho: ScalarOrSchedule = 0.05, alpha: Scalar = 0.4, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""Surrogate-gap guided SAM: lowers the perturbed loss and its gap to the clean one together.

    .. math::
      G(w) = g_p - \alpha \left( g - \frac{\langle g, g_p \rangle}{\|g_p\|_2^2} g_p \right),
      \qquad g_p = \nabla L(w + \epsilon), \quad \epsilon = \rho \, \frac{g}{\|g\|_2}

    The subtracted term is the component of the clean gradient orthogonal to g_p. The perturbed loss
    falls as in SAM, and the clean loss rises towards it, which closes the gap. The cost is two
    gradients.

    Args:
      rho: radius of the ball, or an optax schedule of it that advances by one per update. In the
        paper it follows the learning rate, see `gsam_rho`: from 0.04 to 0.02 for a ResNet-50, from
        0.6 to between 0 and 0.2 for vision transformers.
      alpha: how much of the orthogonal component is subtracted; 0 is SAM. The paper uses 0.01 for
        a ResNet-50, and 0.4 (ViT-S/32, ViT-B/16) or 0.6 (ViT-B/32) for vision transformers.
      mask: as in `sam`; only the perturbation is masked.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho or alpha is negative, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_jax
      >>> learning_rate = optax.cosine_decay_schedule(0.1, decay_steps=100)
      >>> rho = sam_jax.gsam_rho(
      ...     learning_rate, rho_min=0.02, rho_max=0.05, learning_rate_min=0.0,
      ...     learning_rate_max=0.1,
      ... )
      >>> tx = optax.chain(sam_jax.gsam(rho, alpha=0.4), optax.sgd(learning_rate))
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> params = jnp.array([1.0, -0.5])
      >>> updates, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(updates)
      [-0.46276665  0.04985663]

    Source: Zhuang et al. 2022, "Surrogate Gap Minimization Improves Sharpness-Aware Training",
    algorithm 1 and, for rho and alpha, its appendix.
    """
    checks.check_not_negative("alpha", alpha)
    return sharpness_aware(
        perturbations.ascent(rho, mask=mask), combinations.without_orthogonal_component(alpha)
    )


def gsam_rho(
    learning_rate: ScalarOrSchedule,
    rho_min: Scalar,
    rho_max: Scalar,
    learning_rate_min: Scalar,
    learning_rate_max: Scalar,
) -> Callable[[jax.Array], jax.Array]:
    r"""Return the schedule of rho that follows the learning rate linearly.

    .. math::
      \rho_t = \rho_{\min} + (\rho_{\max} - \rho_{\min})
      \frac{\eta_t - \eta_{\min}}{\eta_{\max} - \eta_{\min}}

    Args:
      learning_rate: eta_t, the schedule that the optimiser has too; both are read at the same
        number of updates.
      rho_min: rho at the lowest learning rate.
      rho_max: rho at the highest learning rate.
      learning_rate_min: the lowest learning rate; below it, as in a warm-up, rho stays rho_min.
      learning_rate_max: the highest learning rate; above it rho stays rho_max.

    Returns:
      A schedule: number of updates -> rho.

    Raises:
      ValueError: rho_min is negative or above rho_max, or the learning rates are not in order.

    Example:
      >>> import optax, sam_jax
      >>> learning_rate = optax.linear_schedule(0.1, 0.0, transition_steps=10)
      >>> rho = sam_jax.gsam_rho(learning_rate, 0.02, 0.04, 0.0, 0.1)
      >>> print(*(round(float(rho(step)), 4) for step in (0, 5, 10)))
      0.04 0.03 0.02

    Source: Zhuang et al. 2022, section 4, whose formula goes on beyond both ends, below zero for
    its ViT-S/32 at the end of training; here rho stays between rho_min and rho_max. The schedulers
    of juntang-zhuang/GSAM read the first learning rate twice, so that rho runs one update ahead of
    the learning rate there; here both are read at the same update.
    """
    checks.check_not_negative("rho_min", rho_min)
    if checks.is_above(rho_min, rho_max):
        raise ValueError(f"rho_min must not exceed rho_max, got {rho_min} and {rho_max}.")
    if checks.is_above(learning_rate_min, learning_rate_max, or_equal=True):
        raise ValueError(
            "learning_rate_min must be below learning_rate_max, got "
            f"{learning_rate_min} and {learning_rate_max}; with a constant learning rate give gsam "
            "a constant rho."
        )

    def schedule(count: jax.Array) -> jax.Array:
        rate = value_at(learning_rate, count)
        place = (rate - learning_rate_min) / (learning_rate_max - learning_rate_min)
        return rho_min + (rho_max - rho_min) * jnp.clip(place, 0, 1)

    return schedule
