"""The form of every method: a pure function and an optax link made of it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from sam_jax import pytree
from sam_jax.optim import checks, states
from sam_jax.typing import Gradients, Params, PyTree

# params -> (gradients, auxiliary); with m-SAM (params, batch) -> (gradients, auxiliary)
AuxiliaryGradFn = Callable[..., tuple[Gradients, Any]]
# Extra arguments that are functions of the parameters (and of the batch, with m-SAM), as grad_fn
# is; methods that need more than gradients ask for them.
PARAMETER_FUNCTIONS = ("losses_fn", "logits_fn")
# The same for those that return gradients as grad_fn does: where it is given, `ascent_grad_fn`
# returns the gradient that makes epsilon, and grad_fn all that is descended along.
GRADIENT_FUNCTIONS = ("ascent_grad_fn",)


class SharpnessAwareGradient(NamedTuple):
    """The gradient that the optimiser descends along, and the other results of the passes."""

    gradient: Gradients
    clean_aux: Any  # from the pass at w; None where the method makes no such pass
    perturbed_aux: Any  # from the pass at w + epsilon; where a step makes none, from that at w
    # Float32 or wider, zero on a step without a perturbation. None where no one point is perturbed
    # to: several noisy copies or inner steps, a term of the loss, the sub-batches of m_sam.
    epsilon: Any = None


# gradient(grad_fn, params, state, *, clean, **extra_args), as SharpnessAwareTransformation says
PureGradient = Callable[..., tuple[SharpnessAwareGradient, PyTree]]


class SharpnessAwareTransformation(optax.GradientTransformationExtraArgs):
    """An optax transformation that also offers its work as one pure function, `gradient`.

    `gradient(grad_fn, params, state, *, clean=None, **extra_args)` returns
    `(SharpnessAwareGradient, state)`. Its `grad_fn` returns `(gradients, auxiliary)`, so that a
    training step can have the loss, the accuracy or the batch statistics of either pass; `clean`
    is the `(gradients, auxiliary)` of the pass at `params` where the caller has made it already.
    `update` is that function with optax's calling convention.

    The optional keyword `ascent_grad_fn` returns what grad_fn returns, but with the gradient that
    makes epsilon. It is for losses whose descent has another gradient than their own, such as
    Shake-Shake's. It makes epsilon and nothing else: combinations, schedules and steps without a
    perturbation read grad_fn. Methods without an ascent at this step's parameters ignore it.

    A method sees the parameters alone, arrays of floating-point or complex numbers. All other
    leaves, such as integers and keys, are None to it: they reach grad_fn as they are, and their
    gradient is what grad_fn returned at w, or float0 where it was not asked.

    `memory` names the past gradients that a method keeps, "" where it keeps none: with a memory
    there is one step for the whole batch, and m-SAM cannot give every sub-batch its own.
    `splits_batch` says that a method divides its batch. A method with `sees_all_leaves` gets the
    leaves that are no parameters, too, for an optimiser inside it.
    """

    update: "_Update"

    def __new__(
        cls,
        init: Callable[..., PyTree],
        gradient: PureGradient | None = None,
        memory: str = "",
        splits_batch: bool = False,
        sees_all_leaves: bool = False,
        *,
        update: Callable[..., tuple[Gradients, PyTree]] | None = None,
    ) -> "SharpnessAwareTransformation":
        """Build the optax pair from `init` and `gradient`."""
        # jax.tree.map, copy and Keras rebuild a named tuple from its fields, init and update.
        update = gradient if isinstance(gradient, _Update) else update
        if update is None:
            assert gradient is not None
            if not sees_all_leaves:
                init, gradient = _on_parameters(init, gradient)
            init = _of_checked(init)
            gradient = _of_own_states(init, gradient)
            update = _Update(gradient, memory, splits_batch, sees_all_leaves)
        return super().__new__(cls, init, update)

    @property
    def gradient(self) -> PureGradient:
        """The pure function that does the work."""
        return self.update.gradient

    @property
    def memory(self) -> str:
        """The past gradients that the state keeps, in words; empty where it keeps none."""
        return self.update.memory

    @property
    def splits_batch(self) -> bool:
        """Whether the method divides the batch that it is given."""
        return self.update.splits_batch

    @property
    def sees_all_leaves(self) -> bool:
        """Whether the method gets the leaves that are no parameters, too."""
        return self.update.sees_all_leaves


def _of_checked(init: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Refuse parameters that no method can use before anything is made of them."""

    def checked_init(params: Params) -> PyTree:
        checks.check_params(params)
        return init(params)

    return checked_init


