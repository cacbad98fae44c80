"""Worst-case sharpness: many ascent steps in a chosen ball, adaptive ones included."""

import functools
from collections.abc import Callable, Iterator
from typing import Literal

import jax

from sam_jax import metrics
from sam_jax.measuring.compiled import jit_on_batches
from sam_jax.measuring.conditions import one_at_a_time, plan_batches
from sam_jax.measuring.instrument import Column, Instrument, Subject, Take
from sam_jax.measuring.measured import Network
from sam_jax.runs.fields import flag, items, number, one_of, positive, several, whole
from sam_jax.runs.randomness import stream
from sam_jax.runs.records import Record, as_read
from sam_jax.training.device_data import device_mesh
from sam_jax.typing import Batch, Key, LossFn, Params


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield, for every m and ball, the settings and what measures with them.

    A ball is (norm, whether it is adaptive, rho), see `metrics.adversarial_sharpness`.
    """
    measured, settings, preset, _ = subject
    c, conditions = settings.worst_case_sharpness, preset.adversarial
    plans = {m: plan_batches(measured, settings, conditions, m, c.batches) for m in c.m}
    batches_of = one_at_a_time(plans)

    def take(m: int, norm: str, adaptive: bool, rho: float) -> Record:
        instrument = _jit(
            measured.network,
            conditions,
            norm=norm,
            adaptive=adaptive,
            steps=c.steps,
            step_rule=c.step_rule,
            step_size=c.step_size,
            restarts=c.restarts,
        )
        key = stream(jax.random.key(settings.seed), "worst-case sharpness")
        result = instrument(measured.params, measured.batch_stats, batches_of(m), rho, key)
        return as_read(result._asdict())

    for m in c.m:
        for norm, adaptive, rho in c.balls:
            count, _ = plans[m]
            about = {
                **{"norm": norm, "adaptive": adaptive, "m": m, "measured_rho": rho},
                **{name: c[name] for name in ("steps", "step_rule", "step_size", "restarts")},
                **{"n": count, "examples": count * m},
            }
            yield about, functools.partial(take, m, norm, adaptive, rho)


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network,
    conditions: metrics.Conditions,
    *,
    norm: Literal["l2", "linf"],
    adaptive: bool,
    steps: int,
    step_rule: Literal["adaptive", "fixed", "halved"],
    step_size: float,
    restarts: int,
) -> Callable[..., metrics.AdversarialSharpness]:
    def instrument(
        loss_fn: LossFn, params: Params, batches: Batch, rho: jax.Array, key: Key
    ) -> metrics.AdversarialSharpness:
        length = step_size * rho if step_size else None
        if step_rule == "halved":
            length = metrics.halved_by_quarters(rho if length is None else length, steps)
        return metrics.adversarial_sharpness(
            loss_fn,
            params,
            batches,
            rho=rho,
            steps=steps,
            step_size=length,
            step_rule="fixed" if step_rule == "halved" else step_rule,
            restarts=restarts,
            key=key if restarts else None,
            norm=norm,
            adaptive=adaptive,
            mesh=device_mesh(),
        )

    return jit_on_batches(network, conditions, instrument)


INSTRUMENT = Instrument(
    name="worst_case_sharpness",
    title="Worst-case sharpness",
    plan=plan,
    settings={
        "m": (144,),
        "balls": (
            ("l2", False, 0.2),
            ("l2", True, 0.2),
            ("linf", False, 0.003),
            ("linf", True, 0.01),
        ),
        "batches": 4,
        "steps": 20,
        "step_rule": "adaptive",
        "step_size": 0.0,
        "restarts": 0,
    },
    ranges={
        "m": several(whole(1), least=1, distinct=True),
        "balls": several(items(one_of(("l2", "linf")), flag(), positive()), least=1, distinct=True),
        "batches": whole(1),
        "steps": whole(1),
        "step_rule": one_of(("adaptive", "halved", "fixed")),
        "step_size": number(0),
        "restarts": whole(0),
    },
    smoke={"m": (32,), "batches": 2, "steps": 3},
    presets=("sound", "published"),
    identity=("norm", "adaptive", "m", "measured_rho"),
    columns=(
        Column("perturbed_loss", "loss", "Worst-case loss", "nats", better="min"),
        Column("sharpness", "sharpness", "Worst-case sharpness", "nats", better="min"),
    ),
    by_default=False,
)
