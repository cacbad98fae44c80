"""The named methods: each is an assembly of a perturbation and a pass at the perturbed point."""

from sam_jax.optim import perturbations
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation, sharpness_aware
from sam_jax.typing import Key, Scalar, ScalarOrSchedule


def sam(
    rho: ScalarOrSchedule = 0.05, norm_order: Scalar = 2.0, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""Sharpness-aware minimisation: the gradient at the worst point of a small ball.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon = \rho \, \frac{\mathrm{sign}(g) |g|^{q-1}}{(\|g\|_q^q)^{1/p}}, \quad
      g = \nabla L(w), \quad 1/p + 1/q = 1

    For p = 2 this is epsilon = rho * g / ||g||. The cost is two gradients.

    Args:
      rho: radius of the ball, or an optax schedule of it that advances by one per update.
      norm_order: p, in (1, inf].
      mask: which leaves are perturbed: booleans with the structure (or a prefix) of params, or a
        function from params to them; the norm runs over the chosen leaves.

    Returns:
      One link of an `optax.chain`, before the optimiser. Its update receives the clean gradient
      and needs `grad_fn: params -> gradients`; with a gradient of parameters and a batch that is
      `grad_fn=lambda params: gradient(params, batch)`.

    Raises:
      ValueError: rho is negative, norm_order is not in (1, inf], or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = optax.chain(sam_jax.sam(rho=0.05), optax.sgd(0.1, momentum=0.9, nesterov=True))
      >>> params = jnp.array([1.0, -0.5])
      >>> state = tx.init(params)
      >>> updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
      >>> print(optax.apply_updates(params, updates))
      [ 0.12117511 -0.40142098]

    Source: Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving
    Generalization", equations 2 and 3; google-research/sam.
    """
    return sharpness_aware(perturbations.ascent(rho, norm_order, mask))


def asam(
    rho: ScalarOrSchedule = 0.5, eta: Scalar = 0.01, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""Adaptive SAM: the ball scales with the size of each parameter.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon = \rho \, \frac{T_w^2 g}{\|T_w g\|_2}, \quad T_w = \mathrm{diag}(|w| + \eta)

    For eta = 0 the perturbed point represents the same function however the weights are rescaled
    without changing the function. Leaves whose last path name is "bias" are not rescaled. The cost
    is two gradients.

    Args:
      rho: radius in the rescaled coordinates, about ten times that of SAM, or a schedule of it.
      eta: added to |w|; the paper uses 0.01.
      mask: as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho or eta is negative, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.asam(rho=0.5, eta=0.0)
      >>> params = jnp.array([1.0, -0.5])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient)
      [13.473727  -0.5482581]

    Source: Kwon et al. 2021, "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant
    Learning of Deep Neural Networks", algorithm 1.
    """
    return sharpness_aware(perturbations.adaptive_ascent(rho, eta, mask))


def average_sam(rho: ScalarOrSchedule, key: Key, mask: Mask = None) -> SharpnessAwareTransformation:
    r"""Average SAM: the gradient at a random point of a sphere around the parameters.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon = \rho \, \frac{z}{\|z\|_2}, \quad z \sim \mathcal N(0, I)

    The direction is drawn over all parameters together, anew at every update. The cost is one
    gradient: the clean gradient that update receives is not used, and under jit never computed.

    Args:
      rho: radius of the sphere, or a schedule of it.
      key: a typed key, `jax.random.key(seed)`; it is kept in the state.
      mask: as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho is negative, or grad_fn is missing.
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
    return sharpness_aware(
        perturbations.random_on_sphere(rho, key, mask), needs_clean_gradient=False
    )
