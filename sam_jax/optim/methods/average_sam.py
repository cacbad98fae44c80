"""Average SAM: random instead of adversarial perturbations."""

from typing import Literal

from sam_jax.optim import checks, perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Key, ScalarOrSchedule

Distribution = Literal["sphere", "gaussian"]
_PERTURBATIONS = {
    "sphere": perturbations.random_on_sphere,
    "gaussian": perturbations.random_gaussian,
}


def average_sam(
    rho: ScalarOrSchedule, key: Key, mask: Mask = None, distribution: Distribution = "sphere"
) -> SharpnessAwareTransformation:
    r"""Average SAM: the gradient at a random point around the parameters.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon = \rho \, \frac{z}{\|z\|_2}, \quad z \sim \mathcal N(0, I)

    The direction is drawn over all parameters together, again at every update. The cost is one
    gradient and one normal draw for every weight, on small dense nets two thirds of a gradient.
    The clean gradient that update receives is not used, and under jit never computed.

    Args:
      rho: radius of the sphere, or standard deviation of each parameter; or a schedule of it. For n
        parameters a deviation of s is about the radius s * sqrt(n). The study uses radii of 0.5 and
        1; Andriushchenko and Flammarion find the best near 14 for a ResNet-34 on CIFAR-100.
      key: a typed key, `jax.random.key(seed)`; it is kept in the state.
      mask: as in `sam`.
      distribution: "sphere" as above; "gaussian" for epsilon = rho * z, whose length varies.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho is negative, distribution is unknown, or grad_fn is missing.
      TypeError: key is not a typed key.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.average_sam(rho=0.5, key=jax.random.key(0))
      >>> params = jnp.array([1.0, -0.5])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> gradient.shape
      (2,)

    Source: Foret et al. 2021, section 4; Andriushchenko and Flammarion 2022. The study prints
    rho * z / ||z||^2; its code, and this function, divide by the norm.
    """
    checks.check_choice("distribution", distribution, tuple(_PERTURBATIONS))
    perturbation = _PERTURBATIONS[distribution](rho, key, mask)
    return sharpness_aware(perturbation, needs_clean_gradient=False)
