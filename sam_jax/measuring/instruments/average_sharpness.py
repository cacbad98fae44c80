"""Average sharpness: random perturbations, on batches of the training set."""

import functools
from collections.abc import Callable, Iterator

import jax

from sam_jax import metrics
from sam_jax.measuring.compiled import jit_on_batches
from sam_jax.measuring.conditions import one_at_a_time, plan_batches
from sam_jax.measuring.instrument import Column, Instrument, Subject, Take
from sam_jax.measuring.measured import Network
from sam_jax.runs.fields import positive, several, whole
from sam_jax.runs.randomness import stream
from sam_jax.runs.records import Record, as_read
from sam_jax.training.device_data import device_mesh
from sam_jax.typing import Batch, Key, LossFn, Params


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield, for every m and rho, the settings and what measures with them.

    The perturbation does not depend on m. With running statistics and the same examples the loss
    does not either: one measurement then stands for every m.
    """
    measured, settings, preset, _ = subject
    c, conditions = settings.average, preset.average
    law = preset.average_distribution
    m_matters = conditions.batch_norm == "batch" or not conditions.same_examples
    cut = {m: m if m_matters else min(c.m) for m in c.m}  # m -> the m that it is measured with
    plans = {m: plan_batches(measured, settings, conditions, m, c.batches) for m in cut.values()}
    batches_of = one_at_a_time(plans)

    @functools.cache
    def take(m: int, rho: float) -> Record:
        instrument = _jit(measured.network, conditions, c.draws, law)
        key = stream(jax.random.key(settings.seed), "average sharpness")
        result = instrument(measured.params, measured.batch_stats, batches_of(m), rho, key)
        return as_read(result._asdict())

    for m, measured_m in cut.items():
        for rho in c.rho:
            count, _ = plans[measured_m]
            about = {
                "m": m,
                "measured_rho": rho,
                "draws": c.draws,
                "examples": count * measured_m,
                "distribution": law,
            }
            yield about, functools.partial(take, measured_m, rho)


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network, conditions: metrics.Conditions, draws: int, distribution: str
) -> Callable[..., metrics.AverageSharpness]:
    def instrument(
        loss_fn: LossFn, params: Params, batches: Batch, rho: jax.Array, key: Key
    ) -> metrics.AverageSharpness:
        return metrics.average_sharpness(
            loss_fn,
            params,
            batches,
            rho=rho,
            key=key,
            draws=draws,
            distribution=distribution,
            mesh=device_mesh(),
        )

    return jit_on_batches(network, conditions, instrument)


INSTRUMENT = Instrument(
    name="average_sharpness",
    title="Average sharpness",
    plan=plan,
    group="average",
    settings={"m": (32, 144), "rho": (0.5, 1.0), "batches": 1, "draws": 15},
    ranges={
        "m": several(whole(1), least=1, distinct=True),
        "rho": several(positive(), least=1, distinct=True),
        "batches": whole(1),
        "draws": whole(1),
    },
    smoke={"m": (16, 32), "draws": 3},
    presets=("sound", "published"),
    identity=("distribution", "m", "measured_rho"),
    columns=(
        Column("perturbed_loss", "loss", "Average loss", "nats", better="min"),
        Column("sharpness", "sharpness", "Average sharpness", "nats", better="min"),
    ),
)
