"""The sharpness of a training at chosen epochs, as the sound preset measures it afterwards."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from sam_jax import metrics
from sam_jax.mistakes import checking
from sam_jax.runs.randomness import stream
from sam_jax.training.device_data import DeviceData, device_mesh
from sam_jax.training.evaluation import Inputs, make_logits_fn
from sam_jax.training.losses import cross_entropy
from sam_jax.training.step import TrainState
from sam_jax.typing import Batch, Params, PyTree


def plan_rows(
    settings: ml_collections.ConfigDict,
    conditions: metrics.Conditions,
    there: int,
    m: int,
    wish: int = 0,
) -> tuple[int, Callable[[], jax.Array]]:
    """Return how many batches of m training examples a preset measures on, and what chooses them.

    Args:
      settings: the group `instruments` of the config.
      conditions: the conditions of the preset.
      there: the number of training examples.
      m: examples in one batch.
      wish: the number of batches, where the preset has the same number for every m.

    Returns:
      The number n of batches, and a function to the places of their examples, int32 [n, m].

    Raises:
      ValueError: there are not that many examples.
    """
    if conditions.same_examples:
        wanted = settings.examples or there
        count = wanted // m
    else:
        wanted, count = wish * m, wish
    if not 0 < wanted <= there or not count:
        raise ValueError(
            f"the instruments want {wanted} training examples in batches of m = {m}, and there "
            f"are {there}; lower instruments.examples, m or batches."
        )

    def choose() -> jax.Array:
        key = stream(jax.random.key(settings.seed), "examples")
        among = wanted if conditions.examples == "first" else there
        return jax.random.permutation(key, among)[: count * m].reshape(count, m)

    return count, choose


@checking()
def check(config: ml_collections.ConfigDict, examples: int) -> None:
    """Raise a ValueError where the sharpness of a training is wanted and cannot be measured.

    Args:
      config: the whole config.
      examples: size of the training set.
    """
    if config.evaluation.sharpness_every_epochs:
        m = config.instruments.adversarial.m[0]
        plan_rows(config.instruments, metrics.SOUND.adversarial, examples, m)


def begin_sharpness(
    config: ml_collections.ConfigDict,
    model: nn.Module,
    inputs: Inputs,
    data: DeviceData,
    state: TrainState,
) -> dict[str, jax.Array]:
    """Return the adversarial sharpness of a state as arrays that are still computed.

    It is `adversarial_sharpness` of the sound preset, at the first m and the first rho of
    config.instruments.adversarial.

    Args:
      config: the whole config.
      model: in full precision.
      inputs: converts uint8 images to the inputs of the model.
      data: the data set.
      state: the weights that are evaluated.

    Returns:
      "sharpness" in nats, and "sharpness_stderr" over the batches, NaN for one batch.
    """
    settings = config.instruments
    m, rho = settings.adversarial.m[0], settings.adversarial.rho[0]
    _, choose = plan_rows(settings, metrics.SOUND.adversarial, len(data.train_labels), m)
    rows = choose()
    batches = data.train_images[rows], data.train_labels[rows]
    found = _compiled(model, inputs)(state.params, state.batch_stats, batches, rho)
    return {"sharpness": found.sharpness, "sharpness_stderr": found.stderr}


@functools.lru_cache(maxsize=8)
def _compiled(model: nn.Module, inputs: Inputs) -> Callable[..., metrics.AdversarialSharpness]:
    logits_fn = make_logits_fn(model, inputs)

    @jax.jit
    def measure(
        params: Params, batch_stats: PyTree, batches: Batch, rho: jax.Array
    ) -> metrics.AdversarialSharpness:
        def loss_fn(params: Params, batch: Batch) -> jax.Array:
            images, labels = batch
            return jnp.mean(cross_entropy(logits_fn(params, batch_stats, images), labels))

        return metrics.adversarial_sharpness(loss_fn, params, batches, rho=rho, mesh=device_mesh())

    return measure
