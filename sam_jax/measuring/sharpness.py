"""Adversarial and average sharpness of a trained model, on batches of its training set."""

import functools
from collections.abc import Callable, Iterator

import jax
import ml_collections

from sam_jax import metrics
from sam_jax.measuring.conditions import Network, batch_loss_fn, network_of, plan_batches
from sam_jax.runs.randomness import stream
from sam_jax.runs.records import Record, as_read
from sam_jax.training.trained import Trained
from sam_jax.typing import Batch, Key, Params, PyTree


def adversarial_sharpness(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Yield, for every m and rho, the settings and what measures with them."""
    c, conditions, state = settings.adversarial, preset.adversarial, trained.state
    plans = {m: plan_batches(trained, settings, conditions, m, c.batches) for m in c.m}
    batches_of = _one_at_a_time(plans)

    def take(m: int, rho: float) -> Record:
        instrument = _jit_adversarial(network_of(trained), conditions)
        result = instrument(state.params, state.batch_stats, batches_of(m), rho)
        return as_read(result._asdict())

    for m in c.m:
        for rho in c.rho:
            count, _ = plans[m]
            about = {"m": m, "measured_rho": rho, "n": count, "examples": count * m}
            yield about, functools.partial(take, m, rho)


def average_sharpness(
    trained: Trained, settings: ml_collections.ConfigDict, preset: metrics.Preset
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Yield, for every m and rho, the settings and what measures with them.

    The perturbation does not depend on m. With running statistics and the same examples the loss
    does not either: one measurement then stands for every m.
    """
    c, conditions, state = settings.average, preset.average, trained.state
    law = preset.average_distribution
    m_matters = conditions.batch_norm == "batch" or not conditions.same_examples
    cut = {m: m if m_matters else min(c.m) for m in c.m}  # m -> the m that it is measured with
    plans = {m: plan_batches(trained, settings, conditions, m, c.batches) for m in cut.values()}
    batches_of = _one_at_a_time(plans)

    @functools.cache
    def take(m: int, rho: float) -> Record:
        instrument = _jit_average(network_of(trained), conditions, c.draws, law)
        key = stream(jax.random.key(settings.seed), "average sharpness")
        result = instrument(state.params, state.batch_stats, batches_of(m), rho, key)
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


def _one_at_a_time(plans: dict[int, tuple[int, Callable[[], Batch]]]) -> Callable[[int], Batch]:
    """Return a function from m to its batches, which keeps only those of the latest m."""

    @functools.lru_cache(maxsize=1)
    def batches_of(m: int) -> Batch:
        _, cut = plans[m]
        return cut()

    return batches_of


@functools.lru_cache(maxsize=16)
def _jit_adversarial(
    network: Network, conditions: metrics.Conditions
) -> Callable[..., metrics.AdversarialSharpness]:
    def measure(
        params: Params, batch_stats: PyTree, batches: Batch, rho: jax.Array
    ) -> metrics.AdversarialSharpness:
        loss_fn = batch_loss_fn(network, conditions, batch_stats)
        return metrics.adversarial_sharpness(loss_fn, params, batches, rho=rho)

    return jax.jit(measure)


@functools.lru_cache(maxsize=16)
def _jit_average(
    network: Network, conditions: metrics.Conditions, draws: int, distribution: str
) -> Callable[..., metrics.AverageSharpness]:
    def measure(
        params: Params, batch_stats: PyTree, batches: Batch, rho: jax.Array, key: Key
    ) -> metrics.AverageSharpness:
        loss_fn = batch_loss_fn(network, conditions, batch_stats)
        return metrics.average_sharpness(
            loss_fn, params, batches, rho=rho, key=key, draws=draws, distribution=distribution
        )

    return jax.jit(measure)
