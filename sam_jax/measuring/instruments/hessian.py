"""The Hessian of the training loss of a trained model: both ends of its spectrum and its trace."""

import functools
from collections.abc import Callable, Iterator

import jax

from sam_jax import metrics
from sam_jax.measuring.compiled import jit_on_set_batches
from sam_jax.measuring.conditions import model_and_set
from sam_jax.measuring.instrument import Column, Instrument, Subject, Take
from sam_jax.measuring.measured import Network
from sam_jax.runs.fields import whole
from sam_jax.runs.randomness import stream
from sam_jax.runs.records import Record, as_read
from sam_jax.training.device_data import device_mesh
from sam_jax.typing import Batch, Key, LossFn, Params


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield the settings of the Hessian and what measures with them.

    The loss is the mean over the whole training set, without weight decay, over all parameters. A
    residual bounds the distance from its eigenvalue to one of the Hessian.
    """
    measured, settings, preset, _ = subject
    c = settings.hessian

    def take() -> Record:
        instrument = _jit(measured.network, preset.asymmetry, settings.batch_size, c.steps, c.draws)
        key = stream(jax.random.key(settings.seed), "hessian")
        ends, trace = instrument(*model_and_set(measured), key)
        return as_read(
            {
                "top_eigenvalue": ends.top[0],
                "top_residual": ends.top_residuals[0],
                "bottom_eigenvalue": ends.bottom[0],
                "bottom_residual": ends.bottom_residuals[0],
                "trace": trace.trace,
                "trace_stderr": trace.stderr,
            }
        )

    yield {"steps": c.steps, "draws": c.draws}, take


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network, conditions: metrics.Conditions, batch_size: int, steps: int, draws: int
) -> Callable[..., tuple[metrics.HessianEigenvalues, metrics.HessianTrace]]:
    def instrument(
        loss_fn: LossFn, params: Params, batches: Batch, weights: jax.Array, key: Key
    ) -> tuple[metrics.HessianEigenvalues, metrics.HessianTrace]:
        ends = metrics.hessian_eigenvalues(
            loss_fn,
            params,
            batches,
            key=stream(key, "eigenvalues"),
            steps=steps,
            weights=weights,
            mesh=device_mesh(),
        )
        trace = metrics.hessian_trace(
            loss_fn,
            params,
            batches,
            key=stream(key, "trace"),
            draws=draws,
            weights=weights,
            mesh=device_mesh(),
        )
        return ends, trace

    return jit_on_set_batches(network, conditions, batch_size, instrument)


INSTRUMENT = Instrument(
    name="hessian",
    title="Hessian",
    plan=plan,
    settings={"steps": 20, "draws": 10},
    ranges={"steps": whole(1), "draws": whole(1)},
    smoke={"steps": 3, "draws": 2},
    columns=(
        Column("top_eigenvalue", "top λ", unit="nats"),
        Column("bottom_eigenvalue", "bottom λ", unit="nats"),
        Column("trace", "trace", unit="nats"),
    ),
)
