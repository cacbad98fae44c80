"""m-SAM: one perturbation for every sub-batch of m examples, and the mean over sub-batches."""

from typing import Any

import jax

from sam_jax import pytree
from sam_jax.optim import combining, devices, meshes, sub_batch_gradient
from sam_jax.optim.sub_batch_gradient import Common, Settings, Split
from sam_jax.optim.sub_batch_runs import Strategy
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Batch, Params, PyTree

# Extra arguments that are cut into sub-batches as the batch is.
BATCH_ARGUMENTS = ("previous_batch", "indices")


def m_sam(
    inner: SharpnessAwareTransformation,
    m: int,
    strategy: Strategy = "vmap",
    axis_name: devices.AxisName | None = None,
    *,
    combine: PyTree = None,
    batch_axes: str | tuple[str, ...] | None = None,
    mesh: meshes.AnyMesh | None = None,
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
    combining.check_combine(combine)
    batch_axes = (batch_axes,) if isinstance(batch_axes, str) else batch_axes

    settings = Settings(inner, m, strategy, combine)

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: PyTree,
        *,
        batch: Batch = None,
        weights: jax.Array | None = None,
        rngs: PyTree = None,
        shared: PyTree = None,
        clean: Any = None,
        **extra_args: Any,
    ) -> tuple[SharpnessAwareGradient, PyTree]:
        del clean  # of the whole batch; every sub-batch needs its own
        examples = sub_batch_gradient.batch_size(batch)
        _check_keys(rngs)
        parts = {name: extra_args.pop(name) for name in BATCH_ARGUMENTS if name in extra_args}
        common = Common(grad_fn, params, state, rngs, shared, extra_args)
        split = Split(parts | {"batch": batch}, weights)
        if axis_name is not None:
            return sub_batch_gradient.gradient(settings, common, split, axis_name)
        if examples == m:
            return sub_batch_gradient.one_sub_batch(settings, common, split.parts)
        place = meshes.place_of(batch, mesh, batch_axes, examples)
        if place is None:
            return sub_batch_gradient.gradient(settings, common, split)
        result, new_state = meshes.run(
            place,
            lambda *share: sub_batch_gradient.gradient(settings, *share, place.axes),
            lambda *share: sub_batch_gradient.rules(settings, *share, place.axes),
            *(common, split),
        )
        result = result._replace(gradient=meshes.laid_like(result.gradient, params))
        return result, meshes.laid_like(new_state, state)

    return SharpnessAwareTransformation(inner.init, gradient)


def _check_keys(rngs: PyTree) -> None:
    if rngs is not None and not any(pytree.is_key(x) for x in jax.tree.leaves(rngs)):
        raise ValueError(
            "rngs must hold typed keys, which m_sam folds with the index of the sub-batch: make "
            f"them with jax.random.key(seed), not jax.random.PRNGKey(seed); got {rngs!r}."
        )
