"""m-SAM: one perturbation for every sub-batch of m examples, and the mean over sub-batches."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from sam_jax import pytree
from sam_jax.optim import devices
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Batch, Params, PyTree

Strategy = Literal["vmap", "scan"]
# Extra arguments that are functions of (params, batch), as grad_fn is; methods that need more than
# gradients ask for them.
BATCH_FUNCTIONS = ("losses_fn", "logits_fn")
# Extra arguments that are cut into sub-batches as the batch is.
BATCH_ARGUMENTS = ("previous_batch", "indices")


def m_sam(
    inner: SharpnessAwareTransformation,
    m: int,
    strategy: Strategy = "vmap",
    axis_name: devices.AxisName | None = None,
) -> SharpnessAwareTransformation:
    r"""Give every sub-batch of m examples its own perturbation and average the gradients.

    .. math::
      G(w) = \frac{m}{|B|} \sum_{U \subset B,\, |U| = m} \nabla L_U(w + \epsilon_U)

    with epsilon_U the perturbation of `inner` for the sub-batch U of the batch B. The cost in
    gradients is that of `inner`; the clean gradient that update receives is not used, because
    every sub-batch needs its own.

    Inside pmap or shard_map, with `axis_name`, the batch is the device's own shard and the result
    is the mean over the axis. An m up to the size of the shard splits the shard; a larger m
    averages the gradient over groups of m / shard neighbouring devices (over all of them when m is
    the global batch), so that m keeps its meaning on any number of devices. A method that divides
    its batch further (`esam`) is refused there, and BatchNorm does not follow: it normalises over
    the examples of one call of `grad_fn`, at most a device's shard.

    Args:
      inner: the transformation to apply to each sub-batch, for example `sam(0.05)`.
      m: examples in a sub-batch; it divides the batch, or is a multiple of a device's shard.
      strategy: "vmap" computes all sub-batches at once; "scan" one after the other, with the
        memory of one sub-batch (and without the grouped convolutions that vmap makes of
        convolutions with perturbed weights, slow on CPU).
      axis_name: the axis of pmap or shard_map to average over.

    Returns:
      One link of an `optax.chain`, before the optimiser. Its update needs
      `grad_fn: (params, batch) -> gradients`, with a loss that is the mean over the batch it gets,
      and `batch`, a pytree of arrays that share their leading axis.

    Raises:
      ValueError: batch is missing, m does not divide it, m is not a positive int, the strategy is
        unknown, `inner` is not a sharpness-aware transformation, or it keeps a memory of past
        gradients and m makes more than one sub-batch.

    Example:
      >>> import jax, jax.numpy as jnp, sam_jax
      >>> loss_fn = lambda w, batch: jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
      >>> grad_fn = jax.grad(loss_fn)
      >>> batch = {"x": jnp.array([[1.0], [2.0], [3.0], [4.0]]), "y": jnp.ones(4)}
      >>> params = jnp.array([0.5])
      >>> tx = sam_jax.m_sam(sam_jax.sam(0.1), m=2)
      >>> gradient, _ = tx.update(
      ...     grad_fn(params, batch), tx.init(params), params, grad_fn=grad_fn, batch=batch
      ... )
      >>> print(gradient)  # the first pair pushes w down, the second pushes it up
      [3.5]

    Source: Foret et al. 2021, section 4.1; Andriushchenko and Flammarion 2022, equation 2, with
    the mean over sub-batches rather than the sum.
    """
    if not isinstance(inner, SharpnessAwareTransformation):
        raise ValueError(
            "m_sam wraps a sharpness-aware transformation such as sam_jax.sam(0.05), got "
            f"{type(inner).__name__}. Put what follows, such as clipping, after it: "
            "optax.chain(sam_jax.m_sam(sam_jax.sam(0.05), m), optax.clip_by_global_norm(5.0))."
        )
    if not isinstance(m, int) or m < 1:
        raise ValueError(
            f"m must be a positive int, got {m!r}; in optax.inject_hyperparams name it in "
            "static_args."
        )
    if strategy not in ("vmap", "scan"):
        raise ValueError(f'strategy must be "vmap" or "scan", got {strategy!r}.')

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: PyTree,
        *,
        batch: Batch = None,
        clean: Any = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        del clean  # of the whole batch; every sub-batch needs its own
        count, group = _split(m, _batch_size(batch), axis_name)
        _check_memory(inner.memory, count, group, axis_name)
        if inner.splits_batch and group > 1:
            raise ValueError(
                "This method divides its sub-batch, which has to lie on one device, but m = "
                f"{m} is spread over {group} devices. Choose m up to the shard of a device, "
                f"{m // group} examples."
            )
        grad_fn = devices.averaged_over_groups(grad_fn, group, axis_name)
        local_params = devices.vary_over(params, axis_name)
        local_state = devices.vary_numbers_over(state, axis_name) if inner.memory else state
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) // group * count

        def one(index: jax.Array, parts: PyTree) -> tuple[SharpnessAwareGradient, PyTree]:
            sub_batch = parts["batch"]
            functions = {
                name: _with_default_batch(extra_args[name], sub_batch)
                for name in BATCH_FUNCTIONS
                if name in extra_args
            }
            result, new_state = inner.gradient(
                _with_default_batch(grad_fn, sub_batch),
                local_params,
                local_state,
                sub_batch=first + index,
                **(extra_args | functions | parts),
            )
            return result._replace(epsilon=None), new_state  # there is no one epsilon

        parts = {name: extra_args[name] for name in BATCH_ARGUMENTS if name in extra_args}
        result, new_state = _RUN[strategy](one, parts | {"batch": batch}, count, local_state)
        return devices.mean_over_devices(result, axis_name), devices.agreed(new_state, axis_name)

    return SharpnessAwareTransformation(inner.init, gradient, sees_all_leaves=inner.sees_all_leaves)


def _run_vmap(
    one: Callable[..., tuple[PyTree, PyTree]], batch: Batch, count: int, state: PyTree
) -> tuple[PyTree, PyTree]:
    """Run all sub-batches at once; return the mean result and the state after any of them."""
    del state
    if count == 1:
        return one(jnp.zeros((), jnp.int32), batch)
    results, states = jax.vmap(one)(jnp.arange(count), _reshape(batch, count))
    mean = jax.tree.map(
        lambda x: jnp.mean(pytree.widen(x), axis=0).astype(devices.mean_dtype(x)), results
    )
    return mean, jax.tree.map(lambda x: x[0], states)


def _run_scan(
    one: Callable[..., tuple[PyTree, PyTree]], batch: Batch, count: int, state: PyTree
) -> tuple[PyTree, PyTree]:
    """Run one sub-batch after the other; return the mean result and the state after the last."""
    if count == 1:
        return one(jnp.zeros((), jnp.int32), batch)
    sub_batches = _reshape(batch, count)
    shapes, _ = jax.eval_shape(one, jnp.zeros((), jnp.int32), _first(sub_batches))

    def step(carry: tuple[PyTree, PyTree], inputs: tuple) -> tuple[tuple[PyTree, PyTree], None]:
        total, _ = carry
        result, new_state = one(*inputs)
        return (jax.tree.map(lambda t, x: t + pytree.widen(x), total, result), new_state), None

    carry = jax.tree.map(_zeros, shapes), state
    (total, new_state), _ = jax.lax.scan(step, carry, (jnp.arange(count), sub_batches))
    mean = jax.tree.map(lambda t, s: (t / count).astype(devices.mean_dtype(s)), total, shapes)
    return mean, new_state


_RUN = {"vmap": _run_vmap, "scan": _run_scan}


def _batch_size(batch: Batch) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "m_sam needs batch, a pytree of arrays that share their leading (example) axis: call "
            "tx.update(grads, state, params, grad_fn=grad_fn, batch=batch); the shapes given are "
            f"{shapes}."
        )
    return shapes[0][0]


def _split(m: int, examples: int, axis_name: devices.AxisName | None) -> tuple[int, int]:
    """Return the sub-batches of this device and the devices that share one sub-batch."""
    if examples % m == 0:
        return examples // m, 1
    device_count = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    group, remainder = divmod(m, examples)
    if remainder == 0 and group > 1 and device_count % group == 0:
        return 1, group
    place = "the batch" if axis_name is None else f"the shard of each of the {device_count} devices"
    raise ValueError(
        f"m = {m} does not divide {place}, {examples} examples. Choose m among the divisors of "
        f"{examples}"
        + ("." if device_count == 1 else f", or {examples} times a divisor of {device_count}.")
    )


def _check_memory(memory: str, count: int, group: int, axis_name: devices.AxisName | None) -> None:
    """Raise where each of several sub-batches would have to take the one step of a memory."""
    device_count = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    sub_batches = count * device_count // group
    if memory and sub_batches > 1:
        raise ValueError(
            f"This method keeps {memory} from step to step, which is one for the whole batch, but "
            f"m makes {sub_batches} sub-batches, and each would need its own. Choose m equal to "
            "the whole batch, or a method without memory."
        )


def _with_default_batch(function: Callable[..., Any], batch: Batch) -> Callable[..., Any]:
    """Let a function of (params, batch) be called with params alone."""

    def with_default(params: Params, batch: Batch = batch, **keywords: Any) -> Any:
        return function(params, batch, **keywords)

    return with_default


def _zeros(shape: jax.ShapeDtypeStruct) -> jax.Array:
    zeros = jnp.zeros(shape.shape, jnp.promote_types(shape.dtype, jnp.float32))
    axes = tuple(devices.varying_axes(shape))
    return jax.lax.pcast(zeros, axes, to="varying") if axes else zeros


def _reshape(batch: Batch, count: int) -> Batch:
    return jax.tree.map(lambda x: x.reshape((count, x.shape[0] // count) + x.shape[1:]), batch)


def _first(batch: Batch) -> Batch:
    return jax.tree.map(lambda x: x[0], batch)
