"""The figures: error against rho for several m, and the densities of the Hessian's eigenvalues."""

import numpy as np

from experiments.sam_paper.results import PaperResults
from experiments.study.figures import ReportFigure, draw_cells, draw_reference
from experiments.study.outcomes import ERROR
from experiments.study.table import means_over_seeds
from sam_jax import plotting

M_CAPTION = (
    "Test error of SAM against the radius ρ, for several m, the number of examples that share a "
    "perturbation; bars: standard error over seeds. The dashed line is SGD."
)
SPECTRA_CAPTION = (
    "Density of the eigenvalues of the Hessian of the training loss at the kept checkpoints, mean "
    "over the seeds: SGD above, SAM below. The ordinate is logarithmic and ends at a millionth of "
    "the highest density."
)
LEAST_DENSITY = 1e-6  # of the highest: below it the curve shows only how the quadrature broadens


def error_by_m(results: PaperResults) -> ReportFigure:
    """Return the errors of the ablation of m, a line for each m."""
    figure, (axes,) = plotting.small_multiples(1, 1, panel=(5.4, 3.6))
    arms = results.plan.by_m
    choices = list(dict.fromkeys(arm.m for arm in arms))
    for m, look in zip(choices, plotting.styles(choices), strict=True):
        chosen = [arm for arm in arms if arm.m == m]
        cells = means_over_seeds(results, ERROR, chosen)
        draw_cells(axes, [arm.rho for arm in chosen], cells, look, f"m = {m}")
    (sgd,) = means_over_seeds(results, ERROR, [results.plan.spectra.sgd])
    draw_reference(axes, sgd.mean, "SGD")
    plotting.set_scale(axes, "x", [arm.rho for arm in arms])
    plotting.label_axes(axes, "", "ρ", "Test error / %")
    axes.legend(fontsize=plotting.FONT_SIZE - 1, frameon=False)
    return ReportFigure("Figure 1", "error_by_m", M_CAPTION, figure, 1)


def spectral_densities(results: PaperResults) -> ReportFigure:
    """Return the densities at the kept checkpoints, a panel a checkpoint and method."""
    records = {
        label: results.spectrum("spectral_density", arm)
        for label, arm in zip(("SGD", "SAM"), results.plan.spectra, strict=True)
    }
    epochs = {label: sorted({r["epoch"] for r in found}) for label, found in records.items()}
    count = sum(map(len, epochs.values()))
    columns = max(map(len, epochs.values()))
    figure, panels = plotting.small_multiples(count, columns, panel=(2.7, 2.3))
    shown = [(label, epoch) for label, found in epochs.items() for epoch in found]
    everything = [value for found in records.values() for r in found for value in r["grid"]]
    for axes, (label, epoch) in zip(panels, shown, strict=True):
        found = [r for r in records[label] if r["epoch"] == epoch]
        grid = np.linspace(min(everything), max(everything), 400)
        densities = [np.interp(grid, r["grid"], r["density"], 0.0, 0.0) for r in found]
        mean = np.mean(densities, axis=0)
        axes.semilogy(grid, np.maximum(mean, LEAST_DENSITY * mean.max()), color=plotting.PALETTE[1])
        plotting.label_axes(axes, f"{label}, epoch {epoch}", "eigenvalue", "density")
    return ReportFigure("Figure 2", "spectral_densities", SPECTRA_CAPTION, figure, 2)
