"""Perturbations: optax transformations from a gradient to an epsilon that is added to params.

Each receives the gradient as `updates` and returns epsilon, in float32 or wider, with a positive
sign (ascent). Norms run over all selected leaves together. What a perturbation keeps between steps
is in its state; `sub_batch`, an extra argument, tells apart the sub-batches of one step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import pytree
from sam_jax.optim import checks
from sam_jax.typing import Gradients, Key, Params, PyTree, Scalar, ScalarOrSchedule

Mask = PyTree | Callable[[Params], PyTree] | None


class ScheduleState(NamedTuple):
    """The number of updates so far, at which a schedule of rho is read."""

    count: jax.Array


class RandomState(NamedTuple):
    """The number of updates so far and the key that all draws derive from."""

    count: jax.Array
    key: Key


def ascent(
    rho: ScalarOrSchedule, norm_order: Scalar = 2.0, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the steepest ascent within a ball of the p-norm.

    .. math::
      \epsilon = \rho \, \frac{\mathrm{sign}(g) |g|^{q-1}}{(\|g\|_q^q)^{1/p}},
      \qquad 1/p + 1/q = 1

    Args:
      rho: radius of the ball, or a schedule of it.
      norm_order: p, in (1, inf]; 2 gives rho * g / ||g||, inf gives rho * sign(g).
      mask: which leaves are perturbed: booleans with the structure (or a prefix) of params, or a
        function from params to them. The norm runs over the chosen leaves only.

    Returns:
      A transformation from the gradient to epsilon; a zero gradient gives zero.

    Raises:
      ValueError: rho is negative, or norm_order is not in (1, inf].

    Source: Foret et al. 2021, equation 2.
    """
    checks.check_not_negative("rho", rho)
    checks.check_norm_order(norm_order)

    def update(
        gradient: Gradients, state: ScheduleState, params: Params = None, **_: Any
    ) -> tuple[PyTree, ScheduleState]:
        direction = _steepest_ascent(_select(gradient, params, mask), norm_order)
        return pytree.scale(direction, _value(rho, state.count)), _advance(state)

    return optax.GradientTransformationExtraArgs(_init_schedule, update)


