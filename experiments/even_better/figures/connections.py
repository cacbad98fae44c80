"""The curve between a pair of models, as Figures 2 and 8 show it: planes, and losses along it."""

from collections.abc import Sequence

import numpy as np

from experiments.even_better.figures.common import BANDS, averaged, report_figure
from experiments.even_better.read.connections import Connection, rise_above_ends
from experiments.study.figures import ReportFigure
from sam_jax import plotting
from sam_jax.metrics.landscape.grids import LossPlane
from sam_jax.runs.records import Record
from sam_jax.statistics import mean_and_stderr

MOST_SEEDS = 3  # whose planes are drawn
HIGHEST = 10.0  # losses above it have one colour: far from the models they only hide the rest
WAYS = (("curve", "trained curve"), ("line", "straight line"))


def connection_figures(
    number: int, stem: str, connections: Sequence[Connection]
) -> list[ReportFigure]:
    """Return two figures of a pair: the planes of its seeds, and the losses along the curve."""
    return [
        _planes(number, f"{stem}_planes", connections),
        _along(number, f"{stem}_along", connections),
    ]


def regularised_loss(connection: Connection) -> LossPlane:
    """Return the training loss plus the l2 term that the curve was trained with, on its plane."""
    plane = connection.plane
    decay = connection.curve["weight_decay"]
    values = plane.values["train_loss"] + decay / 2 * plane.values["squared_norm"]
    return LossPlane(values, plane.xs, plane.ys, plane.batch_norm)


def _planes(number: int, stem: str, connections: Sequence[Connection]) -> ReportFigure:
    shown = connections[:MOST_SEEDS]
    columns = (
        ("Regularised training loss", [regularised_loss(c) for c in shown]),
        ("Test loss", [plotting.mean_plane([c.plane], "test_loss") for c in shown]),
    )
    extent = max(np.ptp(c.plane.ys) / np.ptp(c.plane.xs) for c in shown)
    height = 1.5 + 3.4 * min(extent, 1.2)  # of titles, labels and a share of the bar; of the plane
    figure, panels = plotting.small_multiples(2 * len(shown), 2, panel=(4.1, height))
    for column, (name, planes) in enumerate(columns):
        scale = _scale(planes)
        beside, filled = panels[column::2], None
        for axes, connection, plane in zip(beside, shown, planes, strict=True):
            drawn = plotting.landscape_contours(
                axes,
                plane,
                scale=scale,
                bar=False,
                landmarks=_landmarks(connection),
                path=_sparse(np.array(connection.curve["coordinates"])),
                title=f"{name}, seed {connection.seed}",
                x_label="Distance",
                y_label="Distance",
            )
            axes.set_aspect("equal")  # both axes are distances between weights
            filled = filled or drawn
        if filled is not None and scale is not None:
            plotting.colour_bar(beside, filled, scale, name, location="bottom")
    more = f" (the first {MOST_SEEDS} seeds)" if len(connections) > MOST_SEEDS else ""
    caption = (
        f"{_ends(connections)}: losses on the plane through both models and the bend of the "
        f"trained curve, batch norm recalibrated at every point{more}. Left, the training loss "
        "with the l2 term of the curve's training; right, the test loss. Axes are distances "
        f"between weights.{_cut_off(shown)}"
    )
    return report_figure(number, None, stem, caption, figure)


def _along(number: int, stem: str, connections: Sequence[Connection]) -> ReportFigure:
    figure, panels = plotting.small_multiples(4, 2, panel=(3.6, 2.6))
    names = [
        (f"{which}_{field}", f"{which.capitalize()} {label}")
        for field, label in (("loss", "loss"), ("accuracy", "error / %"))
        for which in ("train", "test")
    ]
    for axes, (field, y_label) in zip(panels, names, strict=True):
        curves = []
        for (shape, label), style in zip(WAYS, plotting.styles(WAYS), strict=True):
            records = [getattr(connection, shape) for connection in connections]
            positions = np.concatenate([record["positions"] for record in records])
            values = np.concatenate(_values(records, field))
            curves.append(averaged(label, list(zip(positions, values, strict=True)), style))
        scale = "linear" if field.endswith("accuracy") else None
        plotting.curves_with_bands(axes, curves, scale=scale)
        plotting.label_axes(axes, "", "Position t", y_label)
    policy = plotting.titled("", [connections[0].curve["batch_norm"]])
    figure.suptitle(policy, fontsize=plotting.FONT_SIZE)
    plotting.shared_legend(figure, below=True)
    rises = ", ".join(f"{label} {_rise(connections, shape)}" for shape, label in WAYS)
    caption = (
        f"{_ends(connections)}: losses and errors along the trained curve and the "
        "straight line, batch norm recalibrated. "
        f"{BANDS} The test loss rises above the higher "
        f"of its ends by: {rises}."
    )
    return report_figure(number, None, stem, caption, figure)


def _values(records: Sequence[Record], field: str) -> list[np.ndarray]:
    values = [np.array(record[field], dtype=float) for record in records]
    return [100 * (1 - v) for v in values] if field.endswith("accuracy") else values


def _rise(connections: Sequence[Connection], shape: str) -> str:
    found = mean_and_stderr([rise_above_ends(getattr(c, shape)) for c in connections])
    error = f" ± {found.stderr:.3f}" if found.n > 1 else ""
    return f"{found.mean:.3f}{error}"


def _ends(connections: Sequence[Connection]) -> str:
    return f"{connections[0].start.label} (t = 0) and {connections[0].end.label} (t = 1)"


def _landmarks(connection: Connection) -> list[plotting.Landmark]:
    (start, end, bend) = connection.curve["landmarks"]
    places = zip(("t = 0", "t = 1", "bend"), (start, end, bend), strict=True)
    return [plotting.Landmark(name, *place) for name, place in places]


def _sparse(path: np.ndarray) -> np.ndarray:
    """Return a dozen of the points of a path, both ends and every bend of it included."""
    step = max(1, (len(path) - 1) // 12)
    kept = np.arange(len(path)) % step == 0
    turns = np.diff(path, n=2, axis=0)
    kept[1:-1] |= np.abs(turns).max(axis=1) > 0.05 * np.abs(np.diff(path, axis=0)).max()
    kept[-1] = True
    return path[kept]


def _cut_off(connections: Sequence[Connection]) -> str:
    names = ("train_loss", "test_loss")
    highest = [np.nanmax(c.plane.values[name]) for c in connections for name in names]
    return f" Losses above {HIGHEST:g} have one colour." if max(highest) > HIGHEST else ""


def _scale(planes: Sequence[LossPlane]) -> plotting.Shades | None:
    values = np.concatenate([plane.values for plane in planes], axis=None)
    highest = np.max(values[np.isfinite(values)], initial=-np.inf)
    return plotting.shades(values, min(highest, HIGHEST), log_ratio=1.0)
