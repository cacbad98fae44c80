"""Batch norm statistics of given parameters, computed exactly over a set."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from sam_jax import pytree
from sam_jax.typing import Params, PyTree


@functools.partial(jax.jit, static_argnames=("model", "inputs", "batch_size"))
@jax.default_matmul_precision("highest")
def recalibrated_batch_stats(
    model: nn.Module,
    params: Params,
    batch_stats: PyTree,
    images: jax.Array,
    inputs: Callable[[jax.Array], jax.Array],
    batch_size: int,
) -> PyTree:
    r"""Return the running statistics that parameters would have after one pass over a set.

    .. math::
      \bar s = \frac{1}{n} \sum_b n_b \, s_b

    where s_b is the mean, or the variance, of a batch norm layer's input in batch b of n_b images.
    All layers below normalise by batch statistics, as in training. Every batch has its share: this
    is the running update with momentum n_b / (n_1 + ... + n_b), without the memory of a moving
    average. Parameters that no training step has seen need it: averaged ones (`swa`, `weight_ema`),
    and those along a line or a curve between minima.

    A model with randomness draws it as in training, with fixed keys: equal calls give equal
    statistics.

    It is one compiled program for each model, batch size and shape of images, and can be part of
    a larger one; the parameters may then be traced.

    Args:
      model: a Flax linen module that is called with `train=True`; its layers with running
        statistics are `nn.BatchNorm`. They are computed in the model's dtype or float32,
        and the variance as the layers do it: choose `use_fast_variance=False`, as
        `full_precision` does, where means may be large beside their standard deviations.
      params: the parameters.
      batch_stats: statistics of any values, in the model's structure; `{}` without batch norm.
      images: [n, H, W, C] uint8, in an order that does not sort them by class.
      inputs: hashable, from uint8 images to the model's, for example `Inputs(mean, std)`.
      batch_size: images in one pass, as in training; a last smaller batch counts by its size. The
        variance *between* batches is left out as in training, so the result depends on it.

    Returns:
      New statistics with the structure and dtypes of `batch_stats`.

    Raises:
      ValueError: there are no images; batch_size is not positive; or a running statistic is not the
        mean or the variance of a batch norm layer that runs once in a pass.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sam_jax import models
      >>> from sam_jax.training.evaluation import Inputs
      >>> model = models.create("small_conv_net", 10)
      >>> images = jax.random.randint(jax.random.key(0), (20, 8, 8, 1), 0, 256).astype(jnp.uint8)
      >>> params, batch_stats = (
      ...     model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)))[name]
      ...     for name in ("params", "batch_stats")
      ... )
      >>> inputs = Inputs(mean=(0.5,), std=(0.3,))
      >>> new = recalibrated_batch_stats(model, params, batch_stats, images, inputs, batch_size=8)
      >>> new["norm0"]["mean"].shape
      (16,)

    Source: Izmailov et al. 2018, algorithm 1, last line; timgaripov/swa weights batches alike.
    """
    if not jax.tree.leaves(batch_stats):
        return batch_stats
    examples = images.shape[0]
    if batch_size < 1 or not examples:
        raise ValueError(
            "Recalibration needs images and a positive batch_size, got "
            f"{examples} images and batch_size = {batch_size}."
        )
    batch_size = min(batch_size, examples)
    batches, remainder = divmod(examples, batch_size)
    template: dict[tuple[str, ...], Any] = flatten_dict(batch_stats)
    zeros = unflatten_dict({path: jnp.zeros_like(s) for path, s in template.items()})
    momenta: dict[tuple[str, ...], float] = {}

    def note_momentum(call: Callable, args: tuple, kwargs: dict, context: Any) -> object:
        layer = context.module
        if isinstance(layer, nn.BatchNorm) and context.method_name == "__call__":
            # A second run of a layer in one pass would mix the statistics of both.
            momenta[layer.path] = 1.0 if layer.path in momenta else layer.momentum
        return call(*args, **kwargs)

    def weighted_statistics(batch: jax.Array, index: jax.Array | int) -> PyTree:
        """Return n_b s_b for every running statistic, by path."""
        momenta.clear()
        with nn.intercept_methods(note_momentum):
            _, mutated = model.apply(
                {"params": params, "batch_stats": zeros},
                inputs(batch),
                train=True,
                mutable=["batch_stats"],
                rngs={"model": jax.random.fold_in(jax.random.key(0), index)},
            )
        statistics: dict[tuple[str, ...], Any] = flatten_dict(mutated["batch_stats"])
        # From zero the running update leads to (1 - momentum) s_b.
        return {
            path: len(batch) / (1 - _momentum(momenta, path)) * pytree.widen(s)
            for path, s in statistics.items()
        }

    def add(total: PyTree, batch: jax.Array, index: jax.Array | int) -> PyTree:
        weighted = weighted_statistics(batch, index)
        return jax.tree.map(lambda t, s: t + s.astype(t.dtype), total, weighted)

    def add_batch(total: PyTree, index: jax.Array) -> tuple[PyTree, None]:
        batch = jax.lax.dynamic_slice_in_dim(images, index * batch_size, batch_size)
        return add(total, batch, index), None

    total = {path: jnp.zeros_like(pytree.widen(s)) for path, s in template.items()}
    total, _ = jax.lax.scan(add_batch, total, jnp.arange(batches))
    if remainder:
        total = add(total, images[examples - remainder :], batches)
    mean = {path: (t / examples).astype(template[path].dtype) for path, t in total.items()}
    return unflatten_dict(mean)


def _momentum(momenta: dict[tuple[str, ...], float], path: tuple[str, ...]) -> float:
    """Return the momentum of the layer that a running statistic belongs to."""
    momentum = momenta.get(path[:-1])
    if momentum is None or path[-1] not in ("mean", "var") or not momentum < 1:
        raise ValueError(
            f"The running statistic {'/'.join(path)} is not the mean or the variance of an "
            "nn.BatchNorm that runs once in a pass with a momentum below 1; recalibration knows "
            "no other."
        )
    return momentum
