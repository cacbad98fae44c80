"""The figures of the nets."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.study.figures import ReportFigure
from experiments.understanding.command import Results
from experiments.understanding.relu_nets.network import INPUTS, OUTPUTS, Net, predict
from experiments.understanding.relu_nets.run import ARMS
from experiments.understanding.relu_nets.table import NAMES
from sam_jax import plotting
from sam_jax.statistics import mean_and_stderr

MOST_SEEDS = 5  # that the first figure shows
MARGIN = 0.05  # of the grid, beyond the data's range
ALONG = "along training, mean and standard error over seeds. A net that has stopped stays as it is."


def figures(results: Results) -> list[ReportFigure]:
    """Return all figures."""
    complexity = paths(results, ("loss", "kinks", "activation_regions"))
    norms = paths(results, ("l1_norm", "path_norm"))
    return [
        ReportFigure(
            "Figure 1",
            "fits",
            "What the nets have learned at their end; a column a seed.",
            fits(results),
        ),
        ReportFigure("Figure 2", "regions", f"Loss and kinks {ALONG}", complexity),
        ReportFigure("Figure 3", "norms", f"The ℓ₁ norms of weights and of paths {ALONG}", norms),
    ]


def fits(results: Results) -> Figure:
    """Return the learned functions on the data's range, a row a method and a column a seed."""
    seeds = min(MOST_SEEDS, results["weight"].shape[1])
    figure, panels = plotting.small_multiples(len(ARMS) * seeds, seeds, panel=(2.6, 2.2))
    grid = np.arange(INPUTS.min() - MARGIN, INPUTS.max() + MARGIN, 0.01)
    for arm, name in enumerate(ARMS):
        for seed in range(seeds):
            axes = panels[arm * seeds + seed]
            net = Net(*(results[layer][arm, seed, -1] for layer in Net._fields))
            axes.plot(
                grid,
                np.asarray(predict(net, grid.astype(np.float32))),
                color=plotting.PALETTE[1 + arm],
            )
            axes.plot(INPUTS, OUTPUTS, "o", color=plotting.PALETTE[0], markersize=4)
            axes.set_ylim(1.3 * OUTPUTS.min(), 1.2 * OUTPUTS.max())
            kinks = results["kinks"][arm, seed, -1]
            plotting.label_axes(axes, f"{name}, seed {seed}: {kinks} kinks")
    return figure


def paths(results: Results, quantities: Sequence[str]) -> Figure:
    """Return quantities against the iteration, with bands of the standard error over seeds."""
    figure, panels = plotting.small_multiples(len(quantities), 3, panel=(3.8, 3.0))
    for axes, quantity in zip(panels, quantities, strict=True):
        curves = []
        for name, values, look in zip(ARMS, results[quantity], plotting.styles(ARMS), strict=True):
            means = [mean_and_stderr(column) for column in values.T]
            heights, errors = (
                np.array(x) for x in zip(*((m.mean, m.stderr) for m in means), strict=True)
            )
            curves.append(plotting.Curve(name, results["recorded"], heights, look, errors))
        plotting.curves_with_bands(axes, curves)
        axes.set_xscale("log")
        plotting.label_axes(axes, "", "Iteration", NAMES[quantity].capitalize())
    plotting.shared_legend(figure, below=True)
    return figure
