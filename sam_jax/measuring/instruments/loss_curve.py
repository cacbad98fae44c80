"""The training loss along one random direction of unit norm, at equal distances."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import metrics
from sam_jax.measuring.along_directions import directions_key
from sam_jax.measuring.compiled import jit_on_the_set
from sam_jax.measuring.conditions import model_and_set
from sam_jax.measuring.instrument import Instrument, Subject, Take
from sam_jax.measuring.measured import Network
from sam_jax.runs.fields import positive, whole
from sam_jax.runs.records import Record, as_read
from sam_jax.training.device_data import device_mesh
from sam_jax.typing import Key, LossFn, Params


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield the settings of the loss curve and what measures with them."""
    measured, settings, preset, _ = subject
    c, law = settings.curve, preset.asymmetry_distribution
    distances = np.linspace(-c.limit, c.limit, c.points)

    def take() -> Record:
        instrument = _jit(measured.network, preset.curve, settings.batch_size, law)
        points = jnp.asarray(distances, jnp.float32)
        losses = instrument(*model_and_set(measured), points, directions_key(settings))
        return as_read({"losses": losses})

    yield {"distribution": law, "distances": distances.tolist()}, take


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network, conditions: metrics.Conditions, batch_size: int, distribution: str
) -> Callable[..., jax.Array]:
    def instrument(loss_fn: LossFn, params: Params, distances: jax.Array, key: Key) -> jax.Array:
        directions = metrics.random_directions(key, params, 1, distribution)
        direction = jax.tree.map(lambda x: x[0], directions)
        return metrics.loss_curve(loss_fn, params, direction, distances, mesh=device_mesh())

    return jit_on_the_set(network, conditions, batch_size, instrument)


INSTRUMENT = Instrument(
    name="loss_curve",
    title="Loss curve",
    plan=plan,
    group="curve",
    settings={"limit": 5.0, "points": 21},
    ranges={"limit": positive(), "points": whole(2)},
    smoke={"points": 5},
    presets=("sound", "published"),
    identity=("distribution",),
)
