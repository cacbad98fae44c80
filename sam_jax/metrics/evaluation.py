"""How every instrument evaluates a loss: in full precision, one set of weights at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sam_jax.known import is_known
from sam_jax.metrics.checks import described, is_real_scalar
from sam_jax.metrics.over_devices import map_rows
from sam_jax.pytree import add, power_of_two, widen
from sam_jax.typing import Batch, LossFn, Params, PyTree

# Decorates every instrument: they take small differences of losses, which TF32 and bfloat16
# products would drown. It covers whatever is traced inside, gradients and custom rules included.
full_precision = jax.default_matmul_precision("highest")


def scalar_loss(loss_fn: LossFn) -> LossFn:
    """Return `loss_fn` with its value in float32 or wider, checked to be a scalar."""

    def checked(params: Params, *batch: Batch) -> jax.Array:
        loss = loss_fn(params, *batch)
        if not is_real_scalar(loss):
            given = jax.tree.map(described, loss, is_leaf=lambda x: x is None)
            raise ValueError(
                "loss_fn must return one real scalar, the mean loss, without auxiliary outputs; "
                f"got {given}."
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
    mesh: Mesh | None = None,
) -> jax.Array:
    """Return the losses at `params + distances[j] * direction_at(indices[j])` for every j.

    One loop, so that the loss is compiled once for all points. It runs over the points one
    after the other: batching over weights would turn every convolution into a grouped one. With a
    mesh each device goes through its part of them.
    """

    def evaluate(point: tuple[jax.Array, jax.Array]) -> jax.Array:
        index, distance = point
        return loss_fn(add(params, direction_at(index), distance))

    return map_rows(evaluate, (indices, distances), mesh)


def standard_error(values: jax.Array) -> jax.Array:
    """Return the standard error of the mean of `values` along their first axis, of length k.

    It is NaN for k = 1, see `unknown`.
    """
    k = values.shape[0]
    if k == 1:
        return unknown(values[0])
    power = power_of_two(jnp.max(jnp.abs(values), axis=0))  # so that no square leaves the range
    return jnp.std(values * power[None], axis=0, ddof=1) / jnp.sqrt(k).astype(values.dtype) / power


def unknown(like: jax.Array) -> jax.Array:
    """Return NaN for a number that is not known, so that `jax_debug_nans` lets it pass.

    The flag looks at what operations and compiled programs return. NaN from NumPy is neither. What
    jit returns it cannot tell from an error, so that infinity stands there while the flag is set.
    """
    # JAX adds its flags when it is imported, so that no checker knows them.
    watching = jax.config.jax_debug_nans  # pyright: ignore[reportAttributeAccessIssue]
    watched = watching and not is_known(like)
    return jax.device_put(np.full(like.shape, np.inf if watched else np.nan, like.dtype))
