"""Losses and accuracies over a whole set, exact for a last partial batch."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sam_jax.data import normalise
from sam_jax.training.losses import cross_entropy
from sam_jax.typing import Params, PyTree

# Pixels of the images of one pass on a CPU, so that what a layer hands on stays in the caches: 32
# images of 32x32. Times PyTorch's images/s on one core (2 MiB of L2), in passes of 128 and of 32:
# MobileNetV2 1.83 and 2.71, ResNet-18 1.32 and 1.29.
PIXELS_OF_PASS = 2**15


class Evaluation(NamedTuple):
    """Means over a set of examples."""

    loss: jax.Array  # cross-entropy in nats
    accuracy: jax.Array  # fraction in [0, 1]
    # Fractions of the examples whose label is among the k largest logits, for each k asked for.
    top_k_accuracies: tuple[jax.Array, ...] = ()


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
        training; a model with randomness then draws as in training, from a fixed key.

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
        logits, _ = model.apply(
            variables,
            inputs(images),
            train=True,
            mutable=["batch_stats"],
            rngs={"model": jax.random.key(0)},
        )
        return logits

    return logits_fn


def evaluate_set(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    labels: jax.Array,
    batch_size: int,
    *,
    fill: bool = True,
    top_k: tuple[int, ...] = (),
    multiple: int = 1,
) -> Evaluation:
    """Return the mean loss and accuracy over all examples, batch after batch.

    Sums and counts run over batches and are divided once.

    Args:
      logits_fn: uint8 images [batch_size, H, W, C] -> logits.
      images: [n, H, W, C] uint8.
      labels: [n] integers.
      batch_size: the most examples in one pass; it bounds the memory and, where the logits of an
        example do not depend on the others of its batch, not the result. CPUs take fewer where
        that is faster, see PIXELS_OF_PASS.
      fill: whether batches may be of another size: a last partial one is filled up with examples of
        weight zero, which compiles the network once. False passes batches as they are, as batch
        statistics need it.
      top_k: the k of further accuracies, each at most the number of classes. Of equal logits the
        first count as larger, as in argmax.
      multiple: batches are rounded up to a multiple of so many examples, where they are filled.

    Returns:
      An Evaluation with scalars in float32 or wider. Where the mean loss is NaN, as it is where
      logits are NaN or +infinity, the accuracies are NaN too: their largest entry says nothing. An
      infinite loss leaves the accuracies as they are.

    Raises:
      ValueError: there are no examples, or batch_size is not positive.
    """

    def values_of(images: jax.Array, labels: jax.Array) -> Evaluation:
        logits = logits_fn(images)
        return Evaluation(
            cross_entropy(logits, labels),
            jnp.argmax(logits, axis=-1) == labels,
            tuple(_among_largest(logits, labels, k) for k in top_k),
        )

    loss, *shares = means_over_set(
        values_of, (images, labels), batch_size, fill=fill, multiple=multiple
    )
    return Evaluation(loss, *jax.tree.map(functools.partial(_unless_nan, loss), shares))


class NoisyEvaluation(NamedTuple):
    """Means over a set whose labels are partly wrong, and over its parts.

    A part without examples has NaN.
    """

    loss: jax.Array  # of the given labels, as those that follow
    accuracy: jax.Array
    clean_loss: jax.Array  # over the examples whose given label is the true one
    clean_accuracy: jax.Array
    noisy_loss: jax.Array  # over the others
    noisy_accuracy: jax.Array
    noisy_true_accuracy: jax.Array  # over the same, of their true labels


class NoisyMeans(NamedTuple):
    """Means over all examples, of which those of several sets average to that of their union."""

    loss: jax.Array
    correct: jax.Array
    noisy: jax.Array  # the share of noisy examples
    noisy_loss: jax.Array  # of an example that counts as 0 where it is clean, as those that follow
    noisy_correct: jax.Array
    noisy_truly_correct: jax.Array
    clean: jax.Array  # the share of the other examples
    clean_loss: jax.Array  # of an example that counts as 0 where it is noisy, as that follows
    clean_correct: jax.Array


def noisy_means(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    pairs: jax.Array,
    batch_size: int,
    *,
    multiple: int = 1,
) -> NoisyMeans:
    """Return what `noisy_evaluation` needs of a set, or of a part of one.

    Args:
      logits_fn: as in `evaluate_set`.
      images: likewise.
      pairs: [n, 2] integers, the given and the true label of each example.
      batch_size: as in `evaluate_set`.
      multiple: likewise.
    """

    def values_of(images: jax.Array, pairs: jax.Array) -> NoisyMeans:
        given, true = pairs[:, 0], pairs[:, 1]
        logits = logits_fn(images)
        found, losses = jnp.argmax(logits, axis=-1), cross_entropy(logits, given)
        noisy, correct = given != true, found == given
        return NoisyMeans(
            loss=losses,
            correct=correct,
            noisy=noisy,
            noisy_loss=jnp.where(noisy, losses, 0),
            noisy_correct=noisy & correct,
            noisy_truly_correct=noisy & (found == true),
            clean=~noisy,
            clean_loss=jnp.where(noisy, 0, losses),
            clean_correct=~noisy & correct,
        )

    return means_over_set(values_of, (images, pairs), batch_size, multiple=multiple)


def noisy_evaluation(means: NoisyMeans) -> NoisyEvaluation:
    """Return the means over the clean and the noisy examples from those over all."""

    def part(loss: jax.Array, correct: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array]:
        share = jnp.where(share > 0, share, jnp.nan)
        return loss / share, _unless_nan(loss, correct / share)

    noisy_loss, noisy_accuracy = part(means.noisy_loss, means.noisy_correct, means.noisy)
    _, noisy_true_accuracy = part(means.noisy_loss, means.noisy_truly_correct, means.noisy)
    clean_loss, clean_accuracy = part(means.clean_loss, means.clean_correct, means.clean)
    return NoisyEvaluation(
        means.loss,
        _unless_nan(means.loss, means.correct),
        clean_loss,
        clean_accuracy,
        noisy_loss,
        noisy_accuracy,
        noisy_true_accuracy,
    )


def _unless_nan(loss: jax.Array, accuracy: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(loss), jnp.nan, accuracy)


def means_over_set(
    values_of: Callable[..., PyTree],
    columns: Sequence[PyTree],
    batch_size: int,
    *,
    fill: bool = True,
    multiple: int = 1,
) -> Any:
    """Return the means over a set of what its examples have each.

    Args:
      values_of: the columns of a batch -> a pytree with leaves [batch].
      columns: pytrees with leaves [n, ...], such as the images and the labels.
      batch_size, fill, multiple: as in `evaluate_set`.

    Returns:
      A pytree like what `values_of` returns, with scalars.
    """
    first, *_ = jax.tree.leaves(columns)
    examples = first.shape[0]
    if batch_size < 1 or not examples:
        raise ValueError(
            "An evaluation needs examples and a positive batch_size, got "
            f"{examples} examples and batch_size = {batch_size}."
        )
    batch_size = min(batch_size, examples)
    if fill and jax.default_backend() == "cpu":
        share = max(1, PIXELS_OF_PASS // math.prod(first.shape[1:3]))
        batch_size = min(batch_size, share * multiple)
    if fill:
        batch_size += -batch_size % multiple
    batches, remainder = divmod(examples, batch_size)
    if fill and remainder:
        batches, remainder = batches + 1, 0

    def sums(positions: jax.Array) -> PyTree:
        counts = positions < examples
        rows = jnp.minimum(positions, examples - 1)
        values = values_of(*jax.tree.map(lambda x: x[rows], columns))
        return jax.tree.map(lambda x: jnp.sum(jnp.where(counts, x, jnp.zeros_like(x))), values)

    positions = jnp.arange(batches * batch_size).reshape(batches, batch_size)
    total = jax.tree.map(jnp.sum, jax.lax.map(sums, positions))
    if remainder:
        last = sums(examples - remainder + jnp.arange(remainder))
        total = jax.tree.map(jnp.add, total, last)
    return jax.tree.map(lambda x: x / examples, total)


def _among_largest(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Say of each example whether its label is among the k largest logits."""
    _, classes = jax.lax.top_k(logits, k)
    return jnp.any(classes == labels[:, None], axis=-1)
