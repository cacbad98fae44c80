"""Adaptive SAM."""

from sam_jax.optim import perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Scalar, ScalarOrSchedule


def asam(
    rho: ScalarOrSchedule = 0.5,
    eta: Scalar = 0.01,
    mask: Mask = None,
    rescaling: perturbations.Rescaling = "element",
    rescaled: perturbations.Rescaled = "not_biases",
    norm_order: Scalar = 2.0,
) -> SharpnessAwareTransformation:
    r"""Adaptive SAM: the ball scales with the size of each parameter.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon = \rho \, \frac{T_w^2 g}{\|T_w g\|_2}, \quad T_w = \mathrm{diag}(|w| + \eta)

    For eta = 0 the perturbed point represents the same function however the weights are rescaled
    without changing the function. T_w = 1 in the leaves that are not rescaled. The cost is two
    gradients.

    Args:
      rho: radius in the rescaled coordinates, about ten times SAM's, or a schedule of it; the paper
        uses 0.5 on CIFAR-10 and 1.0 on CIFAR-100.
      eta: added to |w|; the paper uses 0.01.
      mask: which leaves are perturbed, as in `sam`.
      rescaling: "element" as above. "filter" replaces |w| by the norm of its filter, for every
        weight of a convolution, and leaves the others elementwise. Convolutions are the leaves of
        more than two axes; the last axis counts the filters, as in Flax. "layer" replaces |w| by
        the norm of the leaf, for every weight.
      rescaled: which leaves are rescaled. "not_biases": all but those whose last path name is
        "bias"; "all"; or a mask as in `sam`. The biases of other libraries have other names, such
        as b and offset in Haiku: `leaves_where` makes a mask of a predicate of path and leaf.
      norm_order: p of the ball's norm, in (1, inf], as in `sam`; inf gives rho * T_w * sign(g).

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho or eta is negative, norm_order is not in (1, inf], rescaling or the word in
        rescaled is unknown, or grad_fn is missing.

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

    The released code rescales parameters with "weight" in their name and nothing else, so no
    position embedding or class token: `rescaled=leaves_where(lambda path, leaf: "weight" in path)`,
    with "kernel" in Flax. davda54/sam with `adaptive=True` is `eta=0, rescaled="all"`. GSAM and
    F-SAM with their `adaptive` put `perturbations.adaptive_ascent(rho, 0.0, rescaled="all")` into
    `sharpness_aware`, F-SAM after `perturbations.friendly_ascent(1.0)` in an `optax.chain`.
    mueller-mp/SAM-ON with `normalize_bias` is `rescaled="all"`; its `layerwise` is
    `rescaling="layer"` but for eta, which multiplies the norm by 1 + eta there.
    """
    return sharpness_aware(
        perturbations.adaptive_ascent(rho, eta, mask, rescaling, rescaled, norm_order)
    )
