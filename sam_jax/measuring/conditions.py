"""The conditions of a preset, carried out: a trained model becomes loss functions and batches."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from sam_jax.measuring.measured import Measured, Network
from sam_jax.measuring.set_losses import number_of_examples, rows_of
from sam_jax.metrics import Conditions
from sam_jax.metrics.over_devices import even_batch_size
from sam_jax.training.device_data import device_mesh
from sam_jax.training.evaluation import means_over_set
from sam_jax.training.sharpness import plan_rows
from sam_jax.typing import Batch, LossFn, Params, PyTree


def model_and_set(measured: Measured) -> tuple[Params, PyTree, Batch]:
    """Return parameters, batch statistics, and the examples of the training set."""
    return measured.params, measured.batch_stats, measured.sets.train


def batch_loss_fn(network: Network, conditions: Conditions, batch_stats: PyTree) -> LossFn:
    """Return the mean loss of a batch of examples under the conditions of a preset."""

    def loss_fn(params: Params, batch: Batch) -> jax.Array:
        return jnp.mean(network.losses(conditions, params, batch_stats, batch))

    return loss_fn


def set_loss_fn(
    network: Network,
    conditions: Conditions,
    batch_stats: PyTree,
    examples: Batch,
    batch_size: int,
) -> LossFn:
    """Return the mean loss of the whole set under the conditions of a preset."""

    def loss_fn(params: Params) -> jax.Array:
        losses = functools.partial(network.losses, conditions, params, batch_stats)
        return means_over_set(losses, (examples,), batch_size)

    return loss_fn


def set_batches(
    network: Network,
    conditions: Conditions,
    batch_stats: PyTree,
    examples: Batch,
    batch_size: int,
) -> tuple[LossFn, jax.Array, jax.Array]:
    """Return the loss of the whole set in batches, for instruments that differentiate it.

    Derivatives of `set_loss_fn` keep the activations of the whole set; with one batch after the
    other they keep the activations of one batch. Batch norm must use its running statistics,
    because the last batch is filled up.

    Args:
      network: the network.
      conditions: the conditions of a preset.
      batch_stats: of the trained model.
      examples: a pytree with leaves [n, ...].
      batch_size: examples in one batch.

    Returns:
      A tuple of three:

      - `loss_fn(params, positions)`, the mean loss of the examples at some positions.
      - The positions of all batches, [batches, batch_size]. Positions from n on count for nothing.
      - The weights of the batches. With them, the mean over batches is the mean over n examples.
    """
    count = number_of_examples(examples)
    batch_size = even_batch_size(count, batch_size, device_mesh().size)
    positions = jnp.arange(-(-count // batch_size) * batch_size).reshape(-1, batch_size)

    def loss_fn(params: Params, positions: Batch) -> jax.Array:
        batch = rows_of(examples, jnp.minimum(positions, count - 1))
        losses = network.losses(conditions, params, batch_stats, batch)
        return jnp.mean(losses, where=positions < count)

    return loss_fn, positions, jnp.sum(positions < count, axis=1)


def plan_batches(
    measured: Measured,
    settings: ml_collections.ConfigDict,
    conditions: Conditions,
    m: int,
    wish: int,
) -> tuple[int, Callable[[], Batch]]:
    """Return how many batches of m training examples a preset measures on, and what cuts them.

    Args:
      measured: a model and its sets.
      settings: the group `instruments` of the config.
      conditions: the conditions of the preset.
      m: examples in one batch.
      wish: the number of batches, where the preset has the same number for every m.

    Returns:
      The number n of batches, and a function to the examples, a pytree with leaves [n, m, ...].

    Raises:
      ValueError: there are not that many examples.
    """
    there = number_of_examples(measured.sets.train)
    count, choose = plan_rows(settings, conditions, there, m, wish)
    return count, lambda: rows_of(measured.sets.train, choose())


def one_at_a_time(plans: dict[int, tuple[int, Callable[[], Batch]]]) -> Callable[[int], Batch]:
    """Return a function from m to its batches, which keeps only the batches of the latest m.

    Args:
      plans: m -> the result of `plan_batches` for it.
    """

    @functools.lru_cache(maxsize=1)
    def batches_of(m: int) -> Batch:
        _, cut = plans[m]
        return cut()

    return batches_of
