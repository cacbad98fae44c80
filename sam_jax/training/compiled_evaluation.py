"""Evaluations of a whole set, compiled, of a streamed set block after block.

The devices share the examples out. Of a streamed set every process reads its share alone, for its
own devices; else each device has the whole set.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh

from sam_jax import data
from sam_jax.metrics.over_devices import even_batch_size
from sam_jax.training.device_data import device_mesh
from sam_jax.training.evaluation import (
    Evaluation,
    Inputs,
    NoisyEvaluation,
    evaluate_set,
    make_logits_fn,
    noisy_evaluation,
    noisy_means,
)
from sam_jax.typing import Params, PyTree


@functools.lru_cache(maxsize=8)
def compile_evaluation(
    model: nn.Module, inputs: Inputs, batch_size: int, top_k: tuple[int, ...]
) -> Callable[[Params, PyTree, jax.Array, jax.Array], Evaluation]:
    """Return `evaluate(params, batch_stats, images, labels)`, compiled once for these arguments.

    Args:
      model: in full precision.
      inputs: converts uint8 images to the inputs of the model.
      batch_size: images in one pass.
      top_k: as in `evaluate_set`.
    """
    means = functools.partial(evaluate_set, top_k=top_k)
    return _jit_over_blocks(means, model, inputs, batch_size)


@functools.lru_cache(maxsize=8)
def compile_noisy_evaluation(
    model: nn.Module, inputs: Inputs, batch_size: int
) -> Callable[[Params, PyTree, jax.Array, jax.Array], NoisyEvaluation]:
    """Return the same for labels in pairs, [n, 2]: each given one beside the true one.

    Args:
      model, inputs, batch_size: as in `compile_evaluation`.
    """
    means = _jit_over_blocks(noisy_means, model, inputs, batch_size)
    return lambda *arguments: noisy_evaluation(means(*arguments))


def _jit_over_blocks(
    means: Callable[..., Any], model: nn.Module, inputs: Inputs, batch_size: int
) -> Callable[[Params, PyTree, jax.Array, jax.Array], Any]:
    """Compile means over a set, of a streamed one over its blocks."""
    logits_fn = make_logits_fn(model, inputs)

    @functools.partial(jax.jit, static_argnames="mesh")
    @jax.default_matmul_precision("highest")
    def evaluate(
        params: Params, batch_stats: PyTree, images: jax.Array, labels: jax.Array, *, mesh: Mesh
    ) -> Any:
        logits = functools.partial(logits_fn, params, batch_stats)
        return means(logits, images, labels, batch_size, mesh=mesh)

    def evaluate_any(
        params: Params, batch_stats: PyTree, images: jax.Array, labels: jax.Array
    ) -> Any:
        if not isinstance(images, data.StreamedColumn):
            return evaluate(params, batch_stats, images, labels, mesh=device_mesh())
        params, batch_stats = data.whole_here((params, batch_stats))
        here = data.local_mesh()
        size = even_batch_size(len(images), batch_size, jax.process_count())
        mean = functools.partial(evaluate, params, batch_stats, mesh=here)
        return data.mean_over_blocks(mean, (images, labels), size)

    return evaluate_any
