"""The figures of the diagonal networks."""

from collections.abc import Callable

import numpy as np

from experiments.study.figures import ReportFigure
from experiments.understanding.command import Results
from experiments.understanding.diagonal_nets.arms import (
    ARMS,
    CELL_5,
    DERIVATIVE,
    GD,
    N_SAM,
    ONE_SAM,
    Arm,
)
from experiments.understanding.diagonal_nets.data import make_data
from experiments.understanding.diagonal_nets.run import losses_between
from experiments.understanding.diagonal_nets.sweep import Weights
from sam_jax import plotting

CELLS = {
    "1": "n-SAM, α = 0.1, γ = 1/6",
    "2": "1-SAM, α = 0.02, γ = 1/6",
    "3": "1-SAM, α = 0.1, γ = 1/3",
}


def figures(results: Results) -> list[ReportFigure]:
    """Return all figures, numbered."""
    drawn = (over_iterations, chained, over_rho, learned_weights, between)
    return [draw(results, f"Figure {number}") for number, draw in enumerate(drawn, start=1)]


def over_iterations(results: Results, name: str) -> ReportFigure:
    """Return training and test losses against the iteration, for three cells."""
    figure, panels = plotting.small_multiples(6, 3)
    iterations = results["logged"] + 1
    for row, measured in enumerate(("train_losses", "test_losses")):
        for axes, (cell, title) in zip(panels[3 * row :], CELLS.items(), strict=False):
            shown = [(i, arm) for i, arm in enumerate(ARMS) if arm.cell == cell]
            looks = plotting.styles([arm.label for _, arm in shown])
            for (i, arm), look in zip(shown, looks, strict=True):
                axes.plot(
                    iterations, results[measured][0, :, i], color=look.colour, label=arm.label
                )
            axes.set_xscale("log")
            axes.set_yscale("log")
            label = "Training loss" if row == 0 else "Test loss"
            plotting.label_axes(axes, "" if row else title, "Iteration", label)
            if row:
                axes.legend(fontsize=7, frameon=False)
    caption = "Losses of single methods against the iteration, cells 1 to 3."
    return ReportFigure(name, "losses_over_iterations", caption, figure)


def chained(results: Results, name: str) -> ReportFigure:
    """Return the losses of ERM, ERM -> 1-SAM and 1-SAM -> ERM over both phases."""
    figure, panels = plotting.small_multiples(2, 2, panel=(4.4, 3.2))
    count = results["logged"][-1] + 1
    iterations = np.concatenate([results["logged"] + 1, results["logged"] + 1 + count])
    chosen = [row for row, arm in enumerate(ARMS) if arm in CELL_5]
    for axes, measured in zip(panels, ("train_losses", "test_losses"), strict=True):
        for row, colour in zip(chosen, plotting.PALETTE, strict=False):
            values = results[measured][:, :, row].ravel()
            axes.plot(iterations, values, color=colour, label=ARMS[row].label)
        axes.axvline(count, color=plotting.GREY, linestyle="--", linewidth=1.0)
        axes.set_yscale("log")
        label = "Training loss" if measured == "train_losses" else "Test loss"
        plotting.label_axes(axes, "", "Iteration", label)
    plotting.shared_legend(figure, width=2.4, below=True)
    caption = "From GD to 1-SAM and from 1-SAM to GD, at the dashed line; cell 5."
    return ReportFigure(name, "fine_tuning", caption, figure)


