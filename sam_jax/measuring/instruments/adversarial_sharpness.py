"""Adversarial sharpness by one ascent step, on batches of the training set."""

import functools
from collections.abc import Callable, Iterator

import jax

from sam_jax import metrics
from sam_jax.measuring.compiled import jit_on_batches
from sam_jax.measuring.conditions import one_at_a_time, plan_batches
from sam_jax.measuring.instrument import Column, Instrument, Subject, Take
from sam_jax.measuring.measured import Network
from sam_jax.runs.fields import positive, several, whole
from sam_jax.runs.records import Record, as_read
from sam_jax.training.device_data import device_mesh
from sam_jax.typing import Batch, LossFn, Params


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield, for every m and rho, the settings and what measures with them."""
    measured, settings, preset, _ = subject
    c, conditions = settings.adversarial, preset.adversarial
    plans = {m: plan_batches(measured, settings, conditions, m, c.batches) for m in c.m}
    batches_of = one_at_a_time(plans)

    def take(m: int, rho: float) -> Record:
        instrument = _jit(measured.network, conditions)
        result = instrument(measured.params, measured.batch_stats, batches_of(m), rho)
        return as_read(result._asdict())

    for m in c.m:
        for rho in c.rho:
            count, _ = plans[m]
            about = {"m": m, "measured_rho": rho, "n": count, "examples": count * m}
            yield about, functools.partial(take, m, rho)


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network, conditions: metrics.Conditions
) -> Callable[..., metrics.AdversarialSharpness]:
    def instrument(
        loss_fn: LossFn, params: Params, batches: Batch, rho: jax.Array
    ) -> metrics.AdversarialSharpness:
        return metrics.adversarial_sharpness(loss_fn, params, batches, rho=rho, mesh=device_mesh())

    return jit_on_batches(network, conditions, instrument)


INSTRUMENT = Instrument(
    name="adversarial_sharpness",
    title="Adversarial sharpness",
    plan=plan,
    group="adversarial",
    settings={"m": (32, 144), "rho": (0.05, 0.1, 0.2), "batches": 4},
    ranges={
        "m": several(whole(1), least=1, distinct=True),
        "rho": several(positive(), least=1, distinct=True),
        "batches": whole(1),
    },
    smoke={"m": (16, 32), "batches": 2},
    presets=("sound", "published"),
    identity=("m", "measured_rho"),
    columns=(
        Column("perturbed_loss", "loss", "Adversarial loss", "nats", better="min"),
        Column("sharpness", "sharpness", "Adversarial sharpness", "nats", better="min"),
    ),
)
