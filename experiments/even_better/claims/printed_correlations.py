"""The correlations that the study printed, recomputed from its tables and from these runs."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.even_better.claims.evidence import Evidence, Quantity, study
from experiments.even_better.tables.correlations import RESAMPLES
from experiments.study.evidence import arm_means
from sam_jax import statistics


class PrintedCorrelation(NamedTuple):
    """Pearson's r of a quantity with the test loss, as a figure of the study prints it."""

    figure: int
    label: str
    printed: str
    values: Callable[[Evidence], np.ndarray]  # shape [models]
    without: tuple[str, str, float] | None = None  # the model that is left out


class Recomputed(NamedTuple):
    """The same correlation from the study's tables and from these runs."""

    source: PrintedCorrelation
    study: statistics.Correlation  # corrected tables
    ranks: statistics.Correlation  # Spearman's of the same
    as_printed: statistics.Correlation  # tables as they were printed
    run: statistics.Correlation


def _column(
    name: str, measured_batch: str | None = None, measured_rho: float | None = None
) -> Callable[[Evidence], np.ndarray]:
    quantity = Quantity(name, measured_batch, measured_rho)
    return lambda evidence: arm_means(evidence, quantity)


def _unperturbed(evidence: Evidence) -> np.ndarray:
    # The loss with the batch statistics of the small m.
    perturbed, sharpness = (
        arm_means(evidence, Quantity(name, "small", 0.05))
        for name in ("adversarial_loss", "adversarial_sharpness")
    )
    return perturbed - sharpness


PRINTED = (
    PrintedCorrelation(5, "Ω, without 128-avg-SAM ρ = 0.5", ".527", _column("asymmetry_factor"),
                       ("average_sam", "small", 0.5)),
    PrintedCorrelation(5, "Ω, all models", ".359", _column("asymmetry_factor")),
    *(
        PrintedCorrelation(3, f"adversarial loss, m = {m}, ρ = {rho:g}", printed,
                           _column("adversarial_loss", batch, rho))
        for m, batch, radii in (
            (128, "small", ((0.05, ".76"), (0.1, ".97"), (0.2, ".93"))),
            (5000, "large", ((0.05, "-.04"), (0.1, ".19"), (0.2, ".60"))),
        )
        for rho, printed in radii
    ),
    PrintedCorrelation(10, "training loss, batch statistics of 128", "-.193", _unperturbed),
    *(
        PrintedCorrelation(10, f"average loss, m = {m}, σ = {sigma:g}", printed,
                           _column("average_loss", batch, sigma))
        for m, batch, sigmas in (
            (128, "small", ((0.5, ".597"), (1.0, ".360"))),
            (5000, "large", ((0.5, ".554"), (1.0, "-.064"))),
        )
        for sigma, printed in sigmas
    ),
)  # fmt: skip


def recompute(run: Evidence) -> list[Recomputed]:
    """Return every printed correlation from the study's tables and from these runs.

    Args:
      run: These runs, measured with the published preset.
    """
    corrected, printed = study(), study(printed=True)
    return [
        Recomputed(
            source,
            _correlate(source, corrected),
            _correlate(source, corrected, "spearman"),
            _correlate(source, printed),
            _correlate(source, run),
        )
        for source in PRINTED
    ]


def _correlate(
    source: PrintedCorrelation, evidence: Evidence, method: str = "pearson"
) -> statistics.Correlation:
    rows = evidence.group(*source.without) if source.without else []
    x, y = source.values(evidence), arm_means(evidence, Quantity("test_loss"))
    return statistics.correlation(
        np.delete(x, rows), np.delete(y, rows), method, resamples=RESAMPLES
    )
