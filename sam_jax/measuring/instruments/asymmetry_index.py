"""The asymmetry index of the training loss, along directions as long as the filters."""

import functools
from collections.abc import Callable, Iterator

import jax.numpy as jnp

from sam_jax import metrics
from sam_jax.measuring.along_directions import RELATIVE, directions_key
from sam_jax.measuring.compiled import jit_on_the_set
from sam_jax.measuring.conditions import model_and_set
from sam_jax.measuring.instrument import Column, Instrument, Subject, Take, with_stderr
from sam_jax.measuring.measured import Network
from sam_jax.runs.fields import positive, whole
from sam_jax.runs.records import Record, as_read
from sam_jax.training.device_data import device_mesh
from sam_jax.typing import Key, LossFn, Params, Scalar


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield the settings of the asymmetry index and what measures with them."""
    measured, settings, preset, _ = subject
    c = settings.asymmetry_index

    def take() -> Record:
        instrument = _jit(measured.network, preset.asymmetry, settings.batch_size, c.num_directions)
        result = instrument(*model_and_set(measured), c.distance, directions_key(settings))
        fields = result._asdict()
        # Direction by direction they are half the difference and half the sum of the rises.
        odd, even = fields.pop("odd"), fields.pop("even")
        means = with_stderr("mean_absolute_odd", jnp.abs(odd)) | with_stderr("mean_even", even)
        return as_read(fields | means)

    yield {**RELATIVE, "distance": c.distance, "num_directions": c.num_directions}, take


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network, conditions: metrics.Conditions, batch_size: int, num_directions: int
) -> Callable[..., metrics.AsymmetryIndex]:
    def instrument(
        loss_fn: LossFn, params: Params, distance: Scalar, key: Key
    ) -> metrics.AsymmetryIndex:
        return metrics.asymmetry_index(
            loss_fn,
            params,
            distance,
            key=key,
            num_directions=num_directions,
            mesh=device_mesh(),
            **RELATIVE,
        )

    return jit_on_the_set(network, conditions, batch_size, instrument)


INSTRUMENT = Instrument(
    name="asymmetry_index",
    title="Asymmetry index",
    plan=plan,
    settings={"distance": 0.25, "num_directions": 30},
    ranges={"distance": positive(), "num_directions": whole(1)},
    smoke={"num_directions": 2},
    identity=("distribution", "normalisation", "distance"),
    columns=(
        Column("index", "1 − mean |a|"),
        Column("mean_absolute_odd", "odd part", unit="nats"),
        Column("mean_even", "even part", unit="nats"),
    ),
)
