"""Adversarial weight perturbation."""

import jax

from sam_jax import pytree
from sam_jax.optim import checks, perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.transformation import SharpnessAwareTransformation
from sam_jax.typing import Params, PyTree, ScalarOrSchedule


def awp(gamma: ScalarOrSchedule = 0.01, mask: Mask = None) -> SharpnessAwareTransformation:
    r"""Adversarial weight perturbation: every kernel moves by a fraction of its own length.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad
      \epsilon_l = \gamma \, \|w_l\|_2 \, \frac{g_l}{\|g_l\|_2}, \quad g = \nabla L(w)

    for every leaf l with more than one axis; the others stay. The method is meant for adversarial
    training: L is then the loss on adversarial examples, made once for the step at w, and
    `grad_fn` is its gradient with these examples held fixed. With the plain loss it is SAM with a
    ball of its own for every layer. The cost is two gradients.

    Args:
      gamma: the length of the perturbation of a leaf relative to the leaf, or a schedule of it,
        for example zero in the first epochs. The released code uses 0.01 for adversarial training.
      mask: as in `sam`, besides the rule on axes.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: gamma is negative, or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w["kernel"] ** 4) + jnp.sum(w["bias"] ** 2))
      >>> params = {"kernel": jnp.array([[2.0, 0.0]]), "bias": jnp.array([1.0])}
      >>> tx = sam_jax.awp(gamma=0.5)
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient["kernel"], gradient["bias"])  # 4 * 3**3 of the kernel that moved to 3
      [[108.   0.]] [2.]

    Source: Wu et al. 2020, "Adversarial Weight Perturbation Helps Robust Generalization";
    csdongxian/AWP, whose direction is one step of plain SGD on a copy of the model, that is g, and
    whose gamma for TRADES is 0.005. That code steps at w + epsilon and takes epsilon off again. So
    it decays w + epsilon, and here the optimiser decays w.
    """
    checks.check_not_negative("gamma", gamma)
    return sharpness_aware(perturbations.layerwise_ascent(gamma, _kernels(mask)))


def _kernels(mask: Mask) -> Mask:
    """Return the mask of the chosen leaves that have more than one axis."""

    def chosen_kernels(params: Params) -> PyTree:
        chosen = pytree.chosen_leaves(mask, params, params)
        return jax.tree.map(lambda keep, w: keep & (w.ndim > 1), chosen, params)

    return chosen_kernels
