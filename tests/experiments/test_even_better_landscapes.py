"""Planes and curves of known shape through the figures and the numbers taken from them."""

import dataclasses

import numpy as np
import pytest

from experiments.even_better.arms import Model
from experiments.even_better.claims import claims, evidence
from experiments.even_better.claims.evidence import Quantity
from experiments.even_better.claims.groups import FACTOR, TEST_LOSS
from experiments.even_better.figures.connections import regularised_loss
from experiments.even_better.figures.figure_01 import figure_01
from experiments.even_better.figures.figure_02 import figure_02
from experiments.even_better.figures.figure_04 import figure_04
from experiments.even_better.figures.figure_08 import figure_08
from experiments.even_better.figures.figure_09 import figure_09, surface_models
from experiments.even_better.read.connections import Connection, relative_rises
from experiments.even_better.read.planes import basin_share
from experiments.even_better.read.results import StudyResults
from experiments.even_better.tables.beyond import beyond_table
from experiments.even_better.tables.correlations import correlation_rows
from experiments.even_better.tables.separation import separation
from experiments.even_better.tables.table_01 import table_01
from sam_jax.metrics.landscape.grids import LossPlane

AXIS = np.linspace(-1, 1, 9)
MODELS = (
    Model("sgd", "sgd", "small", 32, 0.0, 1),
    Model("sgd_long", "sgd", "small", 32, 0.0, 2),
    Model("sam1", "sam", "small", 32, 0.1, 1),
    Model("sam2", "sam", "small", 32, 0.2, 1),
    Model("big", "sam", "large", 144, 0.1, 1),
    Model("average", "average_sam", "small", 32, 0.5, 1),
)
SEEDS = (0, 1)
LOSS = {"sgd": 0.5, "sgd_long": 0.7, "sam1": 0.4, "sam2": 0.3, "big": 0.6, "average": 0.55}


def bowl(curvature, middle=0.1):
    values = middle + curvature * (AXIS**2 + AXIS[:, None] ** 2)
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    planes = {name: values for name in names} | {"squared_norm": 4.0 + 0 * values}
    return LossPlane(planes, AXIS, AXIS, "running")


def records_of(model, seed):
    about = {"arm": model.name, "seed": seed}
    loss = LOSS[model.name] + 0.01 * seed
    yield dict(about, measure="evaluation", test_loss=loss, train_loss=loss**2, test_accuracy=0.9)
    sound = dict(about, preset="sound")
    law = dict(distribution="gaussian", normalisation="filter")
    parts = dict(mean_absolute_odd=loss / 2, mean_even=loss / 4)
    yield dict(sound, measure="asymmetry_index", distance=0.5, index=1 - loss, **law, **parts)
    yield dict(sound, measure="level_set_widths", rise=0.1, factor=0.8, mean_width=loss, **law)
    values = dict(top_eigenvalue=10 * loss, bottom_eigenvalue=-loss, trace=20 * loss)
    yield dict(sound, measure="hessian", **values)


@pytest.fixture(scope="module")
def results():
    planes = {
        (model.name, seed): bowl(1.0 + (model.batch == "large") + 0.1 * seed)
        for model in MODELS
        for seed in SEEDS
    }
    return StudyResults(
        arms=MODELS,
        seeds=SEEDS,
        records=tuple(r for model in MODELS for seed in SEEDS for r in records_of(model, seed)),
        histories={},
        planes=planes,
    )


def test_a_basin_by_counting():
    # c r^2 < 1/2 within the radius sqrt(1 / 2c), on a grid of spacing 1/4.
    for curvature in (0.6, 2.0, 7.0):
        squares = AXIS**2 + AXIS[:, None] ** 2
        expected = np.count_nonzero(squares < 0.5 / curvature) / 81
        assert basin_share(bowl(curvature, middle=3.0)) == pytest.approx(expected)
    holed = bowl(1.0)
    holed.values["train_loss"] = holed.values["train_loss"].copy()
    holed.values["train_loss"][4, 5] = np.inf  # next to the middle: no longer a part of the basin
    assert basin_share(holed) == pytest.approx(basin_share(bowl(1.0)) - 1 / 81)
    assert np.isnan(basin_share(bowl(1.0, middle=np.nan)))


