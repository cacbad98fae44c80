"""Combinations: from the clean and the perturbed gradient to the one that is descended along.

Each is written around the difference of the two gradients, so that equal gradients give exactly the
clean one. Each returns every leaf in the dtype of the clean gradient.
"""

import jax

from sam_jax import pytree
from sam_jax.optim.assembly import Combination
from sam_jax.typing import Gradients, PyTree, Scalar


def difference(clean: Gradients, perturbed: Gradients) -> PyTree:
    """Return `perturbed - clean`, leaf by leaf in float32 or wider."""
    return jax.tree.map(lambda g, p: pytree.widen(p) - pytree.widen(g), clean, perturbed)


def orthogonal_component(tree: PyTree, axis: PyTree) -> PyTree:
    """Return `tree` without its component along `axis`, over all leaves together.

    A zero `axis` has no component to remove.
    """
    return pytree.add(tree, axis, -pytree.slope(tree, axis))


def without_orthogonal_component(alpha: Scalar) -> Combination:
    r"""Take from the perturbed gradient the part of the clean one that is orthogonal to it.

    .. math::
      G = g_p - \alpha \left(g - \frac{\langle g, g_p \rangle}{\|g_p\|^2} g_p \right)

    Args:
      alpha: how much of the orthogonal component is subtracted; 0 leaves g_p.

    Returns:
      A combination of the clean gradient g and the perturbed gradient g_p.

    Source: Zhuang et al. 2022 (GSAM), algorithm 1.
    """

    def combine(clean: Gradients, perturbed: Gradients) -> Gradients:
        # g = g_p - (g_p - g), and g_p has no component orthogonal to itself.
        orthogonal = orthogonal_component(difference(clean, perturbed), perturbed)
        return pytree.add(perturbed, orthogonal, alpha)

    return combine


def extrapolated(alpha: Scalar) -> Combination:
    r"""Go from the clean gradient towards the perturbed one, and for alpha > 1 beyond it.

    .. math::
      G = g + \alpha \, (g_p - g)

    Args:
      alpha: 0 takes the clean gradient, 1 the perturbed one.

    Returns:
      A combination of the clean gradient g and the perturbed gradient g_p.

    Source: Yue et al. 2023 (WSAM), equation 6, with alpha = gamma / (1 - gamma).
    """

    def combine(clean: Gradients, perturbed: Gradients) -> Gradients:
        return pytree.add(clean, difference(clean, perturbed), alpha)

    return combine


def rescaled(clean: Gradients, perturbed: Gradients) -> Gradients:
    r"""Return the perturbed gradient with the length of the clean one.

    .. math::
      G = \frac{\|g\|_2}{\|g_p\|_2} \, g_p

    Args:
      clean: g, the gradient at w.
      perturbed: g_p, the gradient at w + epsilon.

    Returns:
      G; zero where the perturbed gradient is zero, and exactly g where that is g.

    Source: Tan et al. 2024, algorithm 1.
    """
    factor = pytree.safe_divide(pytree.norm(clean), pytree.norm(perturbed))
    return jax.tree.map(lambda p: (factor * pytree.widen(p)).astype(p.dtype), perturbed)