def over_rho(results: Results, name: str) -> ReportFigure:
    """Return the final test loss against rho, with what cell 4 was meant to compare."""
    figure, panels = plotting.small_multiples(2, 2, panel=(4.4, 3.4))
    wanted: list[tuple[str, Callable[[Arm], bool]]] = [
        ("n-SAM, γ = 1/3 (as recorded)", lambda arm: arm.cell == "4" and _has(arm, N_SAM)),
        ("n-SAM, γ = 1/2", lambda arm: arm.cell == "beyond" and _has(arm, N_SAM)),
        ("1-SAM, γ = 1/2", lambda arm: arm.cell == "4" and _has(arm, ONE_SAM)),
        ("1-SAM, loss derivative only, γ = 1/2", lambda arm: _has(arm, DERIVATIVE)),
    ]
    looks = plotting.styles([label for label, _ in wanted])
    final = results["test_losses"][0, -1]
    for axes, scale in zip(panels, ("linear", "log"), strict=True):
        axes.axhline(final[_row("4", GD)], color=plotting.GREY, linestyle="--", label="GD, γ = 1/2")
        for (label, belongs), look in zip(wanted, looks, strict=True):
            rows = [row for row, arm in enumerate(ARMS) if belongs(arm)]
            radii = [ARMS[row].phases[0].rho for row in rows]
            axes.plot(radii, final[rows], look.marker + "-", color=look.colour, label=label)
        axes.set_xscale("log")
        axes.set_yscale(scale)
        plotting.label_axes(axes, "", "ρ", "Test loss after a phase")
    plotting.shared_legend(figure, width=2.9, below=True)
    caption = (
        "Test loss against ρ, on a linear and on a logarithmic scale; cell 4. Networks that "
        "diverged have no point."
    )
    return ReportFigure(name, "test_loss_over_rho", caption, figure)


def learned_weights(results: Results, name: str) -> ReportFigure:
    """Return u * v after a phase, of GD and the two SAMs, beside the teacher's."""
    figure, panels = plotting.small_multiples(3, 3, panel=(3.6, 2.8))
    teacher = make_data().teacher
    rows = [_row("4", GD), _row("4", N_SAM, 0.3), _row("4", ONE_SAM, 0.3)]
    coordinates = np.arange(len(teacher))
    for axes, row in zip(panels, rows, strict=True):
        axes.bar(coordinates, _product(results, row), color=plotting.PALETTE[1], label="u ∘ v")
        axes.plot(coordinates, teacher, "_", color=plotting.PALETTE[2], label="teacher")
        plotting.label_axes(axes, ARMS[row].label, "Coordinate", "Weight")
        axes.set_ylim(-0.3, 1.0)
    panels[-1].legend(fontsize=8, frameon=False)
    caption = "What the networks of cell 4 compute after a phase: u ∘ v beside the sparse teacher."
    return ReportFigure(name, "learned_weights", caption, figure)


def between(results: Results, name: str) -> ReportFigure:
    """Return the losses on the line through ERM -> 1-SAM (0) and ERM (1)."""
    figure, (axes,) = plotting.small_multiples(1, 1, panel=(5.0, 3.4))
    erm, erm_sam = (ARMS.index(arm) for arm in CELL_5[:2])
    first = Weights(*(results[layer][1, erm_sam] for layer in "uv"))
    second = Weights(*(results[layer][0, erm] for layer in "uv"))
    alphas = np.linspace(-1, 2, 121)
    for label, losses, line in zip(
        ("Training loss", "Test loss"),
        losses_between(first, second, make_data(), alphas),
        plotting.LINES,
        strict=False,
    ):
        axes.plot(alphas, losses, line, color=plotting.PALETTE[1], label=label)
    for alpha, label, marker in ((0, "ERM → 1-SAM", "*"), (1, "ERM", "o")):
        _, losses = losses_between(first, second, make_data(), np.array([float(alpha)]))
        axes.plot(alpha, losses[0], marker, color=plotting.PALETTE[2], label=label)
    plotting.label_axes(axes, "", "Interpolation between weights", "Squared loss")
    axes.legend(fontsize=8, frameon=False)
    caption = "Loss on the line through the weights after GD and those after further 1-SAM; cell 7."
    return ReportFigure(name, "between_erm_and_sam", caption, figure)


def _has(arm: Arm, method: str) -> bool:
    return arm.lasting and arm.phases[0].method == method


def _row(cell: str, method: str, rho: float = 0.0) -> int:
    """Return the row of a network."""
    rows = [r for r, arm in enumerate(ARMS) if arm.cell == cell and _has(arm, method)]
    return next(row for row in rows if ARMS[row].phases[0].rho == rho)


def _product(results: Results, row: int) -> np.ndarray:
    return results["u"][0, row] * results["v"][0, row]
