"""The asymmetry factor of the training loss, along directions of unit norm."""

import functools
from collections.abc import Callable, Iterator

from sam_jax import metrics
from sam_jax.measuring.along_directions import directions_key
from sam_jax.measuring.compiled import jit_on_the_set
from sam_jax.measuring.conditions import model_and_set
from sam_jax.measuring.instrument import Column, Instrument, Subject, Take
from sam_jax.measuring.measured import Network
from sam_jax.runs.fields import positive, whole
from sam_jax.runs.records import Record, as_read
from sam_jax.training.device_data import device_mesh
from sam_jax.typing import Key, LossFn, Params, Scalar


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield the settings of the asymmetry factor and what measures with them."""
    measured, settings, preset, _ = subject
    c, law = settings.asymmetry, preset.asymmetry_distribution

    def take() -> Record:
        instrument = _jit(
            measured.network, preset.asymmetry, settings.batch_size, c.num_directions, law
        )
        result = instrument(*model_and_set(measured), c.distance, directions_key(settings))
        return as_read(result._asdict())

    yield {"distribution": law, "distance": c.distance, "num_directions": c.num_directions}, take


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network,
    conditions: metrics.Conditions,
    batch_size: int,
    num_directions: int,
    distribution: str,
) -> Callable[..., metrics.AsymmetryFactor]:
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
            mesh=device_mesh(),
        )

    return jit_on_the_set(network, conditions, batch_size, instrument)


INSTRUMENT = Instrument(
    name="asymmetry_factor",
    title="Asymmetry factor",
    plan=plan,
    group="asymmetry",
    settings={"distance": 5.0, "num_directions": 30},
    ranges={"distance": positive(), "num_directions": whole(1)},
    smoke={"num_directions": 3},
    presets=("sound", "published"),
    identity=("distribution", "distance"),
    columns=(Column("factor", "Ω", "Asymmetry factor", better="min", floor=0.0),),
)
