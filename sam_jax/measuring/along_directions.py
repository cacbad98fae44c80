"""The common part of the instruments along random directions of the weights.

All models that are measured with the same settings see the same directions. The asymmetry factor
and the curve follow directions of unit norm under the law of the preset, as in the study; the
asymmetry index and the widths follow Gaussian ones as long as the weights, filter by filter.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from sam_jax.measuring.conditions import Network, set_loss_fn
from sam_jax.metrics import Conditions
from sam_jax.metrics.evaluation import standard_error
from sam_jax.runs.randomness import stream
from sam_jax.runs.records import Record
from sam_jax.typing import Key, Params, PyTree

RELATIVE = {"distribution": "gaussian", "normalisation": "filter"}


def jit_on_the_set(
    network: Network, conditions: Conditions, batch_size: int, instrument: Callable[..., Any]
) -> Callable[..., Any]:
    """Compile an instrument of the loss over the whole training set.

    Args:
      network: the network.
      conditions: the conditions of a preset.
      batch_size: images in one pass.
      instrument: `instrument(loss_fn, params, *numbers)`.

    Returns:
      A compiled function of what `model_and_set` returns and the numbers.
    """

    def measure(
        params: Params,
        batch_stats: PyTree,
        images: jax.Array,
        labels: jax.Array,
        *numbers: Any,
    ) -> Any:
        loss_fn = set_loss_fn(network, conditions, batch_stats, images, labels, batch_size)
        return instrument(loss_fn, params, *numbers)

    return jax.jit(measure)


def mean_over_directions(name: str, values: jax.Array) -> Record:
    """Return the mean over the directions with its standard error, NaN for one direction."""
    return {f"mean_{name}": jnp.mean(values), f"mean_{name}_stderr": standard_error(values)}


def directions_key(settings: ml_collections.ConfigDict) -> Key:
    """Return the key of the directions: it derives from `settings.seed` alone."""
    return stream(jax.random.key(settings.seed), "directions")
