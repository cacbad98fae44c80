"""Losses and accuracies over a whole set, exact for a last partial batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sam_jax.data import normalise
from sam_jax.training.losses import cross_entropy
from sam_jax.typing import Params, PyTree


class Evaluation(NamedTuple):
    """Means over a set of examples."""

    loss: jax.Array  # cross-entropy in nats
    accuracy: jax.Array  # fraction in [0, 1]


class Inputs(NamedTuple):
    """How uint8 images become the model's inputs."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return (images / 255 - mean) / std, per channel, in float32."""
        return normalise(images, self.mean, self.std)


def unnormalised(inputs: Inputs) -> Inputs:
    """Return inputs scaled to [0, 1] only, as the study's sharpness tables were measured on."""
    return Inputs(tuple(0.0 for _ in inputs.mean), tuple(1.0 for _ in inputs.std))


def make_logits_fn(
    model: nn.Module, inputs: Inputs, batch_norm: str = "running"
) -> Callable[[Params, PyTree, jax.Array], jax.Array]:
    """Return `logits_fn(params, batch_stats, uint8 images)` without side effects.

    Args:
      model: a Flax linen module.
      inputs: converts uint8 images to the inputs that the model was trained on.
      batch_norm: "running" normalises with the running statistics, so that the loss is a function
        of each example alone. "batch" normalises with the statistics of the given batch, as in
        training.

    Returns:
      A function to [n, classes] logits; the running statistics are never changed.
    """
    if batch_norm not in ("running", "batch"):
        raise ValueError(f'batch_norm must be "running" or "batch", got {batch_norm!r}.')

    def logits_fn(params: Params, batch_stats: PyTree, images: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": batch_stats}
        if batch_norm == "running":
            logits: Any = model.apply(variables, inputs(images), train=False)
            return logits
        logits, _ = model.apply(variables, inputs(images), train=True, mutable=["batch_stats"])
        return logits

    return logits_fn


def evaluate_set(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    labels: jax.Array,
    batch_size: int,
    *,
    fill: bool = True,
) -> Evaluation:
    """Return the mean loss and accuracy over all examples, batch after batch.

    Sums and counts run over batches and are divided once.

    Args:
      logits_fn: uint8 images [batch_size, H, W, C] -> logits.
      images: [n, H, W, C] uint8.
      labels: [n] integers.
      batch_size: examples in one pass; it bounds the memory and, where the logits of an example
        do not depend on the others of its batch, not the result.
      fill: whether a last partial batch is filled up with examples of weight zero, which compiles
        the network once. False passes it as it is, as batch statistics need it.

    Returns:
      An Evaluation with scalars in float32 or wider. Where the mean loss is NaN, as it is where
      logits are NaN or +infinity, the accuracy is NaN too: their largest entry says nothing. An
      infinite loss leaves the accuracy as it is.

    Raises:
      ValueError: there are no examples, or batch_size is not positive.
    """
    return evaluate_with_top_k(logits_fn, images, labels, batch_size, (), fill=fill)[0]


def evaluate_with_top_k(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    labels: jax.Array,
    batch_size: int,
    top_k: tuple[int, ...],
    *,
    fill: bool = True,
) -> tuple[Evaluation, tuple[jax.Array, ...]]:
    """Return the mean loss and accuracy over all examples, and accuracies of several guesses.

    Args:
      logits_fn: as in `evaluate_set`.
      images: likewise.
      labels: likewise.
      batch_size: likewise.
      top_k: the k of the further accuracies, each at most the number of classes.
      fill: as in `evaluate_set`.

    Returns:
      The result of `evaluate_set`, and for each k the fraction of the examples whose label is among
      the k largest logits. Of equal logits the first count as larger, as in argmax. They are NaN
      where the accuracy is.

    Raises:
      ValueError: as in `evaluate_set`.
    """
    examples = labels.shape[0]
    if batch_size < 1 or not examples:
        raise ValueError(
            "An evaluation needs examples and a positive batch_size, got "
            f"{examples} examples and batch_size = {batch_size}."
        )
    batch_size = min(batch_size, examples)
    batches, remainder = divmod(examples, batch_size)
    if fill and remainder:
        batches, remainder = batches + 1, 0

    def sums(positions: jax.Array) -> tuple[jax.Array, ...]:
        weights = positions < examples
        rows = jnp.minimum(positions, examples - 1)
        logits = logits_fn(images[rows])
        losses = jnp.where(weights, cross_entropy(logits, labels[rows]), 0)
        hits = [jnp.argmax(logits, axis=-1) == labels[rows]]
        hits += [_among_largest(logits, labels[rows], k) for k in top_k]
        return jnp.sum(losses), *(jnp.sum(jnp.where(weights, hit, False)) for hit in hits)

    total = jax.tree.map(
        jnp.sum, jax.lax.map(sums, jnp.arange(batches * batch_size).reshape(batches, batch_size))
    )
    if remainder:
        last = sums(examples - remainder + jnp.arange(remainder))
        total = jax.tree.map(jnp.add, total, last)
    loss, *shares = (number / examples for number in total)
    accuracy, *top_k_accuracies = (jnp.where(jnp.isnan(loss), jnp.nan, x) for x in shares)
    return Evaluation(loss, accuracy), tuple(top_k_accuracies)


def _among_largest(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Say of each example whether its label is among the k largest logits."""
    _, classes = jax.lax.top_k(logits, k)
    return jnp.any(classes == labels[:, None], axis=-1)
