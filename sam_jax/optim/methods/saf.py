"""SAF: stay close to the predictions of some epochs ago."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import pytree, shardings
from sam_jax.known import known
from sam_jax.optim import checks, devices, trajectory_loss
from sam_jax.optim.perturbations.common import advance, value_at
from sam_jax.optim.transformation import (
    AuxiliaryGradFn,
    SharpnessAwareGradient,
    SharpnessAwareTransformation,
)
from sam_jax.typing import Params, Scalar, ScalarOrSchedule


class SafState(NamedTuple):
    """The number of updates so far, and the last predictions of every training example."""

    count: jax.Array
    visits: jax.Array  # int32 [examples], how often an example was in a batch
    logits: jax.Array  # [examples, epochs_back, classes], logits of visit v in slot v % epochs_back


def saf(
    examples: int,
    classes: int,
    lmbda: ScalarOrSchedule = 0.3,
    tau: Scalar = 5.0,
    epochs_back: int = 3,
    start_epoch: int = 6,
    *,
    axis_name: devices.AxisName | None = None,
    logits_from: Callable[[Any], jax.Array] | None = None,
) -> SharpnessAwareTransformation:
    r"""SAF: the gradient of the loss and of a distance to the predictions of some epochs ago.

    .. math::
      G(w) = \nabla \Big[ L(w) + \lambda \, \frac{\tau^2}{n} \sum_i \mathrm{KL}\big(
      \mathrm{softmax}(\hat z_i / \tau) \,\|\, \mathrm{softmax}(z_i(w) / \tau)\big) \Big]

    with z_i the logits of example i and z^_i those that it had `epochs_back` epochs ago. A sharp
    minimum is one that the loss falls into suddenly, and the term holds back sudden changes. An
    example's epochs are counted by its visits, the batches that it was in. Its term is zero before
    its visit number max(start_epoch, epochs_back), counted from zero.

    The cost is one gradient. The pass of `grad_fn` gives the logits to store: `logits_from` takes
    them from there. `logits_fn` computes them, and whether XLA then shares the pass under jit
    depends on the network: it does for plain layers, but not through the BatchNorm of Flax on CPU,
    where the cost is 4/3. The clean gradient that update receives is not used, and under jit never
    computed. The memory is examples * epochs_back * classes numbers: 6 MB for CIFAR-10 and 15 GB
    for ImageNet in float32 (`mesa` needs none of it).

    Args:
      examples: size of the training set.
      classes: number of logits of an example.
      lmbda: weight of the term, or an optax schedule of it, by update; 0.3 in the released run.
        Zero gives the plain gradient.
      tau: temperature; 5 in the paper.
      epochs_back: how old the predictions are that are compared with, in epochs, 2 or 3.
      start_epoch: the epoch, counted from zero, from which on the term is added; the released code
        adds it in epochs above 5.
      axis_name: the axis of pmap or shard_map over which the batch is split: every device then
        stores the predictions of all, so that the state stays the same everywhere.
      logits_from: takes the logits, [n, classes], from the auxiliary outputs of `grad_fn`, which
        the pure function `gradient` hands on. Without it, or without such outputs (in update),
        `logits_fn` is called.

    Returns:
      One link of an `optax.chain`, before the optimiser. Its update needs
      `grad_fn: (params, term=...) -> gradients`, with the gradient of loss + term(logits),
      `logits_fn: params -> logits` of the batch, [n, classes], and `indices`, [n] integers, the
      places of the batch's examples in the training set, no two alike; the index `examples` stands
      for an example without memory. Under jit, where indices cannot be looked at, so does every
      other index out of range: nothing is read or kept for it. Inside `m_sam` m must be the whole
      batch.

    Raises:
      ValueError: an argument is out of its range, or grad_fn, logits_fn or indices is missing or
        does not fit; outside jit, an index is below 0 or above `examples`, or stands there twice.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_jax
      >>> x, y = jnp.eye(2), jnp.array([0, 1])
      >>> logits_fn = lambda w: x @ w
      >>> def loss_fn(w, term):
      ...     logits = logits_fn(w)
      ...     losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
      ...     return jnp.mean(losses) + term(logits)
      >>> saf = sam_jax.saf(examples=2, classes=2, epochs_back=1, start_epoch=1)
      >>> tx = optax.chain(saf, optax.sgd(1.0))
      >>> w, unused = jnp.zeros((2, 2)), jnp.zeros((2, 2))
      >>> state = tx.init(w)
      >>> for _ in range(2):
      ...     updates, state = tx.update(
      ...         unused, state, w, grad_fn=jax.grad(loss_fn), logits_fn=logits_fn,
      ...         indices=jnp.arange(2),
      ...     )
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"{w[0, 0]:.3f}")  # without the term 0.439
      0.420

    Source: Du et al. 2022, "Sharpness-Aware Training for Free"; AngusDujw/SAF, SAF_train.py, for
    tau^2, the mean over the batch and the values. Where its term starts before epochs_back epochs
    have passed, that code compares with predictions of zero; here the term waits.
    """
    _check_int("examples", examples, lowest=1)
    _check_int("classes", classes, lowest=1)
    _check_int("epochs_back", epochs_back, lowest=1)
    _check_int("start_epoch", start_epoch, lowest=0)
    checks.check_not_negative("lmbda", lmbda)
    trajectory_loss.check_temperature(tau)

    def init(params: Params) -> SafState:
        dtype = pytree.real_dtype(params)
        return SafState(
            count=jnp.zeros((), jnp.int32),
            visits=jnp.zeros(examples, jnp.int32),
            logits=jnp.zeros((examples, epochs_back, classes), dtype),
        )

    def gradient(
        grad_fn: AuxiliaryGradFn,
        params: Params,
        state: SafState,
        *,
        logits_fn: Callable[..., jax.Array] | None = None,
        indices: jax.Array | None = None,
        **_: Any,
    ) -> tuple[SharpnessAwareGradient, SafState]:
        indices = _checked_indices(indices, examples)
        state = jax.tree.map(jnp.asarray, state)  # of NumPy, as a checkpoint may hold them
        visits, past = _recalled(state, shardings.gathered(indices))
        is_on = visits >= max(start_epoch, epochs_back)
        term = trajectory_loss.trajectory_term(past, value_at(lmbda, state.count), tau, is_on)
        result, aux = trajectory_loss.gradient_with_term("saf", grad_fn, params, term)
        if logits_from is not None and aux is not None:
            logits = jax.lax.stop_gradient(logits_from(aux))
        else:
            logits = trajectory_loss.logits_at("saf", logits_fn, params)
        _check_logits(logits, len(indices), classes)
        indices, logits = shardings.gathered(indices), shardings.gathered(logits)
        if axis_name is not None:
            indices, logits = (devices.of_all_devices(x, axis_name) for x in (indices, logits))
        return SharpnessAwareGradient(result, aux, aux), advance(_stored(state, indices, logits))

    return SharpnessAwareTransformation(init, gradient, memory="the predictions of past epochs")


def _recalled(state: SafState, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the visits of the examples, and their logits of `epochs_back` visits ago."""
    visits = state.visits.at[indices].get(mode="fill", fill_value=0)
    slot = visits % state.logits.shape[1]
    return visits, state.logits.at[indices, slot].get(mode="fill", fill_value=0)


