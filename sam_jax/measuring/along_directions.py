"""The loss of a trained model along random directions: asymmetry, a curve, widths.

All models that are measured with the same settings see the same directions. The asymmetry factor
and the curve follow directions of unit norm under the law of the preset, as in the study; the
asymmetry index and the widths follow Gaussian ones as long as the weights, filter by filter.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from sam_jax import metrics
from sam_jax.measuring.conditions import Network, model_and_set, network_of, set_loss_fn
from sam_jax.metrics.evaluation import standard_error
from sam_jax.runs.randomness import stream
from sam_jax.runs.records import Record, as_read
from sam_jax.training.trained import Trained
from sam_jax.typing import Key, LossFn, Params, PyTree, Scalar

RELATIVE = {"distribution": "gaussian", "normalisation": "filter"}


def asymmetry_factor(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Yield the settings of the asymmetry factor and what measures with them."""
    c, law = settings.asymmetry, preset.asymmetry_distribution

    def take() -> Record:
        instrument = _jit_asymmetry_factor(
            network_of(trained), preset.asymmetry, settings.batch_size, c.num_directions, law
        )
        result = instrument(*model_and_set(trained), c.distance, _key(settings))
        return as_read(result._asdict())

    yield {"distribution": law, "distance": c.distance, "num_directions": c.num_directions}, take


def loss_curve(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Yield the settings of the loss curve and what measures with them."""
    c, law = settings.curve, preset.asymmetry_distribution
    distances = np.linspace(-c.limit, c.limit, c.points)

    def take() -> Record:
        instrument = _jit_loss_curve(network_of(trained), preset.curve, settings.batch_size, law)
        points = jnp.asarray(distances, jnp.float32)
        return as_read({"losses": instrument(*model_and_set(trained), points, _key(settings))})

    yield {"distribution": law, "distances": distances.tolist()}, take


def asymmetry_index(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Yield the settings of the asymmetry index and what measures with them."""
    c = settings.asymmetry_index

    def take() -> Record:
        instrument = _jit_asymmetry_index(
            network_of(trained), preset.asymmetry, settings.batch_size, c.num_directions
        )
        result = instrument(*model_and_set(trained), c.distance, _key(settings))
        fields = result._asdict()
        # Direction by direction they are half the difference and half the sum of the rises.
        odd, even = fields.pop("odd"), fields.pop("even")
        return as_read(fields | _mean("absolute_odd", jnp.abs(odd)) | _mean("even", even))

    yield {**RELATIVE, "distance": c.distance, "num_directions": c.num_directions}, take


def level_set_widths(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Yield the settings of the widths of a level set and what measures with them."""
    c = settings.level_set_widths

    def take() -> Record:
        instrument = _jit_level_set_widths(
            network_of(trained),
            preset.asymmetry,
            settings.batch_size,
            num_directions=c.num_directions,
            doublings=c.doublings,
            bisections=c.bisections,
        )
        result = instrument(*model_and_set(trained), c.rise, c.max_distance, _key(settings))
        # Censored widths count as max_distance: the mean is then a lower bound.
        return as_read(result._asdict() | _mean("width", (result.plus + result.minus) / 2))

    yield {**RELATIVE, **c.to_dict()}, take


@functools.lru_cache(maxsize=16)
def _jit_asymmetry_factor(
    network: Network,
    conditions: metrics.Conditions,
    batch_size: int,
    num_directions: int,
    distribution: str,
) -> Callable[..., Any]:
    def instrument(
        loss_fn: LossFn, params: Params, distance: Scalar, key: Key
    ) -> metrics.AsymmetryFactor:
        return metrics.asymmetry_factor(
            loss_fn,
            params,
            distance=distance,
            key=key,
            num_directions=num_directions,
            distribution=distribution,
        )

    return _jit_on_the_set(network, conditions, batch_size, instrument)


@functools.lru_cache(maxsize=16)
def _jit_loss_curve(
    network: Network, conditions: metrics.Conditions, batch_size: int, distribution: str
) -> Callable[..., Any]:
    def instrument(loss_fn: LossFn, params: Params, distances: jax.Array, key: Key) -> jax.Array:
        directions = metrics.random_directions(key, params, 1, distribution)
        direction = jax.tree.map(lambda x: x[0], directions)
        return metrics.loss_curve(loss_fn, params, direction, distances)

    return _jit_on_the_set(network, conditions, batch_size, instrument)


@functools.lru_cache(maxsize=16)
def _jit_asymmetry_index(
    network: Network, conditions: metrics.Conditions, batch_size: int, num_directions: int
) -> Callable[..., Any]:
    def instrument(
        loss_fn: LossFn, params: Params, distance: Scalar, key: Key
    ) -> metrics.AsymmetryIndex:
        return metrics.asymmetry_index(
            loss_fn, params, distance, key=key, num_directions=num_directions, **RELATIVE
        )

    return _jit_on_the_set(network, conditions, batch_size, instrument)


@functools.lru_cache(maxsize=16)
def _jit_level_set_widths(
    network: Network,
    conditions: metrics.Conditions,
    batch_size: int,
    num_directions: int,
    doublings: int,
    bisections: int,
) -> Callable[..., Any]:
    def instrument(
        loss_fn: LossFn, params: Params, rise: Scalar, max_distance: Scalar, key: Key
    ) -> metrics.LevelSetWidths:
        return metrics.level_set_widths(
            loss_fn,
            params,
            rise=rise,
            max_distance=max_distance,
            key=key,
            num_directions=num_directions,
            doublings=doublings,
            bisections=bisections,
            **RELATIVE,
        )

    return _jit_on_the_set(network, conditions, batch_size, instrument)


def _jit_on_the_set(
    network: Network,
    conditions: metrics.Conditions,
    batch_size: int,
    instrument: Callable[..., Any],
) -> Callable[..., Any]:
    """Compile an instrument of the loss over the whole training set."""

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


def _mean(name: str, values: jax.Array) -> Record:
    """Return the mean over the directions with its standard error, NaN for one direction."""
    return {f"mean_{name}": jnp.mean(values), f"mean_{name}_stderr": standard_error(values)}


def _key(settings: ml_collections.ConfigDict) -> Key:
    return stream(jax.random.key(settings.seed), "directions")
