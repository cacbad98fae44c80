"""From a perturbation to a sharpness-aware gradient, as a pure function and as an optax link."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from sam_jax import pytree
from sam_jax.optim import checks
from sam_jax.typing import Gradients, Params, PyTree

# params -> (gradients, auxiliary); with m-SAM (params, batch) -> (gradients, auxiliary)
AuxiliaryGradFn = Callable[..., tuple[Gradients, Any]]


class SharpnessAwareGradient(NamedTuple):
    """The gradient that the optimiser descends along, and what the passes returned besides it."""

    gradient: Gradients
    clean_aux: Any  # from the pass at w; None where the method makes no such pass
    perturbed_aux: Any  # from the pass at w + epsilon


class SharpnessAwareTransformation(optax.GradientTransformationExtraArgs):
    """An optax transformation that also offers its work as one pure function, `gradient`.

    `gradient(grad_fn, params, state, *, clean=None, **extra_args)` returns
    `(SharpnessAwareGradient, state)`. Its `grad_fn` returns `(gradients, auxiliary)`, so that a
    training step can have the loss, the accuracy or the batch statistics of either pass; `clean`
    is the `(gradients, auxiliary)` of the pass at `params` where the caller has made it already.
    `update` is that function with optax's calling convention.
    """

    def __new__(
        cls,
        init: Callable[[Params], PyTree],
        gradient: Callable[..., tuple[SharpnessAwareGradient, PyTree]],
    ) -> "SharpnessAwareTransformation":
        """Build the optax pair from `init` and `gradient`."""
        # jax.tree.map and copy rebuild a named tuple from its fields, which are init and update.
        return super().__new__(cls, init, _as_update(getattr(gradient, "gradient", gradient)))

    @property
    def gradient(self) -> Callable[..., tuple[SharpnessAwareGradient, PyTree]]:
        """The pure function that does the work."""
        return self.update.gradient


def sharpness_aware(
    perturbation: optax.GradientTransformationExtraArgs, needs_clean_gradient: bool = True
) -> SharpnessAwareTransformation:
    r"""Evaluate the gradient at the perturbed parameters.

    .. math::
      G(w) = \nabla L(w + \epsilon), \qquad \epsilon = \text{perturbation}(\nabla L(w), w)

    Args:
      perturbation: an optax transformation from the gradient to epsilon.
      needs_clean_gradient: whether the perturbation reads the gradient at w; where it does not,
        the pass at w is never made.

    Returns:
      A transformation whose state is the perturbation's.
    """

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: PyTree,
        *,
        clean: tuple[Gradients, Any] | None = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        if clean is None:
            clean = grad_fn(params) if needs_clean_gradient else (None, None)
        clean_gradient, clean_aux = clean
        if needs_clean_gradient:
            checks.check_gradients(clean_gradient, params)
        epsilon, state = perturbation.update(clean_gradient, state, params, **extra_args)
        perturbed_gradient, perturbed_aux = grad_fn(pytree.add(params, epsilon))
        checks.check_gradients(perturbed_gradient, params)
        return SharpnessAwareGradient(perturbed_gradient, clean_aux, perturbed_aux), state

    return SharpnessAwareTransformation(perturbation.init, gradient)


def _as_update(
    gradient: Callable[..., tuple[SharpnessAwareGradient, PyTree]],
) -> Callable[..., tuple[Gradients, PyTree]]:
    """Give a pure gradient function the calling convention of optax."""

    def update(
        updates: Gradients,
        state: PyTree,
        params: Params = None,
        *,
        grad_fn: Callable[..., Gradients] | None = None,
        **extra_args: Any,
    ) -> tuple[Gradients, PyTree]:
        checks.check_update_arguments(updates, params, grad_fn)

        def grad_fn_without_aux(*arguments: Any) -> tuple[Gradients, None]:
            return grad_fn(*arguments), None

        result, state = gradient(
            grad_fn_without_aux, params, state, clean=(updates, None), **extra_args
        )
        return result.gradient, state

    update.gradient = gradient
    return update