def adaptive_ascent(
    rho: ScalarOrSchedule, eta: Scalar = 0.01, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb along the steepest ascent within a ball that scales with each parameter.

    .. math::
      \epsilon = \rho \, \frac{T_w^2 g}{\|T_w g\|_2}, \qquad T_w = \mathrm{diag}(|w| + \eta)

    Leaves whose last path name is "bias" are not rescaled: T_w = 1 there.

    Args:
      rho: radius of the ball in the rescaled coordinates, or a schedule of it.
      eta: added to |w| so that small weights can still move.
      mask: as in `ascent`.

    Returns:
      A transformation from the gradient to epsilon; a zero gradient gives zero.

    Raises:
      ValueError: rho or eta is negative.

    Source: Kwon et al. 2021, equation 14 with the elementwise operator of section 3.
    """
    checks.check_not_negative("rho", rho)
    checks.check_not_negative("eta", eta)

    def rescaling(path: tuple, w: jax.Array) -> jax.Array:
        if _last_name(path) == "bias":
            return jnp.ones_like(pytree.widen(w))
        return jnp.abs(pytree.widen(w)) + eta

    def update(
        gradient: Gradients, state: ScheduleState, params: Params = None, **_: Any
    ) -> tuple[PyTree, ScheduleState]:
        # Both factors are selected, for zero times an infinite or NaN weight would be NaN.
        t = _select(jax.tree.map_with_path(rescaling, params), params, mask)
        rescaled = jax.tree.map(
            lambda t, g: t * pytree.widen(g), t, _select(gradient, params, mask)
        )
        direction = jax.tree.map(jnp.multiply, t, pytree.normalise(rescaled))
        return pytree.scale(direction, _value(rho, state.count)), _advance(state)

    return optax.GradientTransformationExtraArgs(_init_schedule, update)


def random_on_sphere(
    rho: ScalarOrSchedule, key: Key, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb in a random direction, uniform on the sphere; the gradient is not used.

    .. math::
      \epsilon = \rho \, \frac{z}{\|z\|_2}, \qquad z \sim \mathcal N(0, I)

    Args:
      rho: radius of the sphere, or a schedule of it.
      key: a typed key from `jax.random.key`; it lives in the state. Every update and every
        sub-batch of an update draws anew.
      mask: as in `ascent`; z is zero on the leaves that are not chosen.

    Returns:
      A transformation that ignores its gradient and returns epsilon.

    Raises:
      ValueError: rho is negative.
      TypeError: key is not a typed key.

    Source: Foret et al. 2021, section 4; the norm is not squared, as in the released code.
    """
    checks.check_not_negative("rho", rho)
    if not pytree.is_key(key):
        raise TypeError(f"key must be a typed key such as jax.random.key(0), got {key!r}.")

    def init(params: Params) -> RandomState:
        del params
        # A copy, for a step that donates its state would delete the caller's key with it.
        return RandomState(count=jnp.zeros((), jnp.int32), key=jnp.copy(key))

    def update(
        gradient: Gradients,
        state: RandomState,
        params: Params = None,
        *,
        sub_batch: Scalar = 0,
        **_: Any,
    ) -> tuple[PyTree, RandomState]:
        del gradient
        draw = jax.random.fold_in(jax.random.fold_in(state.key, state.count), sub_batch)
        z = _select(pytree.random_like(draw, params), params, mask)
        return pytree.scale(pytree.normalise(z), _value(rho, state.count)), _advance(state)

    return optax.GradientTransformationExtraArgs(init, update)


def _init_schedule(params: Params) -> ScheduleState:
    del params
    return ScheduleState(count=jnp.zeros((), jnp.int32))


def _advance(state: Any) -> Any:
    return state._replace(count=optax.safe_increment(state.count))


def _value(rho: ScalarOrSchedule, count: jax.Array) -> Scalar:
    return rho(count) if callable(rho) else rho


def _select(tree: PyTree, params: Params, mask: Mask) -> PyTree:
    """Set to zero the leaves that the mask does not choose."""
    if mask is None:
        return tree
    chosen = mask(params) if callable(mask) else mask
    try:
        chosen = jax.tree.broadcast(chosen, tree)
    except ValueError as error:
        raise ValueError(
            "mask must hold booleans in the structure of the parameters, or of a prefix of it: "
            f"{error}"
        ) from error
    return jax.tree.map(lambda keep, x: jnp.where(keep, x, jnp.zeros_like(x)), chosen, tree)


def _last_name(path: tuple) -> str:
    """Return the name of a leaf: the last dictionary key or attribute on its path.

    Flax NNX keeps a leaf in the attribute `value` of a variable; the variable's name counts.
    """
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path[-1:], simple=True) if path else ""


def _steepest_ascent(gradient: Gradients, norm_order: Scalar) -> PyTree:
    """Return the unit vector of the p-norm that has the largest product with the gradient."""
    if not isinstance(norm_order, jax.core.Tracer) and norm_order == 2:
        return pytree.normalise(gradient)
    # The direction does not depend on the gradient's scale: dividing by the largest entry first
    # keeps the powers below from overflowing or vanishing when p is close to one.
    magnitudes = jax.tree.map(lambda g: jnp.abs(pytree.widen(g)), gradient)
    largest = jnp.max(pytree.stack(jax.tree.map(lambda a: jnp.max(a, initial=0), magnitudes)))
    magnitudes = pytree.scale(magnitudes, pytree.safe_divide(1.0, largest))
    q = 1 / (1 - 1 / norm_order)  # also right for p = inf, where p / (p - 1) would be inf / inf
    power_sum = jnp.sum(pytree.stack(jax.tree.map(lambda a: jnp.sum(a**q), magnitudes)))
    length = power_sum ** (1 / norm_order)
    return jax.tree.map(
        lambda g, a: jnp.sign(pytree.widen(g)) * a ** (q - 1) * pytree.safe_divide(1.0, length),
        gradient,
        magnitudes,
    )
