"""How far from the parameters every pass of a step is made."""

from collections.abc import Callable
from typing import Any

import jax

from sam_jax import pytree
from sam_jax.training.losses import BatchFunctions, PassOutputs
from sam_jax.typing import Gradients, Params


def difference(at: Params, params: Params) -> Params:
    """Return epsilon of a pass: a point minus the parameters. Other leaves stay as they are."""
    return jax.tree.map(lambda w, v: w - v if pytree.is_parameter(w) else w, at, params)


def with_perturbation_norms(functions: BatchFunctions, params: Params) -> BatchFunctions:
    r"""Return functions whose passes say the norm of their perturbation.

    .. math::
      \|\epsilon\|_2, \qquad \epsilon = w_{\mathrm{pass}} - w

    m-SAM averages it over sub-batches and devices, as it does every scalar of a pass. Under jit it
    is computed for the passes whose norm is read, and for no others.

    Args:
      functions: of a training step.
      params: w, the parameters before the step.
    """

    def measured(
        gradient: Callable[..., tuple[Gradients, PassOutputs]],
    ) -> Callable[..., tuple[Gradients, PassOutputs]]:
        def grad_fn(at: Params, *args: Any, **kwargs: Any) -> tuple[Gradients, PassOutputs]:
            gradients, outputs = gradient(at, *args, **kwargs)
            moved = [x for x in jax.tree.leaves(difference(at, params)) if pytree.is_parameter(x)]
            return gradients, outputs._replace(perturbation_norm=pytree.norm(moved))

        return grad_fn

    ascent = functions.ascent_grad_fn
    return functions._replace(
        grad_fn=measured(functions.grad_fn),
        ascent_grad_fn=None if ascent is None else measured(ascent),
    )
