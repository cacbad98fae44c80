"""Gaussian noise on the weights, added or multiplied."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Key, ScalarOrSchedule


def weight_noise(
    rho: ScalarOrSchedule,
    key: Key,
    relative: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> SharpnessAwareTransformation:
    r"""Train under Gaussian noise of the weights, absolute, in proportion to them, or both.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      w_i + \epsilon_i = (1 + \sigma z'_i) w_i + \rho z_i, \quad z_i, z'_i \sim \mathcal N(0, 1)

    The cost is one gradient and two normal draws for every weight. The clean gradient that update
    receives is not used, and under jit never computed.

    Args:
      rho: standard deviation of the noise that is added to every weight, or a schedule of it. Alone
        this is `average_sam(distribution="gaussian")`.
      key: a typed key, `jax.random.key(seed)`; it is kept in the state.
      relative: sigma, the standard deviation of the factor of every weight, or a schedule of it.
      mask: as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho or relative is negative, or grad_fn is missing.
      TypeError: key is not a typed key.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)  # the gradient is the weight itself
      >>> tx = sam_jax.weight_noise(rho=0.0, key=jax.random.key(0), relative=0.1)
      >>> params = jnp.array([0.0] + [2.0] * 10_000)
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient[0], gradient.std().round(1))  # no noise on zero
      0.0 0.2

    Source: tml-epfl/understanding-sam, `--add_weight_perturb_scale`, `--mul_weight_perturb_scale`
    with `--weight_perturb_distr=gauss`. Every sub-batch of `m_sam` draws its own noise; there all
    sub-batches of a batch share it, and beside SAM the noise is never taken off again. Its uniform
    additive noise of scale s is `smooth_out(radius=s / 2)`.
    """
    return sharpness_aware(
        perturbations.random_relative(rho, relative, key, mask), needs_clean_gradient=False
    )
