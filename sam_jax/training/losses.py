"""The training loss of one batch, with the other outputs that a training step needs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sam_jax import pytree
from sam_jax.training.weight_decay import decayed
from sam_jax.typing import Batch, Gradients, Params, PyTree


class PassOutputs(NamedTuple):
    """The outputs of one forward pass, besides the gradient."""

    loss: jax.Array  # mean cross-entropy, without weight decay and other terms
    accuracy: jax.Array  # fraction in [0, 1]
    batch_stats: PyTree  # running statistics of the batch norm layers after the pass
    losses: jax.Array  # [n], the cross-entropy of each example
    logits: jax.Array  # [n, C]


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    r"""Return the cross-entropy of each example.

    .. math::
      \ell = -\sum_c y_c \log \mathrm{softmax}(z)_c, \qquad
      y = (1 - s)\,\mathrm{onehot}(\text{label}) + s / C

    Args:
      logits: z, [n, C], any float dtype; the softmax runs in float32 or wider.
      labels: [n] integers.
      label_smoothing: s, in [0, 1).

    Returns:
      [n] float32 or wider, in nats.
    """
    log_probabilities = jax.nn.log_softmax(pytree.widen(logits))
    target = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    if not label_smoothing:  # zero times the mean is NaN where a probability underflows
        return -target
    return -(1 - label_smoothing) * target - label_smoothing * jnp.mean(log_probabilities, axis=1)


class BatchFunctions(NamedTuple):
    """The functions of (params, (images, labels)) that the methods call, in training mode."""

    grad_fn: Callable[..., tuple[Gradients, PassOutputs]]  # with the keyword `term`
    losses_fn: Callable[[Params, Batch], jax.Array]  # [n], the cross-entropy of each example
    logits_fn: Callable[[Params, Batch], jax.Array]  # [n, C]


def make_functions(
    model: nn.Module,
    batch_stats: PyTree,
    label_smoothing: float = 0.0,
    weight_decay: float = 0.0,
    weight_decay_on: str = "all",
) -> BatchFunctions:
    r"""Return the gradient of the training loss, and what else methods ask for.

    .. math::
      L(w) = \frac{1}{n} \sum_i \ell_i(w) + \frac{\lambda}{2} \|w\|_2^2 + \mathrm{term}(z(w))

    Args:
      model: a Flax linen module; it is run in training mode, on batch statistics.
      batch_stats: the running statistics before the pass.
      label_smoothing: as in `cross_entropy`.
      weight_decay: lambda; zero where weight decay lives in the update.
      weight_decay_on: "all" parameters, biases and batch norm included, or "not_norms"; see
        `WeightDecay`.

    Returns:
      `grad_fn(params, (images, labels), term=None) -> (gradients, PassOutputs)`, where `term` maps
      the logits z, [n, C], to a scalar that SAF and MESA add; `losses_fn` and `logits_fn`.
    """

    def apply(params: Params, images: jax.Array) -> tuple[jax.Array, PyTree]:
        variables = {"params": params, "batch_stats": batch_stats}
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    def loss_fn(
        params: Params, batch: Batch, term: Callable[[jax.Array], jax.Array] | None
    ) -> tuple[jax.Array, PassOutputs]:
        images, labels = batch
        logits, mutated = apply(params, images)
        losses = cross_entropy(logits, labels, label_smoothing)
        loss = jnp.mean(losses)
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
        w = decayed(params, weight_decay_on)
        penalty = 0.5 * weight_decay * pytree.vdot(w, w) if weight_decay else 0.0
        addition = 0.0 if term is None else term(logits)
        outputs = PassOutputs(loss, accuracy, mutated.get("batch_stats", {}), losses, logits)
        return loss + penalty + addition, outputs

    def grad_fn(
        params: Params, batch: Batch, term: Callable[[jax.Array], jax.Array] | None = None
    ) -> tuple[Gradients, PassOutputs]:
        return jax.grad(loss_fn, has_aux=True)(params, batch, term)

    def losses_fn(params: Params, batch: Batch) -> jax.Array:
        images, labels = batch
        return cross_entropy(apply(params, images)[0], labels, label_smoothing)

    def logits_fn(params: Params, batch: Batch) -> jax.Array:
        return apply(params, batch[0])[0]

    return BatchFunctions(grad_fn, losses_fn, logits_fn)
