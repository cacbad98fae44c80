"""Losses and accuracies over the training and the test set, by policy of batch norm."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from sam_jax.measuring.batch_norm_policy import RUNNING, BatchNormPolicy
from sam_jax.training.evaluation import Evaluation, Inputs, evaluate_set, make_logits_fn
from sam_jax.training.recalibration import recalibrated_batch_stats
from sam_jax.typing import Batch, Params, PyTree


class Sets(NamedTuple):
    """The examples of the two sets, pytrees with leaves [n, ...]."""

    train: Batch
    test: Batch  # None where there is none


def number_of_examples(examples: Batch) -> int:
    """Return how many examples a set has; it may be streamed."""
    return len(jax.tree.leaves(examples, is_leaf=_is_column)[-1])


def rows_of(examples: Batch, rows: jax.Array) -> Batch:
    """Return the examples of some rows; the set may be streamed."""
    return jax.tree.map(lambda column: column[rows], examples, is_leaf=_is_column)


def _is_column(x: Any) -> bool:
    """Say whether x is an array, or a column of a streamed set, which JAX must not take apart."""
    return hasattr(x, "shape")


class SetLosses(NamedTuple):
    """Means over the two sets."""

    train: Evaluation
    test: Evaluation


def make_set_losses(
    model: nn.Module,
    inputs: Inputs,
    batch_norm: BatchNormPolicy = RUNNING,
    batch_size: int = 1000,
) -> Callable[[Params, PyTree, Sets], SetLosses]:
    """Return `set_losses(params, batch_stats, sets)` of parameters away from a trained model.

    Args:
      model: a Flax linen module.
      inputs: converts uint8 images to the inputs that the model was trained on. Nothing is
        augmented.
      batch_norm: where batch norm takes its statistics from.
      batch_size: images in one pass; it bounds the memory, not the result. Under the policy
        "batch" its own size is used.

    Returns:
      A function of the sets, each (images, labels), to SetLosses; the statistics that it gets are
      not changed.
    """
    in_batches = batch_norm.kind == "batch"
    logits_fn = make_logits_fn(model, inputs, "batch" if in_batches else "running")
    size = batch_norm.batch_size or batch_size if in_batches else batch_size

    def set_losses(params: Params, batch_stats: PyTree, sets: Sets) -> SetLosses:
        if batch_norm.kind == "recalibrated":
            batch_stats = recalibrated_batch_stats(
                model, params, batch_stats, sets.train[0], inputs, batch_norm.batch_size
            )
        logits = functools.partial(logits_fn, params, batch_stats)
        fill = not in_batches
        return SetLosses(
            *(evaluate_set(logits, images, labels, size, fill=fill) for images, labels in sets)
        )

    return set_losses
