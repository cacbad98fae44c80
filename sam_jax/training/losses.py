"""The training loss of one batch, with what a training step needs besides it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sam_jax import pytree
from sam_jax.typing import Batch, Gradients, Params, PyTree


class PassOutputs(NamedTuple):
    """What one forward pass returns besides the gradient."""

    loss: jax.Array  # mean cross-entropy, without weight decay
    accuracy: jax.Array  # fraction in [0, 1]
    batch_stats: PyTree  # running statistics of the batch norm layers after the pass


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
    return -(1 - label_smoothing) * target - label_smoothing * jnp.mean(log_probabilities, axis=1)


def make_grad_fn(
    model: nn.Module,
    batch_stats: PyTree,
    label_smoothing: float = 0.0,
    weight_decay: float = 0.0,
) -> Callable[[Params, Batch], tuple[Gradients, PassOutputs]]:
    r"""Return the gradient of the training loss, in the form that the methods call.

    .. math::
      L(w) = \frac{1}{n} \sum_i \ell_i(w) + \frac{\lambda}{2} \|w\|_2^2

    Args:
      model: a Flax linen module; it is run in training mode, on batch statistics.
      batch_stats: the running statistics before the pass.
      label_smoothing: as in `cross_entropy`.
      weight_decay: lambda over all parameters, biases and batch norm included, as in
        google-research/sam; zero where weight decay lives in the update.

    Returns:
      `grad_fn(params, (images, labels)) -> (gradients, PassOutputs)`.
    """

    def loss_fn(params: Params, batch: Batch) -> tuple[jax.Array, PassOutputs]:
        images, labels = batch
        logits, mutated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        loss = jnp.mean(cross_entropy(logits, labels, label_smoothing))
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
        penalty = 0.5 * weight_decay * pytree.vdot(params, params) if weight_decay else 0.0
        outputs = PassOutputs(loss, accuracy, mutated.get("batch_stats", {}))
        return loss + penalty, outputs

    def grad_fn(params: Params, batch: Batch) -> tuple[Gradients, PassOutputs]:
        return jax.grad(loss_fn, has_aux=True)(params, batch)

    return grad_fn
