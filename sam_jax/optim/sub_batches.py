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
      G(w) = \frac{\sum_U W_U \nabla L_U(w + \epsilon_U)}{\sum_U W_U}, \qquad
      B = \bigcup U, \quad |U| = m

    with epsilon_U the perturbation of `inner` for the sub-batch U of the batch B, and W_U = 1
    without `weights`. The cost in gradients is the cost of `inner`; the clean gradient that update
    receives is not used, because every sub-batch needs its own.

    **Weights.** Where L_U is a weighted mean, such as the mean over the tokens that are no padding,
    give update `weights`: W_U for each sub-batch, [|B| / m], or a number w_i for each example,
    [|B|]. From the numbers, W_U is the sum of w_i over U. If L_U = sum_i w_i l_i / W_U, rho = 0
    then gives the gradient of sum_i w_i l_i / sum_i w_i over the whole batch. A sub-batch of weight
    0 does not count, even where grad_fn gives NaN for it.

    **Randomness.** Without more, all sub-batches draw one dropout mask. Give update `rngs`, a typed
    key or a pytree of them: grad_fn (and `losses_fn`, `logits_fn`, `ascent_grad_fn` where they are
    given) gets `rngs=`, the same with the sub-batch's index folded in every key; both passes get
    the same. A pytree that all of them shall get as it is goes to update as `shared`, and reaches
    them as `shared=`.

    **Auxiliary outputs** of the pure function `gradient` are combined by kind; `combine` asks for
    another way:

    - inexact arrays, running statistics included: the mean, weighted as the gradients;
    - keys, counts and booleans: the last;
    - arrays with an entry for each example (their leading axis grows with the sub-batch):
      concatenated in the batch's order.

    **On a mesh**, under jit, every device computes the sub-batches whose examples lie on it. It
    does so inside a `jax.shard_map` over the axes that the batch is split over. Other axes of the
    mesh, such as the axes of fsdp or of the model, stay as they are.

    - Explicit axes tell how the batch is split. Automatic axes do not tell it under jit: a single
      axis is taken to split the batch; among several, `batch_axes` names the axes that do.
    - Inside, the model's own constraints must not name these axes. On explicit axes grad_fn must
      not close over arrays of the mesh (`shared` and `rngs` take them).
    - Parameters that are sharded over an axis that the batch is split over are gathered, because
      every device perturbs its own copy. The result takes their sharding again.
    - Outside jit this compiles again in each step: jit the step.

    Inside pmap or shard_map, with `axis_name`, the batch is the device's own shard and the result
    is the mean over the axis; outputs for each example belong to the shard. Only m_sam takes the
    mean here: other methods need it in grad_fn, or the replicas drift apart, as
    `assert_replicas_agree` shows.

    An m up to the size of a device's shard splits the shard; a larger m averages the gradient over
    groups of m / shard neighbouring devices, so that m keeps its meaning on any number of devices.
    A method that divides its batch further (`esam`) is refused there, and BatchNorm does not
    follow: it normalises over the examples of one call of `grad_fn`, at most a device's shard. Only
    under jit with m = the whole batch is there one call for all.

    Args:
      inner: the transformation to apply to each sub-batch, for example `sam(0.05)`.
      m: examples in a sub-batch; it divides the batch, or is a multiple of a device's shard.
      strategy: "vmap" computes all sub-batches at once; "scan" one after the other, with the memory
        of one sub-batch. (vmap makes grouped convolutions, slow on CPU, of convolutions with
        perturbed weights; scan does not.) Outside jit "scan" is a loop in Python.
      axis_name: the axis of pmap or shard_map to average over.
      combine: words for the auxiliary output of grad_fn, in its structure or a prefix of it, such
        as `{"correct": "sum", "finite": "min", "rest": "auto"}`: "auto" (by kind, as above),
        "mean", "sum", "min", "max" (of booleans: all, any), "last" or "concatenate". None: "auto".
      batch_axes: the mesh axes that the batch's leading axis is split over, a name or a tuple; ()
        for none. None: as the batch or the mesh tells.
      mesh: where the batch lies; None for the batch's own, or the mesh of `jax.set_mesh`.

    Returns:
      One link of an `optax.chain`, before the optimiser. Its update needs
      `grad_fn: (params, batch) -> gradients`, whose loss is the mean over the batch it gets. It
      also needs `batch`, a pytree of arrays that share their leading axis. It takes `weights`,
      `rngs` and `shared`.

    Raises:
      ValueError: if one of these holds:
        - batch is missing or empty, m does not divide it, or m is not a positive int;
        - the strategy or a word of combine is unknown;
        - weights do not fit or one is negative, or rngs holds no typed key;
        - `inner` is not a sharpness-aware transformation;
        - `inner` keeps a memory of past gradients and m makes more than one sub-batch;
        - on a mesh, nothing tells how the batch is split.

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
    if isinstance(m, bool) or not isinstance(m, int) or m < 1:
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
            lambda common, split: sub_batch_gradient.gradient(settings, common, split, place.axes),
            lambda common, split: sub_batch_gradient.rules(settings, common, split, place.axes),
            common,
            split,
        )
        result = result._replace(gradient=meshes.laid_like(result.gradient, params))
        return result, meshes.laid_like(new_state, state)

    return SharpnessAwareTransformation(inner.init, gradient, sees_all_leaves=inner.sees_all_leaves)


def _check_keys(rngs: PyTree) -> None:
    if rngs is not None and not any(pytree.is_key(x) for x in jax.tree.leaves(rngs)):
        raise ValueError(
            "rngs must hold typed keys, which m_sam folds with the index of the sub-batch: make "
            f"them with jax.random.key(seed), not jax.random.PRNGKey(seed); got {rngs!r}."
        )
