"""Any method between two steps of a training, and the plain gradient outside of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sam_jax.optim.checks import is_above
from sam_jax.optim.perturbations.common import incremented
from sam_jax.optim.schedules import check_steps
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Gradients, Integer, Params, PyTree


class BetweenState(NamedTuple):
    """The number of updates so far and the state of the method."""

    count: jax.Array  # int32
    inner: PyTree


def between(
    inner: SharpnessAwareTransformation, start: Integer, end: Integer
) -> SharpnessAwareTransformation:
    r"""Use a method from one step to another, and the plain gradient before and after.

    .. math::
      G_t(w) = G^{\mathrm{inner}}_t(w) \text{ for } \mathrm{start} \le t < \mathrm{end},
      \quad \text{else } \nabla L(w)

    The cost outside is one gradient. There the state of the method advances with the clean gradient
    in the place of every other, as that of a schedule does: a schedule of rho goes on with the
    training.

    Args:
      inner: a method, for example `sam(0.05)`. One that wraps the optimiser makes the optimiser's
        update outside.
      start: the first step of the method, counted from 0.
      end: the first step after it.

    Returns:
      One link of an `optax.chain`, used as `inner` is. `m_sam` wraps it.

    Raises:
      ValueError: `inner` is not a sharpness-aware transformation, start or end is negative or not
        whole, end lies before start, or what `inner` raises.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> grad_fn = jax.grad(lambda w: jnp.sum(w**4))
      >>> tx = sam_jax.between(sam_jax.asam(rho=0.05), start=1, end=2)
      >>> params = jnp.array([1.0, -0.5])
      >>> state = tx.init(params)
      >>> for _ in range(3):  # the same parameters each time
      ...     gradient, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
      ...     print(gradient)
      [ 4.  -0.5]
      [ 4.6357894  -0.50483453]
      [ 4.  -0.5]

    Source: Andriushchenko and Flammarion 2022, who switch between SGD and SAM during training.
    Their code counts whole epochs from 1, and both of its ends belong to the interval.
    """
    if not isinstance(inner, SharpnessAwareTransformation):
        raise ValueError(
            "between takes a sharpness-aware transformation such as sam_jax.sam(0.05), got "
            f"{type(inner).__name__}. What follows, such as clipping, comes after it in the chain."
        )
    check_steps("start", start, 0)
    check_steps("end", end, 0)
    if is_above(start, end):
        raise ValueError(
            f"end must not lie before start, got start = {start} and end = {end}: the method would "
            "never be used."
        )

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: BetweenState,
        *,
        clean: tuple[Gradients, Any] | None = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, BetweenState]:
        def inside() -> tuple[SharpnessAwareGradient, PyTree]:
            return inner.gradient(grad_fn, params, state.inner, clean=clean, **extra_args)

        def outside() -> tuple[SharpnessAwareGradient, PyTree]:
            plain = grad_fn(params) if clean is None else clean
            result, new = inner.gradient(
                lambda *_, **__: plain, params, state.inner, clean=clean, **extra_args
            )
            # Without a perturbation what wraps the optimiser returns the optimiser's update.
            wraps = inner.sees_all_leaves
            clean_aux = None if result.clean_aux is None else plain[1]
            epsilon = jax.tree.map(jnp.zeros_like, result.epsilon)
            descent = result.gradient if wraps else plain[0]
            return SharpnessAwareGradient(descent, clean_aux, plain[1], epsilon), new

        def outside_like_inside() -> tuple[SharpnessAwareGradient, PyTree]:
            result, new = outside()
            return jax.tree.map(_like, jax.eval_shape(inside), (result, new))

        is_on = (state.count >= start) & (state.count < end)
        if not isinstance(is_on, Tracer):  # outside jit: no need to compile both
            result, new = inside() if is_on else outside()
        else:
            result, new = jax.lax.cond(is_on, inside, outside_like_inside)
        return result, BetweenState(incremented(state.count), new)

    def init(params: Params) -> BetweenState:
        return BetweenState(jnp.zeros((), jnp.int32), inner.init(params))

    return SharpnessAwareTransformation(
        init,
        gradient,
        memory=inner.memory,
        splits_batch=inner.splits_batch,
        sees_all_leaves=inner.sees_all_leaves,
    )


def _like(shape: jax.ShapeDtypeStruct, x: jax.Array) -> jax.Array:
    """Return an array in the dtype of another and as long: methods may see a part of the batch."""
    rows = x if x.shape == shape.shape else x[: shape.shape[0]]
    return rows if rows.dtype == shape.dtype else rows.astype(shape.dtype)
