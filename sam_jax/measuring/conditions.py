"""The conditions of a preset, carried out: a trained model becomes loss functions and batches."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from sam_jax.metrics import Conditions
from sam_jax.metrics.over_devices import even_batch_size
from sam_jax.runs.randomness import stream
from sam_jax.training.device_data import device_mesh
from sam_jax.training.evaluation import Inputs, evaluate_set, make_logits_fn, unnormalised
from sam_jax.training.losses import cross_entropy
from sam_jax.training.program import full_precision
from sam_jax.training.trained import Trained
from sam_jax.typing import Batch, LossFn, Params, PyTree


class Network(NamedTuple):
    """What an instrument is compiled for, however the model was trained."""

    model: nn.Module
    inputs: Inputs


def network_of(trained: Trained) -> Network:
    """Return the network of a trained model, in full precision."""
    return Network(full_precision(trained.program.model), trained.program.inputs)


def model_and_set(trained: Trained) -> tuple[Params, PyTree, jax.Array, jax.Array]:
    """Return parameters, batch statistics, and the images and labels of the training set."""
    state, data = trained.state, trained.data
    return state.params, state.batch_stats, data.train_images, data.train_labels


def batch_loss_fn(network: Network, conditions: Conditions, batch_stats: PyTree) -> LossFn:
    """Return the mean loss of a batch (images, labels) under the conditions of a preset."""
    logits_fn = _logits_fn(network, conditions)

    def loss_fn(params: Params, batch: Batch) -> jax.Array:
        images, labels = batch
        return jnp.mean(cross_entropy(logits_fn(params, batch_stats, images), labels))

    return loss_fn


def set_loss_fn(
    network: Network,
    conditions: Conditions,
    batch_stats: PyTree,
    images: jax.Array,
    labels: jax.Array,
    batch_size: int,
) -> LossFn:
    """Return the mean loss of the whole set under the conditions of a preset."""
    logits_fn = _logits_fn(network, conditions)

    def loss_fn(params: Params) -> jax.Array:
        return evaluate_set(
            functools.partial(logits_fn, params, batch_stats), images, labels, batch_size
        ).loss

    return loss_fn


def set_batches(
    network: Network,
    conditions: Conditions,
    batch_stats: PyTree,
    images: jax.Array,
    labels: jax.Array,
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
      images: [n, H, W, C] uint8.
      labels: [n] integers.
      batch_size: examples in one batch.

    Returns:
      A tuple of three:

      - `loss_fn(params, positions)`, the mean loss of the examples at some positions.
      - The positions of all batches, [batches, batch_size]. Positions from n on count for nothing.
      - The weights of the batches. With them, the mean over batches is the mean over n examples.
    """
    examples = labels.shape[0]
    batch_size = even_batch_size(examples, batch_size, device_mesh().size)
    positions = jnp.arange(-(-examples // batch_size) * batch_size).reshape(-1, batch_size)
    logits_fn = _logits_fn(network, conditions)

    def loss_fn(params: Params, positions: Batch) -> jax.Array:
        rows = jnp.minimum(positions, examples - 1)
        losses = cross_entropy(logits_fn(params, batch_stats, images[rows]), labels[rows])
        return jnp.mean(losses, where=positions < examples)

    return loss_fn, positions, jnp.sum(positions < examples, axis=1)


def plan_batches(
    trained: Trained, settings: ml_collections.ConfigDict, conditions: Conditions, m: int, wish: int
) -> tuple[int, Callable[[], Batch]]:
    """Return how many batches of m training examples a preset measures on, and what cuts them.

    Args:
      trained: a model and its data.
      settings: the group `instruments` of the config.
      conditions: the conditions of the preset.
      m: examples in one batch.
      wish: the number of batches, where the preset has the same number for every m.

    Returns:
      The number n of batches, and a function to (images [n, m, H, W, C], labels [n, m]).

    Raises:
      ValueError: there are not that many examples.
    """
    images, labels = trained.data.train_images, trained.data.train_labels
    if conditions.same_examples:
        wanted = settings.examples or len(labels)
        count = wanted // m
    else:
        wanted, count = wish * m, wish
    if not 0 < wanted <= len(labels) or not count:
        raise ValueError(
            f"the instruments want {wanted} training examples in batches of m = {m}, and there "
            f"are {len(labels)}; lower instruments.examples, m or batches."
        )

    def cut() -> Batch:
        key = stream(jax.random.key(settings.seed), "examples")
        among = wanted if conditions.examples == "first" else len(labels)
        rows = jax.random.permutation(key, among)[: count * m].reshape(count, m)
        return images[rows], labels[rows]

    return count, cut


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


def _logits_fn(network: Network, conditions: Conditions) -> Callable[..., jax.Array]:
    inputs = network.inputs if conditions.normalise_images else unnormalised(network.inputs)
    return make_logits_fn(network.model, inputs, conditions.batch_norm)