def test_surfaces_are_of_one_model_a_kind():
    assert [m.name for m in surface_models(MODELS)] == ["sgd_long", "sam2", "average", "big"]


def test_figures_of_planes_show_every_model_and_every_seed(results):
    contours, surfaces, cuts = *figure_04(results), *figure_09(results)
    assert [figure.number for figure in (contours, surfaces, cuts)] == [4, 9, 9]
    panels = contours.figure.axes[: len(MODELS)]
    for axes, model in zip(panels, results.arms, strict=True):
        assert axes.get_title().startswith(model.label)
        shares = [100 * basin_share(results.planes[model.name, seed]) for seed in SEEDS]
        assert f"basin {np.mean(shares):.1f}" in axes.get_title()
        dashed = [c for c in axes.collections if _is_dashed(c)]
        assert len(dashed) == len(SEEDS)
        # Where 1.05 r^2 rises by 1/2 in the mean is where c r^2 does in a seed, but for its c.
        middle = np.mean([results.planes[model.name, s].values["train_loss"][4, 4] for s in SEEDS])
        for lines, seed in zip(dashed, SEEDS, strict=True):
            curvature = 1.0 + (model.batch == "large") + 0.1 * seed
            radius = np.linalg.norm(lines.get_paths()[0].vertices, axis=1)
            assert radius == pytest.approx(np.sqrt((middle + 0.4) / curvature), abs=0.06)
    assert len(surfaces.figure.axes) == 4
    limits = {axes.get_zlim() for axes in surfaces.figure.axes}
    assert len(limits) == 1  # heights can be compared
    for axes in cuts.figure.axes[:2]:
        assert len(axes.lines) == 4 and len(axes.collections) == 4  # a band each


def _is_dashed(collection):
    styles = collection.get_linestyle()
    return any(style[1] is not None for style in styles)


def test_a_plane_that_is_nowhere_finite_is_no_end(results):
    planes = dict(results.planes)
    for seed in SEEDS:
        planes["sam1", seed] = bowl(np.nan)
    (contours,) = figure_04(dataclasses.replace(results, planes=planes))
    titles = [axes.get_title() for axes in contours.figure.axes]
    assert any(title.startswith("32-SAM ρ=0.1\nbasin —") for title in titles)
    without = dataclasses.replace(results, planes={})
    assert figure_04(without) == figure_09(without) == []


def test_the_longer_run_is_in_table_1_and_in_no_comparison(results):
    table = table_01(results)
    assert [row.about["model"] for row in table.rows][:2] == ["sgd", "sgd_long"]
    assert table.cell(1, 0).mean == pytest.approx(0.705)
    found = separation(results, table)
    names = {model.name for pair in found for model in pair[:2]}
    assert len(names) == 5 and "sgd_long" not in names
    body = evidence.runs(results, "sound")
    assert len(body.models) == 5 and body.values(TEST_LOSS).shape == (5, 2)
    assert body.longer(TEST_LOSS) == pytest.approx(np.array([[0.7, 0.71]]))
    assert body.values(FACTOR).shape == (5, 2) and np.isnan(body.values(FACTOR)).all()
    shares = body.values(Quantity("basin_share"))
    assert shares[3, 0] == basin_share(bowl(2.0)) < shares[0, 0]
    rows = correlation_rows(results, "sound")
    assert {row.pearson.n for row in rows} == {5}


def test_what_the_study_did_not_measure(results):
    table = beyond_table(results)
    assert table.stem == "table_A_sound"
    heads = [column.quantity for column in table.columns]
    traces = [cell.mean for cell in table.cells(heads.index("trace"))]
    losses = [LOSS[model.name] + 0.005 for model in results.arms]
    assert traces == pytest.approx([20 * loss for loss in losses])
    rows = {row.name: row for row in correlation_rows(results, "sound")}
    assert rows["Hessian: trace"].pearson.r == pytest.approx(1)
    assert rows["Hessian: bottom λ"].pearson.r == pytest.approx(-1)
    assert rows["Hessian: trace"].published is None
    # Given the training loss, its square, little is left of the test loss, and all in common.
    assert rows["Hessian: trace"].partial.r == pytest.approx(1)
    nothing = beyond_table(dataclasses.replace(results, records=()))
    assert nothing.columns == ()


