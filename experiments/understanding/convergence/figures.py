"""The figures of the convergence experiment."""

import numpy as np
from matplotlib.figure import Figure

from experiments.study.figures import ReportFigure
from experiments.understanding.command import Results
from experiments.understanding.convergence.problems import KINDS
from experiments.understanding.convergence.quantities import SMALLEST
from experiments.understanding.convergence.run import ARMS, SCHEDULES, SUB_BATCHES, Settings
from experiments.understanding.convergence.training import METHODS
from sam_jax import plotting
from sam_jax.statistics import mean_and_stderr


def figures(results: Results, settings: Settings) -> list[ReportFigure]:
    """Return all figures."""
    caption = (
        "{} against the step: mean over seeds with its standard error. USAM above, SAM below; the "
        "radius and the step size are constant (solid) or decrease (dashed)."
    )
    drawn = (
        ("excess_loss", "Training loss − minimum"),
        ("squared_gradient", "Squared norm of the gradient"),
    )
    return [
        ReportFigure(
            f"Figure {number}", name, caption.format(words), _curves(results, settings, name, words)
        )
        for number, (name, words) in enumerate(drawn, start=1)
    ]


def _curves(results: Results, settings: Settings, quantity: str, words: str) -> Figure:
    """Return a panel for every method and problem."""
    figure, panels = plotting.small_multiples(len(METHODS) * len(KINDS), len(KINDS))
    parts = results[quantity].shape[-1]
    steps = (np.arange(parts) + 0.5) * (settings.steps / parts)
    places = [(method, kind) for method in METHODS for kind in KINDS]
    for axes, (method, kind) in zip(panels, places, strict=True):
        for row, arm in enumerate(ARMS):
            if (arm.method, arm.kind) != (method, kind):
                continue
            curve = results[quantity][row].T
            means = [mean_and_stderr(np.maximum(values, SMALLEST)) for values in curve]
            height, error = (
                np.array([getattr(m, name) for m in means]) for name in ("mean", "stderr")
            )
            colour = plotting.PALETTE[1 + SUB_BATCHES.index(arm.m)]
            line = plotting.LINES[SCHEDULES.index(arm.schedule)]
            label = f"m = {arm.m}, {arm.schedule}"
            axes.plot(steps, height, line, color=colour, label=label, linewidth=1.4)
            low = np.maximum(height - error, height / 10)  # a band that reaches zero ends nowhere
            axes.fill_between(steps, low, height + error, color=(colour, 0.15), linewidth=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        plotting.label_axes(axes, f"{method}: {kind.name}", "Step", words)
    plotting.shared_legend(figure, below=True)
    return figure
