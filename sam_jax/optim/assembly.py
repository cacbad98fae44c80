"""A method is an assembly of a perturbation, a combination and a schedule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from sam_jax import pytree
from sam_jax.optim import checks
from sam_jax.optim.perturbations.common import incremented
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.shardings import zeros_of
from sam_jax.typing import Gradients, Params, PyTree

# (clean gradient, perturbed gradient) -> the gradient to descend along
Combination = Callable[[Gradients, Gradients], Gradients]


class Schedule(NamedTuple):
    """Which steps make the pass at the perturbed parameters, and which gradient the others take.

    init: params -> state.
    decide: (state, clean gradient) -> (boolean scalar, state); called once a step.
    remember: (state, clean gradient, sharpness-aware gradient, *measured) -> state, kept on the
      steps that make the pass; None keeps the state. Under jit it is computed on all steps, for a
      state that went through the conditional would be copied there.
    measure: (state, clean gradient, sharpness-aware gradient) -> tuple of numbers, on the steps
      that make the pass: what `remember` needs of norms and products, which take whole passes.
    substitute: (state, clean gradient) -> gradient, on the steps that do not make the pass.
    """

    init: Callable[[Params], PyTree]
    decide: Callable[[PyTree, Gradients], tuple[jax.Array, PyTree]]
    remember: Callable[..., PyTree] | None = None
    substitute: Callable[[PyTree, Gradients], Gradients] = lambda state, clean: clean
    measure: Callable[[PyTree, Gradients, Gradients], tuple] = lambda state, clean, new: ()


class ScheduledState(NamedTuple):
    """The number of updates so far, and the states of the schedule and of the perturbation."""

    count: jax.Array  # int32
    passes: jax.Array  # int32, how many steps so far made the pass at the perturbed parameters
    schedule: PyTree
    perturbation: PyTree


def sharpness_aware(
    perturbation: optax.GradientTransformation,
    combination: Combination | None = None,
    schedule: Schedule | None = None,
    needs_clean_gradient: bool = True,
    memory: str = "",
) -> SharpnessAwareTransformation:
    r"""Assemble a method: the gradient at the perturbed parameters, combined and scheduled.

    .. math::
      G(w) = \mathrm{combination}\big(g, \nabla L(w + \epsilon)\big), \qquad
      \epsilon = \mathrm{perturbation}(g, w), \quad g = \nabla L(w)

    Args:
      perturbation: an optax transformation from the gradient to epsilon. One with extra arguments
        also gets `grad_fn: params -> gradients` and the step's extra arguments.
      combination: from the clean and the perturbed gradient to the gradient that is descended
        along; None takes the perturbed one.
      schedule: the steps that make the pass at w + epsilon; None for all. On the others that pass
        is not computed, nor any that the perturbation asks for: its state advances with the clean
        gradient in place of them, and epsilon is zero.
      needs_clean_gradient: whether the perturbation, the combination or the schedule reads the
        gradient at w; where none does, the pass at w is never made. A schedule always does.
      memory: the past gradients that the parts keep, in words; see SharpnessAwareTransformation.

    Returns:
      A transformation whose state is the perturbation's, or a ScheduledState. Where it is given
      `ascent_grad_fn`, the perturbation gets its gradient, at w and wherever else it asks for one.
      The combination and the schedule read the gradient of grad_fn, which takes a pass of its own.
      Without them the clean auxiliary outputs are those of `ascent_grad_fn` at w.

    Raises:
      ValueError: a part is not what its place takes.

    Example:
      >>> import jax.numpy as jnp, optax, sam_jax
      >>> grad_fn = lambda w: 4 * w**3
      >>> halfway = lambda clean, perturbed: (clean + perturbed) / 2
      >>> tx = sam_jax.sharpness_aware(optax.scale(0.1), halfway)
      >>> w = jnp.array([1.0])
      >>> gradient, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
      >>> print(gradient)  # the mean of 4 and 4 * 1.4**3
      [7.488]
    """
    _check_parts(perturbation, combination, schedule)
    ascends = needs_clean_gradient
    reads_clean_gradient = combination is not None or schedule is not None
    needs_clean_gradient = needs_clean_gradient or schedule is not None
    ascent = optax.with_extra_args_support(perturbation)

    def make_clean_pass(
        grad_fn: AuxiliaryGradFn,
        ascent_grad_fn: AuxiliaryGradFn | None,
        params: Params,
        clean: tuple[Gradients, Any] | None,
    ) -> tuple[Gradients, Any]:
        if clean is not None:
            return clean
        is_read = needs_clean_gradient if ascent_grad_fn is None else reads_clean_gradient
        return grad_fn(params) if is_read else (None, None)

    def make_perturbed_pass(
        grad_fn: AuxiliaryGradFn,
        ascent_grad_fn: AuxiliaryGradFn | None,
        params: Params,
        state: PyTree,
        clean: tuple[Gradients, Any],
        extra_args: dict[str, Any],
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        clean_gradient, clean_aux = clean
        ascent_gradient = clean_gradient
        if ascent_grad_fn is not None and ascends:
            ascent_gradient, ascent_aux = ascent_grad_fn(params)
            if clean_gradient is None:  # the one pass at w
                clean_aux = ascent_aux
        epsilon, state = ascent.update(
            ascent_gradient,
            state,
            params,
            grad_fn=_without_aux(ascent_grad_fn or grad_fn),
            **extra_args,
        )
        gradient, perturbed_aux = grad_fn(pytree.add(params, epsilon))
        if combination is not None:
            gradient = combination(clean_gradient, gradient)
        return SharpnessAwareGradient(gradient, clean_aux, perturbed_aux, epsilon), state

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: PyTree,
        *,
        clean: tuple[Gradients, Any] | None = None,
        ascent_grad_fn: AuxiliaryGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        clean = make_clean_pass(grad_fn, ascent_grad_fn, params, clean)
        return make_perturbed_pass(grad_fn, ascent_grad_fn, params, state, clean, extra_args)

    if schedule is None:
        return SharpnessAwareTransformation(ascent.init, gradient, memory)

    def scheduled_gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: ScheduledState,
        *,
        clean: tuple[Gradients, Any] | None = None,
        ascent_grad_fn: AuxiliaryGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, ScheduledState]:
        clean = make_clean_pass(grad_fn, ascent_grad_fn, params, clean)
        clean_gradient, clean_aux = clean
        makes_pass, schedule_state = schedule.decide(state.schedule, clean_gradient)
        count = incremented(state.count)

        def with_pass() -> tuple[SharpnessAwareGradient, PyTree, jax.Array, tuple]:
            result, new = make_perturbed_pass(
                grad_fn, ascent_grad_fn, params, state.perturbation, clean, extra_args
            )
            # The other branch returns the clean gradient, whose dtypes may come from a caller that
            # accumulates or unscales; the branches have to agree.
            result = result._replace(
                gradient=jax.tree.map(
                    lambda g, c: g.astype(c.dtype), result.gradient, clean_gradient
                )
            )
            measured = schedule.measure(schedule_state, clean_gradient, result.gradient)
            return result, new, incremented(state.passes), measured

        def without_pass() -> tuple[SharpnessAwareGradient, PyTree, jax.Array, tuple]:
            # Only the new state of the perturbation's update is used; jit drops the rest. Where it
            # asks for more gradients it gets the clean one, because this step makes no other pass.
            unused, new = ascent.update(
                clean_gradient,
                state.perturbation,
                params,
                grad_fn=lambda *_, **__: clean_gradient,
                **extra_args,
            )
            substitute = schedule.substitute(schedule_state, clean_gradient)
            epsilon = jax.tree.map(jnp.zeros_like, unused)
            shapes = jax.eval_shape(
                schedule.measure, schedule_state, clean_gradient, clean_gradient
            )
            result = SharpnessAwareGradient(substitute, clean_aux, clean_aux, epsilon)
            return result, new, state.passes, jax.tree.map(zeros_of, shapes)

        # Outside jit there is no need to compile both.
        decided = None if isinstance(makes_pass, Tracer) else bool(makes_pass)
        if decided is None:
            branch_results = jax.lax.cond(makes_pass, with_pass, without_pass)
        else:
            branch_results = with_pass() if decided else without_pass()
        result, new, passes, measured = branch_results
        if schedule.remember is not None and decided is not False:
            kept = schedule.remember(schedule_state, clean_gradient, result.gradient, *measured)
            schedule_state = jax.tree.map(
                lambda kept, old: jnp.where(makes_pass, kept, old).astype(old.dtype),
                kept,
                schedule_state,
            )
        return result, ScheduledState(count, passes, schedule_state, new)

    def init(params: Params) -> ScheduledState:
        # Arrays of their own: a step that donates its state cannot donate one array twice.
        count, passes = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return ScheduledState(count, passes, schedule.init(params), ascent.init(params))

    return SharpnessAwareTransformation(init, scheduled_gradient, memory)


def _check_parts(perturbation: Any, combination: Any, schedule: Any) -> None:
    example = "sam_jax.sharpness_aware(optax.scale(0.1)), or sam_jax.sam(0.1) for a known method"
    checks.check_transformation("perturbation", perturbation, example)
    if isinstance(perturbation, SharpnessAwareTransformation):
        raise ValueError(
            "perturbation must make epsilon of a gradient, and this is a whole method, whose "
            "result is a gradient: use it as it is, or assemble its parts."
        )
    if combination is not None and not callable(combination):
        raise ValueError(
            "combination must be a function, (clean gradient, perturbed gradient) -> gradient, "
            f"got {combination!r}; None takes the perturbed gradient."
        )
    if schedule is not None and not isinstance(schedule, Schedule):
        raise ValueError(
            f"schedule must be a sam_jax.Schedule, got {schedule!r}; None perturbs in every step, "
            "and sam_jax.interval_sam(rho, k) in each k-th."
        )


def _without_aux(grad_fn: AuxiliaryGradFn) -> Callable[[Params], Gradients]:
    """Return the function that a perturbation calls for a gradient elsewhere."""

    return lambda params: grad_fn(params)[0]
