"""Ascent in a ball that scales with the parameters."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from sam_jax import pytree
from sam_jax.optim import checks
from sam_jax.optim.perturbations.ascent import steepest_ascent
from sam_jax.optim.perturbations.common import (
    Mask,
    ScheduleState,
    advance,
    init_schedule,
    select,
    transformation,
    value_at,
)
from sam_jax.optim.perturbations.masks import not_biases
from sam_jax.typing import Gradients, Params, PyTree, Scalar, ScalarOrSchedule

Rescaling = Literal["element", "filter", "layer"]
Rescaled = Literal["all", "not_biases"] | Mask

# The words for masks, which an argument of optax.inject_hyperparams can be and a function cannot.
_MASKS = {"all": None, "not_biases": not_biases}


def adaptive_ascent(
    rho: ScalarOrSchedule,
    eta: Scalar = 0.01,
    mask: Mask = None,
    rescaling: Rescaling = "element",
    rescaled: Rescaled = "not_biases",
    norm_order: Scalar = 2.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the steepest ascent within a ball that scales with each parameter.

    .. math::
      \epsilon = \rho \, T_w \, \frac{\mathrm{sign}(g) |T_w g|^{q-1}}{(\|T_w g\|_q^q)^{1/p}},
      \qquad 1/p + 1/q = 1, \qquad T_w = \mathrm{diag}(|w| + \eta)

    and T_w = 1 in the leaves that are not rescaled. For p = 2 that is
    epsilon = rho T_w^2 g / ||T_w g||. The direction does not depend on the length of g, so that a
    chain of another perturbation and this one rescales that: `optax.chain(friendly_ascent(1.0),
    adaptive_ascent(rho))`.

    Args:
      rho: radius of the ball in the rescaled coordinates, or a schedule of it.
      eta: added to |w| so that small weights can still move.
      mask: as in `ascent`.
      rescaling: "element" as above. "filter" replaces |w| by the norm of its filter, for every
        weight of a convolution. "layer" replaces |w| by the norm of the leaf, for every weight.
        Convolutions are the leaves of more than two axes; the last axis counts the filters, as in
        Flax.
      rescaled: which leaves are rescaled: "not_biases" for leaves whose last path name is not
        "bias", "all", or a mask as in `ascent`, which `leaves_where` makes of a predicate.
      norm_order: p, in (1, inf]; inf gives rho * T_w * sign(g).

    Returns:
      A transformation from the gradient to epsilon; a zero gradient gives zero.

    Raises:
      ValueError: rho or eta is negative, norm_order is not in (1, inf], or rescaling or the word
        in rescaled is unknown.

    Source: Kwon et al. 2021, equation 14 with the operators of section 3.
    """
    checks.check_not_negative("rho", rho)
    checks.check_not_negative("eta", eta)
    checks.check_norm_order(norm_order)
    checks.check_choice("rescaling", rescaling, ("element", "filter", "layer"))
    if isinstance(rescaled, str):
        checks.check_choice("rescaled", rescaled, tuple(_MASKS))
        rescaled = _MASKS[rescaled]

    def update(
        gradient: Gradients, state: ScheduleState, params: Params = None, **_: Any
    ) -> tuple[PyTree, ScheduleState]:
        sizes = jax.tree.map(lambda w: _size(w, rescaling) + eta, params)
        chosen = pytree.chosen_leaves(rescaled, params, params)
        t = jax.tree.map(lambda keep, size: jnp.where(keep, size, 1), chosen, sizes)
        # Both factors are selected, for zero times an infinite or NaN weight would be NaN.
        t = select(t, params, mask)
        scaled = jax.tree.map(lambda t, g: t * pytree.widen(g), t, select(gradient, params, mask))
        direction = jax.tree.map(jnp.multiply, t, steepest_ascent(scaled, norm_order))
        return pytree.scale(direction, value_at(rho, state.count)), advance(state)

    return transformation(init_schedule, update)


def _size(w: jax.Array, rescaling: Rescaling) -> jax.Array:
    """Return the size of each weight, of the shape of the leaf or broadcast to it."""
    w = pytree.widen(w)
    if rescaling == "layer":
        return pytree.norm(w)
    if rescaling == "filter" and w.ndim > 2:
        return pytree.norms(w, axis=range(w.ndim - 1))
    return jnp.abs(w)
