"""Momentum SAM: the optimiser's momentum takes the place of the ascent gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import pytree
from sam_jax.optim import checks
from sam_jax.optim.perturbations import Mask
from sam_jax.optim.perturbations.common import incremented, select, value_at
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Params, PyTree, ScalarOrSchedule

# The states of optax that hold a momentum buffer, and its name there.
BUFFERS = {optax.TraceState: "trace", optax.ScaleByAdamState: "mu"}


class MomentumSamState(NamedTuple):
    """The number of updates so far and the state of the optimiser."""

    count: jax.Array
    optimiser: PyTree


def momentum_sam(
    optimiser: optax.GradientTransformation,
    rho: ScalarOrSchedule | None = None,
    mask: Mask = None,
) -> SharpnessAwareTransformation:
    r"""Momentum SAM: wraps the optimiser and perturbs against its momentum, for one gradient.

    .. math::
      \Delta w = \mathrm{optimiser}\big(\nabla L(w + \epsilon)\big), \qquad
      \epsilon = -\rho \, \frac{v}{\|v\|_2}

    with v the momentum buffer before the step: the running sum of gradients of SGD, or the first
    moment of Adam. The optimiser has just moved along the negative of v, the direction of descent,
    and overshot. So the loss of the next batch tends to rise there. On the first step v and epsilon
    are zero. A leaf without momentum in the optimiser, such as a frozen one, is not perturbed. The
    cost is one gradient: the clean gradient that update receives is not used, and under jit never
    computed. This is no link of a chain because it reads the optimiser's state.

    Args:
      optimiser: an optax optimiser with one momentum buffer, such as
        `optax.sgd(0.1, momentum=0.9)`, `optax.adamw(1e-3)` or a chain that ends in one. Weight
        decay in it acts on the parameters that are not perturbed.
      rho: radius of the ball, or an optax schedule of it that advances by one per update. It is
        larger than SAM's: the authors train a WRN-16-4 on CIFAR-100 with rho = 3, and vision
        transformers with rho = 10 after eight epochs without perturbation. It has to be given.
      mask: as in `sam`.

    Returns:
      A transformation that takes the place of the optimiser: its update, like the field `gradient`
      of its pure function's result, is added to the parameters. `m_sam` takes it with one sub-batch
      only. Evaluate at the parameters as they are: they are not the perturbed ones.

    Raises:
      ValueError: the optimiser is none, rho is negative, rho or grad_fn is missing, or the
        optimiser's state does not hold exactly one momentum buffer for all parameters.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.momentum_sam(optax.sgd(0.1, momentum=0.9), rho=0.05)
      >>> params = jnp.array([1.0, -0.5])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
      ...     params = optax.apply_updates(params, updates)
      >>> print(params)
      [ 0.17330977 -0.37003633]

    Source: Becker et al. 2024, "Momentum-SAM: Sharpness Aware Minimization without Computational
    Overhead", algorithm 1. The authors' SGD adds the weight decay of the perturbed parameters, as
    an L2 term in the loss of `grad_fn` does. Their AdamW decays after the step.
    """
    example = "sam_jax.momentum_sam(optax.sgd(0.1, momentum=0.9), rho=0.3)"
    checks.check_transformation("optimiser", optimiser, example)
    if rho is None:
        raise ValueError(
            "momentum_sam needs rho, the radius: rho must be a number or a schedule, got None. "
            f"Call for example {example}."
        )
    checks.check_not_negative("rho", rho)
    optimiser = optax.with_extra_args_support(optimiser)

    def init(params: Params) -> MomentumSamState:
        state = optimiser.init(params)
        _momentum(state, params)  # so that an optimiser without a buffer is refused at once
        return MomentumSamState(jnp.zeros((), jnp.int32), state)

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: MomentumSamState,
        *,
        clean: Any = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, MomentumSamState]:
        del clean  # nothing reads the gradient at w
        descent = pytree.normalise(select(_momentum(state.optimiser, params), params, mask))
        epsilon = pytree.scale(descent, -value_at(rho, state.count))
        perturbed_gradient, perturbed_aux = grad_fn(pytree.add(params, epsilon))
        checks.gradients_of_parameters(perturbed_gradient, params)
        updates, optimiser_state = optimiser.update(
            perturbed_gradient, state.optimiser, params, **extra_args
        )
        new_state = MomentumSamState(incremented(state.count), optimiser_state)
        return SharpnessAwareGradient(updates, None, perturbed_aux, epsilon), new_state

    return SharpnessAwareTransformation(
        init, gradient, memory="the optimiser's momentum", sees_all_leaves=True
    )


def _momentum(optimiser_state: PyTree, params: Params) -> PyTree:
    """Return the one momentum buffer in the state of an optimiser, None where it keeps none."""

    def is_buffer(node: Any) -> bool:
        return isinstance(node, tuple(BUFFERS))

    nodes = filter(is_buffer, jax.tree.leaves(optimiser_state, is_leaf=is_buffer))
    buffers = [getattr(node, BUFFERS[type(node)]) for node in nodes]
    if len(buffers) != 1:
        raise ValueError(
            "momentum_sam needs an optimiser with exactly one momentum buffer, the trace of "
            "optax.sgd(learning_rate, momentum=0.9) or the first moment of optax.adam and its "
            f"kin, but the state holds {len(buffers)}."
        )
    # optax puts one MaskedNode in the place of a whole subtree.
    momentum = jax.tree.broadcast(buffers[0], params, is_leaf=checks.is_masked)
    fits = jax.tree.map(
        lambda w, v: checks.is_masked(v) or np.shape(v) == np.shape(w), params, momentum
    )
    if not all(jax.tree.leaves(fits)):
        raise ValueError(
            "momentum_sam needs a momentum in the structure of the parameters, but the optimiser "
            f"keeps {jax.tree.structure(buffers[0])}, as inside optax.flatten."
        )
    return jax.tree.map(lambda _, v: v if pytree.is_parameter(v) else None, params, momentum)
