"""The form of every method: a pure function and an optax link made of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from sam_jax.optim import checks
from sam_jax.typing import Gradients, Params, PyTree

# params -> (gradients, auxiliary); with m-SAM (params, batch) -> (gradients, auxiliary)
AuxiliaryGradFn = Callable[..., tuple[Gradients, Any]]


class SharpnessAwareGradient(NamedTuple):
    """The gradient that the optimiser descends along, and what the passes returned besides it."""

    gradient: Gradients
    clean_aux: Any  # from the pass at w; None where the method makes no such pass
    perturbed_aux: Any  # from the pass at w + epsilon; where a step makes none, from that at w
    # Float32 or wider, zero on a step without a perturbation. None where no one point is perturbed
    # to: several noisy copies or inner steps, a term of the loss, the sub-batches of m_sam.
    epsilon: Any = None


class SharpnessAwareTransformation(optax.GradientTransformationExtraArgs):
    """An optax transformation that also offers its work as one pure function, `gradient`.

    `gradient(grad_fn, params, state, *, clean=None, **extra_args)` returns
    `(SharpnessAwareGradient, state)`. Its `grad_fn` returns `(gradients, auxiliary)`, so that a
    training step can have the loss, the accuracy or the batch statistics of either pass; `clean`
    is the `(gradients, auxiliary)` of the pass at `params` where the caller has made it already.
    `update` is that function with optax's calling convention.

    `memory` names what a method keeps of past gradients, "" where it keeps nothing: with a memory
    there is one step for the whole batch, and m-SAM cannot give every sub-batch its own.
    `splits_batch` says that a method divides the batch that it is given.
    """

    def __new__(
        cls,
        init: Callable[[Params], PyTree],
        gradient: Callable[..., tuple[SharpnessAwareGradient, PyTree]],
        memory: str = "",
        splits_batch: bool = False,
    ) -> "SharpnessAwareTransformation":
        """Build the optax pair from `init` and `gradient`."""
        # jax.tree.map and copy rebuild a named tuple from its fields, which are init and update.
        update = gradient if hasattr(gradient, "gradient") else _as_update(gradient)
        if update is not gradient:
            update.memory, update.splits_batch = memory, splits_batch
        return super().__new__(cls, init, update)

    @property
    def gradient(self) -> Callable[..., tuple[SharpnessAwareGradient, PyTree]]:
        """The pure function that does the work."""
        return self.update.gradient

    @property
    def memory(self) -> str:
        """What the state keeps of past gradients, in words; empty where it keeps nothing."""
        return self.update.memory

    @property
    def splits_batch(self) -> bool:
        """Whether the method divides the batch that it is given."""
        return self.update.splits_batch


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

        def grad_fn_without_aux(*arguments: Any, **keywords: Any) -> tuple[Gradients, None]:
            return grad_fn(*arguments, **keywords), None

        result, state = gradient(
            grad_fn_without_aux, params, state, clean=(updates, None), **extra_args
        )
        return result.gradient, state

    update.gradient = gradient
    return update
