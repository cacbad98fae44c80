"""The density of the Hessian's eigenvalues, by stochastic Lanczos quadrature."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from sam_jax import metrics
from sam_jax.measuring.compiled import jit_on_set_batches
from sam_jax.measuring.conditions import model_and_set
from sam_jax.measuring.instrument import Column, Instrument, Subject, Take, with_stderr
from sam_jax.measuring.measured import Network
from sam_jax.runs.fields import number, whole
from sam_jax.runs.randomness import stream
from sam_jax.runs.records import Record, as_read
from sam_jax.training.device_data import device_mesh
from sam_jax.typing import Batch, Key, LossFn, Params


def plan(subject: Subject) -> Iterator[tuple[Record, Take]]:
    """Yield the settings of the density and what measures with them.

    The loss is that of the whole training set, without weight decay, over all parameters. The
    quadrature stands in the record too: of it `metrics.curvature.density.broaden` makes the density
    at another width or on another grid. Its `width` is the one that was used, where the settings
    may leave the choice to the instrument.
    """
    measured, settings, preset, _ = subject
    c = settings.spectral_density

    def take() -> Record:
        instrument = _jit(
            measured.network,
            preset.asymmetry,
            settings.batch_size,
            steps=c.steps,
            draws=c.draws,
            width=c.width or None,
            num_points=c.num_points,
        )
        key = stream(jax.random.key(settings.seed), "spectral density")
        result = instrument(*model_and_set(measured), key)
        return as_read({**_moments(result), **result._asdict()})

    yield {name: c[name] for name in ("steps", "draws", "num_points")}, take


def _moments(result: metrics.SpectralDensity) -> Record:
    """Return the moments of the quadratures, with standard errors over the draws."""
    values, weights = result.ritz_values, result.ritz_weights
    means = jnp.sum(weights * values, axis=1)
    negative = jnp.sum(jnp.where(values < 0, weights, 0), axis=1)
    return with_stderr("mean_eigenvalue", means) | with_stderr("negative_share", negative)


@functools.lru_cache(maxsize=16)
def _jit(
    network: Network,
    conditions: metrics.Conditions,
    batch_size: int,
    *,
    steps: int,
    draws: int,
    width: float | None,
    num_points: int,
) -> Callable[..., metrics.SpectralDensity]:
    def instrument(
        loss_fn: LossFn, params: Params, batches: Batch, weights: jax.Array, key: Key
    ) -> metrics.SpectralDensity:
        return metrics.spectral_density(
            loss_fn,
            params,
            batches,
            key=key,
            draws=draws,
            steps=steps,
            width=width,
            num_points=num_points,
            weights=weights,
            mesh=device_mesh(),
        )

    return jit_on_set_batches(network, conditions, batch_size, instrument)


INSTRUMENT = Instrument(
    name="spectral_density",
    title="Spectral density",
    plan=plan,
    settings={"steps": 40, "draws": 5, "width": 0.0, "num_points": 256},
    ranges={
        "steps": whole(1),
        "draws": whole(1),
        "width": number(0),
        "num_points": whole(2),
    },
    smoke={"steps": 3, "draws": 2, "num_points": 16},
    columns=(
        Column("mean_eigenvalue", "mean λ", unit="nats"),
        Column("negative_share", "share below 0"),
    ),
    by_default=False,
)