def _stored(state: SafState, indices: jax.Array, logits: jax.Array) -> SafState:
    """Return the state with one visit more of the examples, and its logits in the oldest's slot."""
    visits = state.visits.at[indices].get(mode="fill", fill_value=0)
    slot = visits % state.logits.shape[1]
    logits = logits.astype(state.logits.dtype)
    return state._replace(
        visits=state.visits.at[indices].set(visits + 1, mode="drop"),
        logits=state.logits.at[indices, slot].set(logits, mode="drop"),
    )


def _check_int(name: str, value: Any, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ValueError(
            f"{name} must be an int from {lowest}, got {value!r}; in optax.inject_hyperparams name "
            "it in static_args."
        )


def _checked_indices(indices: Any, examples: int) -> jax.Array:
    if indices is None:
        raise ValueError(
            "saf remembers every training example and needs indices, the places of the batch's "
            "examples in the training set: call tx.update(grads, state, params, grad_fn=grad_fn, "
            "logits_fn=logits_fn, indices=indices) with [n] integers."
        )
    indices = jnp.asarray(indices)
    if indices.ndim != 1 or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"indices must be integers [n], got {indices.dtype} of shape {indices.shape}."
        )
    numbers = known(indices)
    if numbers is not None:
        _check_range(numbers, examples)
    # JAX counts negative indices from the end, where another example lies.
    return jnp.where(indices < 0, examples, indices)


def _check_range(indices: np.ndarray, examples: int) -> None:
    outside = indices[(indices < 0) | (indices > examples)]
    if outside.size:
        raise ValueError(
            f"indices must lie in [0, {examples}), the examples that saf was built for, or be "
            f"{examples} for an example without memory; got {outside[0]}. Build saf with the size "
            "of the training set, and count from 0."
        )
    places, counts = np.unique(indices[indices < examples], return_counts=True)
    if np.any(counts > 1):
        raise ValueError(
            "indices must name every example once, because a visit has one memory; "
            f"{places[counts > 1][0]} stands there {counts.max()} times."
        )


def _check_logits(logits: jax.Array, examples: int, classes: int) -> None:
    if logits.shape != (examples, classes):
        raise ValueError(
            f"saf was built for {classes} classes and got {examples} indices, but the logits have "
            f"the shape {logits.shape}."
        )
