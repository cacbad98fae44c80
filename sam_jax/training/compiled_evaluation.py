"""Evaluations of a whole set, compiled, of a streamed set block after block."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from sam_jax import data
from sam_jax.training.device_data import replicated
from sam_jax.training.evaluation import (
    Evaluation,
    Inputs,
    NoisyEvaluation,
    evaluate_set,
    make_logits_fn,
    noisy_evaluation,
    noisy_means,
)
from sam_jax.training.placement import Placement
from sam_jax.typing import Params, PyTree


@functools.lru_cache(maxsize=8)
def compile_evaluation(
    model: nn.Module,
    inputs: Inputs,
    batch_size: int,
    top_k: tuple[int, ...],
    placement: Placement,
) -> Callable[[Params, PyTree, jax.Array, jax.Array], Evaluation]:
    """Return `evaluate(params, batch_stats, images, labels)`, compiled once for these arguments.

    Args:
      model: in full precision.
      inputs: converts uint8 images to the inputs of the model.
      batch_size: images in one pass.
      top_k: as in `evaluate_set`.
      placement: of the training; each device has its share of a pass.
    """
    means = functools.partial(evaluate_set, top_k=top_k)
    return _jit_over_blocks(means, model, inputs, batch_size, placement)


@functools.lru_cache(maxsize=8)
def compile_noisy_evaluation(
    model: nn.Module, inputs: Inputs, batch_size: int, placement: Placement
) -> Callable[[Params, PyTree, jax.Array, jax.Array], NoisyEvaluation]:
    """Return the same for labels in pairs, [n, 2]: each given one beside the true one.

    Args:
      model, inputs, batch_size, placement: as in `compile_evaluation`.
    """
    means = _jit_over_blocks(noisy_means, model, inputs, batch_size, placement)
    return lambda *arguments: noisy_evaluation(means(*arguments))


def _jit_over_blocks(
    means: Callable[..., Any],
    model: nn.Module,
    inputs: Inputs,
    batch_size: int,
    placement: Placement,
) -> Callable[[Params, PyTree, jax.Array, jax.Array], Any]:
    """Compile means over a set, of a streamed one over its blocks."""
    logits_fn = make_logits_fn(model, inputs)
    shares = placement.share_count

    def logits_of_shares(params: Params, batch_stats: PyTree, images: jax.Array) -> jax.Array:
        if shares > 1:
            images = jax.lax.with_sharding_constraint(images, placement.batch)
        return logits_fn(params, batch_stats, images)

    @jax.jit
    @jax.default_matmul_precision("highest")
    def evaluate(params: Params, batch_stats: PyTree, images: jax.Array, labels: jax.Array) -> Any:
        of_images = functools.partial(logits_of_shares, params, batch_stats)
        return means(of_images, images, labels, batch_size, multiple=shares)

    def evaluate_blocks(
        params: Params, batch_stats: PyTree, images: jax.Array, labels: jax.Array
    ) -> Any:
        return data.mean_over_blocks(
            functools.partial(evaluate, params, batch_stats),
            (images, labels),
            batch_size,
            replicated(),
        )

    return evaluate_blocks
