"""The largest eigenvalues of the Hessian, and the largest beside the last of them."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

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
    """Yield the settings of the eigenvalues and what measures with them.

    The loss is the mean over the whole training set, without weight decay, over all parameters. The
    ratio is lambda_1 / lambda_k with k = `count`, which the SAM paper gives for k = 5. It is NaN
    where lambda_k is not positive.
    """
    measured, settings, preset, _ = subject
    c = settings.top_eigenvalues

    def take() -> Record:
        instrument = _jit(measured.network, preset.asymmetry, settings.batch_size, c.steps, c.count)
        key = stream(jax.random.key(settings.seed), "top eigenvalues")
        found = instrument(*model_and_set(measured), key)
        ratio = jnp.where(found.top[-1] > 0, found.top[0] / found.top[-1], jnp.nan)
        return as_read(
            {
                "top_eigenvalue": found.top[0],
                "ratio": ratio,
                "eigenvalues": found.top,
                "residuals": found.top_residuals,
            }
        )

    yield {"steps": c.steps, "count": c.count}, take


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network, conditions: metrics.Conditions, batch_size: int, steps: int, count: int
) -> Callable[..., metrics.HessianEigenvalues]:
    def instrument(
        loss_fn: LossFn, params: Params, batches: Batch, weights: jax.Array, key: Key
    ) -> metrics.HessianEigenvalues:
        return metrics.hessian_eigenvalues(
            loss_fn,
            params,
            batches,
            key=key,
            num_eigenvalues=count,
            steps=steps,
            weights=weights,
            mesh=device_mesh(),
        )

    return jit_on_set_batches(network, conditions, batch_size, instrument)


INSTRUMENT = Instrument(
    name="top_eigenvalues",
    title="Top eigenvalues",
    plan=plan,
    settings={"steps": 40, "count": 5},
    ranges={"steps": whole(1), "count": whole(1)},
    smoke={"steps": 3, "count": 2},
    identity=("count",),
    columns=(
        Column("top_eigenvalue", "top λ", unit="nats"),
        Column("ratio", "top λ / last λ"),
    ),
    by_default=False,
)
