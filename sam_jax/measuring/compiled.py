"""Three ways in which a compiled instrument sees the training set."""

from collections.abc import Callable
from typing import Any

import jax

from sam_jax.measuring.conditions import batch_loss_fn, set_batches, set_loss_fn
from sam_jax.measuring.measured import Network
from sam_jax.metrics import Conditions
from sam_jax.typing import Batch, Params, PyTree


def jit_on_batches(
    network: Network, conditions: Conditions, instrument: Callable[..., Any]
) -> Callable[..., Any]:
    """Compile an instrument of the loss of a batch.

    Args:
      network: the network.
      conditions: the conditions of a preset.
      instrument: `instrument(loss_fn, params, batches, *numbers)`, with `loss_fn(params, batch)`.

    Returns:
      A compiled function of (params, batch_stats, batches, *numbers).
    """

    def measure(params: Params, batch_stats: PyTree, batches: Batch, *numbers: Any) -> Any:
        loss_fn = batch_loss_fn(network, conditions, batch_stats)
        return instrument(loss_fn, params, batches, *numbers)

    return jax.jit(measure)


def jit_on_the_set(
    network: Network, conditions: Conditions, batch_size: int, instrument: Callable[..., Any]
) -> Callable[..., Any]:
    """Compile an instrument of the loss over the whole training set.

    Args:
      network: the network.
      conditions: the conditions of a preset.
      batch_size: images in one pass.
      instrument: `instrument(loss_fn, params, *numbers)`, with `loss_fn(params)`.

    Returns:
      A compiled function of the values of `model_and_set` and the numbers.
    """

    def measure(params: Params, batch_stats: PyTree, examples: Batch, *numbers: Any) -> Any:
        loss_fn = set_loss_fn(network, conditions, batch_stats, examples, batch_size)
        return instrument(loss_fn, params, *numbers)

    return jax.jit(measure)


def jit_on_set_batches(
    network: Network, conditions: Conditions, batch_size: int, instrument: Callable[..., Any]
) -> Callable[..., Any]:
    """Compile an instrument that differentiates the loss over the whole training set.

    Args:
      network: the network.
      conditions: the conditions of a preset.
      batch_size: examples in one batch.
      instrument: `instrument(loss_fn, params, batches, weights, *numbers)`, with the loss, the
        batches and the weights of `set_batches`.

    Returns:
      A compiled function of the values of `model_and_set` and the numbers.
    """

    def measure(params: Params, batch_stats: PyTree, examples: Batch, *numbers: Any) -> Any:
        loss_fn, batches, weights = set_batches(
            network, conditions, batch_stats, examples, batch_size
        )
        return instrument(loss_fn, params, batches, weights, *numbers)

    return jax.jit(measure)
