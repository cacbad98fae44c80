"""How every instrument evaluates a loss: in full precision, one set of weights at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sam_jax.metrics.checks import check_not_empty
from sam_jax.pytree import add, widen
from sam_jax.typing import Batch, LossFn, Params, PyTree

# Decorates every instrument: they take small differences of losses, which TF32 and bfloat16
# products would drown. It covers whatever is traced inside, gradients and custom rules included.
full_precision = jax.default_matmul_precision("highest")


def widen_all(params: Params) -> Params:
    """Return `params` in float32 or wider, because narrower types round a small step away.

    Raises:
      ValueError: there is no parameter, or a complex one.
    """
    check_not_empty("params", params)
    return jax.tree.map(lambda weights: widen(jnp.asarray(weights)), params)


def scalar_loss(loss_fn: LossFn) -> LossFn:
    """Return `loss_fn` with its value in float32 or wider, checked to be a scalar."""

    def checked(params: Params, *batch: Batch) -> jax.Array:
        loss = loss_fn(params, *batch)
        if isinstance(loss, tuple | list | dict) or jnp.shape(loss) != ():
            raise ValueError(
                "loss_fn must return one scalar, the mean loss, without auxiliary outputs; "
                f"got {jax.tree.map(jnp.shape, loss)}."
            )
        return widen(jnp.asarray(loss))

    return checked


def mean_over_batches(loss_fn: LossFn, params: Params, batches: Batch) -> jax.Array:
    """Return the mean of `loss_fn(params, batch)` over the leading axis of `batches`."""
    return jnp.mean(jax.lax.map(lambda batch: loss_fn(params, batch), batches))


def losses_along(
    loss_fn: LossFn,
    params: Params,
    direction_at: Callable[[jax.Array], PyTree],
    indices: jax.Array,
    distances: jax.Array,
) -> jax.Array:
    """Return the losses at `params + distances[j] * direction_at(indices[j])` for every j.

    One loop, so that the loss is compiled once for all points. It runs over the points one
    after the other: batching over weights would turn every convolution into a grouped one.
    """

    def evaluate(point: tuple[jax.Array, jax.Array]) -> jax.Array:
        index, distance = point
        return loss_fn(add(params, direction_at(index), distance))

    return jax.lax.map(evaluate, (indices, distances))


def standard_error(values: jax.Array) -> jax.Array:
    """Return the standard error of the mean of `values`, shape [k]; NaN for a single value."""
    k = values.shape[0]
    if k == 1:
        return jnp.full((), jnp.nan, values.dtype)
    return jnp.std(values, ddof=1) / jnp.sqrt(k).astype(values.dtype)