def _of_own_states(init: Callable[..., PyTree], gradient: PureGradient) -> PureGradient:
    """Refuse states that `init` does not make of the parameters."""

    check_state = states.check_of(init)

    def checked_gradient(
        grad_fn: AuxiliaryGradFn, params: Params, state: PyTree, **arguments: Any
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        check_state(state, params)
        return gradient(grad_fn, params, state, **arguments)

    return checked_gradient


def _on_parameters(
    init: Callable[..., PyTree], gradient: PureGradient
) -> tuple[Callable[..., PyTree], PureGradient]:
    """Keep all leaves that are no parameters away from a method."""

    def init_of_parameters(params: Params) -> PyTree:
        return init(pytree.partition(params)[0])

    def gradient_of_parameters(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: PyTree,
        *,
        clean: tuple[Gradients, Any] | None = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        parameters, others = pytree.partition(params)

        def of_parameters(grad_fn: AuxiliaryGradFn) -> AuxiliaryGradFn:
            def inner_grad_fn(parameters: Params, *batch: Any, **keywords: Any) -> tuple:
                gradients, aux = grad_fn(pytree.merge(parameters, others), *batch, **keywords)
                return checks.gradients_of_parameters(gradients, params), aux

            return inner_grad_fn

        inner_clean = clean
        if clean is not None:
            inner_clean = checks.gradients_of_parameters(clean[0], params), clean[1]
        functions = {
            name: _at_all_leaves(extra_args[name], others)
            for name in PARAMETER_FUNCTIONS
            if extra_args.get(name) is not None
        }
        functions |= {
            name: of_parameters(extra_args[name])
            for name in GRADIENT_FUNCTIONS
            if extra_args.get(name) is not None
        }
        result, state = gradient(
            of_parameters(grad_fn), parameters, state, clean=inner_clean, **(extra_args | functions)
        )
        rest = _float0(others) if clean is None else _rest_of(clean[0], params)
        return result._replace(gradient=pytree.merge(result.gradient, rest)), state

    return init_of_parameters, gradient_of_parameters


def _at_all_leaves(function: Callable[..., Any], others: PyTree) -> Callable[..., Any]:
    """Let a function of all leaves be called with the parameters alone."""

    def at_parameters(parameters: Params, *arguments: Any, **keywords: Any) -> Any:
        return function(pytree.merge(parameters, others), *arguments, **keywords)

    return at_parameters


def _rest_of(gradients: Gradients, params: Params) -> PyTree:
    """Return the gradients at the leaves that are no parameters, as they are; None elsewhere."""
    return jax.tree.map(lambda w, g: None if pytree.is_parameter(w) else g, params, gradients)


def _float0(others: PyTree) -> PyTree:
    """Return what jax.grad returns for leaves that have no gradient."""
    return jax.tree.map(lambda x: np.zeros(np.shape(x), jax.dtypes.float0), others)


@dataclasses.dataclass(frozen=True, eq=False)
class _Update:
    """A pure gradient function with the calling convention of optax, and what is said of it."""

    gradient: PureGradient
    memory: str
    splits_batch: bool
    sees_all_leaves: bool

    def __call__(
        self,
        updates: Gradients,
        state: PyTree,
        params: Params = None,
        *,
        grad_fn: Callable[..., Gradients] | None = None,
        **extra_args: Any,
    ) -> tuple[Gradients, PyTree]:
        """Return the sharpness-aware gradient, and the new state."""
        checks.check_update_arguments(updates, params, grad_fn)
        assert grad_fn is not None  # as checked

        checks.gradients_of_parameters(updates, params)
        functions = {
            name: _with_no_aux(extra_args[name])
            for name in GRADIENT_FUNCTIONS
            if extra_args.get(name) is not None
        }
        result, state = self.gradient(
            _with_no_aux(grad_fn), params, state, clean=(updates, None), **(extra_args | functions)
        )
        return result.gradient, state


def _with_no_aux(grad_fn: Callable[..., Gradients]) -> AuxiliaryGradFn:
    def grad_fn_with_no_aux(*arguments: Any, **keywords: Any) -> tuple[Gradients, None]:
        return grad_fn(*arguments, **keywords), None

    return grad_fn_with_no_aux
