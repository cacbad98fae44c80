"""WSAM: the sharpness as a regulariser with a weight of its own, coupled or decoupled."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import pytree
from sam_jax.optim import checks, combinations, perturbations
from sam_jax.optim.assembly import sharpness_aware
from sam_jax.optim.methods.sam import sam
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.perturbations.common import incremented, value_at
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Gradients, Params, PyTree, Scalar, ScalarOrSchedule


class DecoupledState(NamedTuple):
    """The number of updates so far beside the states of the perturbation and the optimiser."""

    count: jax.Array
    perturbation: PyTree
    optimiser: PyTree


def wsam(
    rho: ScalarOrSchedule = 0.05, gamma: Scalar = 0.47, mask: Mask = None
) -> SharpnessAwareTransformation:
    r"""Weighted SAM, coupled: the sharpness counts gamma / (1 - gamma) times.

    .. math::
      G(w) = g + \frac{\gamma}{1 - \gamma} (g_p - g), \qquad
      g_p = \nabla L(w + \epsilon), \quad \epsilon = \rho \, \frac{g}{\|g\|_2}

    This is the gradient of L + gamma / (1 - gamma) (L_p - L), with L_p the perturbed loss. The cost
    is two gradients.

    The sharpness passes through the optimiser's momentum, as one gradient with the rest. So it
    counts 1 / (1 - momentum) times as much as in `decoupled_wsam`, whose tuning does not carry
    over.

    The penalty of the gradient norm, GNP, is this method. For a = lambda / r,
    `wsam(r, gamma=a / (1 + a))` is the gradient of L + lambda ||g||, with a finite difference for
    its second derivative.

    Args:
      rho: radius of the ball, or an optax schedule of it that advances by one per update. The paper
        keeps SAM's rho.
      gamma: weight of the sharpness, in [0, 1): 0 is no SAM, 0.5 is SAM. The paper finds 0.8 to
        0.95 best and uses 0.9, decoupled. Under a momentum of 0.9, the same weight is 0.474 here,
        hence the default; 0.9 itself leaves a small net on digits at chance.
      mask: as in `sam`.

    Returns:
      One link of an `optax.chain`, before the optimiser, used as `sam` is.

    Raises:
      ValueError: rho is negative, gamma lies outside [0, 1), or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.wsam(rho=0.05, gamma=0.9)
      >>> params = jnp.array([1.0, -0.5])
      >>> gradient, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(gradient)
      [ 9.62855   -0.6695328]

    Source: Yue et al. 2023, "Sharpness-Aware Minimization Revisited: Weighted Sharpness as a
    Regularization Term", algorithm 1 without the decoupling; intelligent-machine-learning/dlrover,
    atorch, `decouple=False`. Its `max_norm` clips g and g_p one by one before they are combined; a
    clip that follows in the chain clips the combination. Zhao, Zhang and Hu 2022, "Penalizing
    Gradient Norm for Efficiently Improving Generalization in Deep Learning", for GNP.
    """
    return sharpness_aware(
        perturbations.ascent(rho, mask=mask), combinations.extrapolated(_weight(gamma))
    )


def decoupled_wsam(
    optimiser: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule | None = None,
    rho: ScalarOrSchedule = 0.05,
    gamma: Scalar = 0.9,
    mask: Mask = None,
) -> SharpnessAwareTransformation:
    r"""Weighted SAM, decoupled: wraps the optimiser, which sees the clean gradient only.

    .. math::
      \Delta w = \mathrm{optimiser}(g) - \eta \, \frac{\gamma}{1 - \gamma} (g_p - g), \qquad
      g_p = \nabla L(w + \epsilon), \quad \epsilon = \rho \, \frac{g}{\|g\|_2}

    The sharpness of this step alone enters, because it goes past the optimiser's moving averages.
    That is why this is no link of a chain: one link hands one gradient to the next, and here the
    optimiser needs one gradient and the update another. A leaf that the optimiser does not move,
    whatever its gradient, stays. The cost is two gradients.

    Args:
      optimiser: from the clean gradient to an update, clipping and weight decay included.
      learning_rate: eta of the sharpness term, a number or the schedule that the optimiser has too;
        it has to be given.
      rho: radius of the ball, or an optax schedule of it; both schedules advance by one per update.
      gamma: weight of the sharpness, in [0, 1): 0 is the optimiser alone. The paper finds 0.8 to
        0.95 best and uses 0.9.
      mask: as in `sam`; a leaf that is not perturbed can have a sharpness term all the same.

    Returns:
      A transformation that takes the place of the optimiser: its update, like the field `gradient`
      of its pure function's result, is added to the parameters. `m_sam` takes it with one sub-batch
      only.

    Raises:
      ValueError: the optimiser is none, rho or learning_rate is negative, gamma lies outside
        [0, 1), or learning_rate or grad_fn is missing.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.decoupled_wsam(optax.adam(0.1), learning_rate=0.1, rho=0.05, gamma=0.9)
      >>> params = jnp.array([1.0, -0.5])
      >>> updates, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
      >>> print(optax.apply_updates(params, updates))
      [ 0.3371458 -0.3830474]

    Source: Yue et al. 2023, algorithm 1; intelligent-machine-learning/dlrover, atorch. Its
    `max_norm` clips g and g_p one by one; a clip inside `optimiser` clips g and leaves the
    sharpness term as it is.
    """
    example = "sam_jax.decoupled_wsam(optax.sgd(0.1), learning_rate=0.1, rho=0.05)"
    checks.check_transformation("optimiser", optimiser, example)
    if learning_rate is None:
        raise ValueError(
            "decoupled_wsam needs learning_rate, that of the optimiser, for the sharpness term "
            f"goes past the optimiser. Call for example {example}."
        )
    checks.check_not_negative("learning_rate", learning_rate)
    weight = _weight(gamma)
    perturbed = sam(rho, mask=mask)
    optimiser = optax.with_extra_args_support(optimiser)

    def init(params: Params) -> DecoupledState:
        count = jnp.zeros((), jnp.int32)
        return DecoupledState(count, perturbed.init(params), optimiser.init(params))

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: DecoupledState,
        *,
        clean: tuple[Gradients, Any] | None = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, DecoupledState]:
        clean = grad_fn(params) if clean is None else clean
        result, perturbation_state = perturbed.gradient(
            grad_fn, params, state.perturbation, clean=clean, **extra_args
        )
        updates, optimiser_state = optimiser.update(clean[0], state.optimiser, params, **extra_args)
        # The optimiser's update for the other gradient tells which leaves it freezes.
        probe, _ = optimiser.update(result.gradient, state.optimiser, params, **extra_args)
        sharpness = combinations.difference(
            *(checks.gradients_of_parameters(g, params) for g in (clean[0], result.gradient))
        )
        factor = -value_at(learning_rate, state.count) * weight
        added = jax.tree.map(_added_unless_frozen(factor), updates, probe, sharpness)
        count = incremented(state.count)
        return (
            result._replace(gradient=pytree.add(updates, added)),
            DecoupledState(count, perturbation_state, optimiser_state),
        )

    return SharpnessAwareTransformation(
        init, gradient, memory="the optimiser's state", sees_all_leaves=True
    )


def _added_unless_frozen(factor: Scalar) -> Callable[..., jax.Array | None]:
    """Return the term added to the update of a leaf: nothing where both updates are zero."""

    def added(update: jax.Array, probe: jax.Array, sharpness: jax.Array | None) -> jax.Array | None:
        if sharpness is None:
            return None
        moves = jnp.any(update != 0) | jnp.any(probe != 0)
        return jnp.where(moves, factor * sharpness, 0)

    return added


def _weight(gamma: Scalar) -> Scalar:
    checks.warn_of_rounded_decay("gamma", gamma)
    checks.check_fraction("gamma", gamma, below_one=True)
    return gamma / (1 - gamma)