def made_connection(seed, height, straight=0.6):
    positions = np.linspace(0, 1, 5)

    def record(top):
        losses = 0.2 + 0.2 * positions + top * (1 - np.abs(2 * positions - 1))
        coordinates = np.stack([10 * positions, top * (1 - np.abs(2 * positions - 1))], axis=1)
        return {
            "seed": seed,
            "positions": positions.tolist(),
            "train_loss": (losses / 2).tolist(),
            "test_loss": losses.tolist(),
            "train_accuracy": (1 - losses / 4).tolist(),
            "test_accuracy": (1 - losses / 2).tolist(),
            "test_barrier": top,
            "coordinates": coordinates.tolist(),
            "landmarks": [[0, 0], [10, 0], [5, top]],
            "weight_decay": 0.5,
            "batch_norm": "recalibrated",
        }

    plane = bowl(1.0)
    plane = LossPlane(plane.values, 5 + 6 * AXIS, AXIS, "recalibrated")
    return Connection(MODELS[3], MODELS[1], seed, record(height), record(straight), plane)


def test_rises_in_units_of_the_ends():
    connections = [made_connection(seed, 0.03 * seed) for seed in range(3)]
    # The ends are at 0.2 and 0.4; the tops at 0.3 + height, and beside them.
    assert relative_rises(connections, "curve") == pytest.approx([0.0, 0.0, 0.0])
    assert relative_rises(connections, "line") == pytest.approx([0.5 / 0.3] * 3)
    high = [made_connection(0, 0.19)]  # 0.35 + 0.095 at three quarters, 0.3 + 0.19 in the middle
    assert relative_rises(high, "curve") == pytest.approx([0.09 / 0.3])
    plane = regularised_loss(connections[0])
    # 0.5 / 2 times ||w||^2 = 4
    assert plane.values == pytest.approx(bowl(1.0).values["train_loss"] + 1.0)


def test_figures_of_connections_show_every_seed_and_both_ways(results):
    connections = [made_connection(seed, 0.05) for seed in range(4)]
    pairs = (connections, connections[:1], connections[:2])
    found = dataclasses.replace(results, pairs=pairs)
    figures = figure_02(found) + figure_08(found)
    assert [figure.number for figure in figures] == [2, 2, 8, 8, 8, 8]
    assert len({figure.stem for figure in figures}) == 6  # no file twice
    planes, along, *_ = figures
    assert len([axes for axes in planes.figure.axes if axes.get_title()]) == 6
    assert "the first 3 seeds" in planes.caption and "32-SGD, 2× epochs (t = 1)" in planes.caption
    losses = along.figure.axes[1]
    curve, line = losses.lines
    assert curve.get_ydata() == pytest.approx([0.2, 0.275, 0.35, 0.375, 0.4])
    assert line.get_ydata()[2] == pytest.approx(0.9)
    errors = along.figure.axes[3]
    assert errors.lines[0].get_ydata()[0] == pytest.approx(10)  # per cent
    assert "trained curve 0.000 ± 0.000, straight line 0.500 ± 0.000" in along.caption


def test_claims_of_connections_through_the_evidence(results):
    connections = [made_connection(seed, 0.001 * seed, 0.6 + 0.01 * seed) for seed in range(3)]
    body = evidence.runs(dataclasses.replace(results, pairs=(connections,)), "sound")
    verdicts = {c.key: c.verdict(c.parts(body)) for c in claims.CLAIMS if "basins" in c.key}
    assert verdicts == {"basins_by_curve": "fails", "basins_by_line": "holds"}


def test_the_definition_gives_the_factors_of_figure_1():
    figure = figure_01()[0]
    labels = [line.get_label() for line in figure.figure.axes[0].lines]
    assert [label.split("Ω = ")[1] for label in labels] == ["1", "0.25", "0"]
    left = [line.get_ydata()[0] for line in figure.figure.axes[0].lines]
    assert left == pytest.approx([25.0] * 3)
