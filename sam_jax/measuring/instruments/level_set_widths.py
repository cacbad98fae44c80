"""The widths of a level set of the training loss, along directions as long as the filters."""

import functools
from collections.abc import Callable, Iterator

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
    """Yield the settings of the widths of a level set and what measures with them."""
    measured, settings, preset, _ = subject
    c = settings.level_set_widths

    def take() -> Record:
        instrument = _jit(
            measured.network,
            preset.asymmetry,
            settings.batch_size,
            num_directions=c.num_directions,
            doublings=c.doublings,
            bisections=c.bisections,
        )
        model, key = model_and_set(measured), directions_key(settings)
        result = instrument(*model, c.rise, c.max_distance, key)
        # Censored widths count as max_distance: the mean is then a lower bound.
        width = (result.plus + result.minus) / 2
        return as_read(result._asdict() | with_stderr("mean_width", width))

    yield {**RELATIVE, **c.to_dict()}, take


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network,
    conditions: metrics.Conditions,
    batch_size: int,
    num_directions: int,
    doublings: int,
    bisections: int,
) -> Callable[..., metrics.LevelSetWidths]:
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
            mesh=device_mesh(),
            **RELATIVE,
        )

    return jit_on_the_set(network, conditions, batch_size, instrument)


INSTRUMENT = Instrument(
    name="level_set_widths",
    title="Level sets",
    plan=plan,
    settings={
        "rise": 0.1,
        "max_distance": 1.0,
        "num_directions": 6,
        "doublings": 5,
        "bisections": 6,
    },
    ranges={
        "rise": positive(),
        "max_distance": positive(),
        "num_directions": whole(1),
        "doublings": whole(1),
        "bisections": whole(1),
    },
    smoke={"num_directions": 2, "doublings": 2, "bisections": 2},
    identity=("distribution", "normalisation", "rise"),
    columns=(
        Column("factor", "min / max"),
        Column("mean_width", "width", unit="filter norms"),
    ),
)
