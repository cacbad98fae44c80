import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from real_commands import output_of

from sam_jax import plotting

NAN = float("nan")
STYLE = plotting.Style("#000000", "o", "-")


def point(x, y, **errors):
    return plotting.Point(f"({x}, {y})", x, y, STYLE, **errors)


def test_styles_keep_groups_together_and_series_apart():
    groups = ["a", "b", "b", "b", "c", "c", "d", "d", "e", "e"]
    found = plotting.styles(groups)
    assert len({style.marker for style in found}) == len(groups)
    assert len({style.colour for style in found}) == 5
    assert len({(style.colour, style.line) for style in found}) == len(groups)
    assert [found[i].colour == found[1].colour for i in (0, 2, 3, 4)] == [False, True, True, False]


def test_suitable_scale():
    assert plotting.suitable_scale([1.0, 20.0, NAN, np.inf]) == "linear"
    assert plotting.suitable_scale([1.0, 40.0]) == "log"
    assert plotting.suitable_scale([0.0, 1.0, 40.0]) == "symlog"
    assert plotting.suitable_scale([-1.0, 40.0]) == "symlog"
    assert plotting.suitable_scale([]) == plotting.suitable_scale([0.0, NAN]) == "linear"


def test_a_log_axis_has_plain_numbers():
    figure, (axes,) = plotting.small_multiples(1, 1)
    assert plotting.set_scale(axes, "y", [0.02, 0.5, 900.0]) == "log"
    axes.set_ylim(0.02, 900.0)
    figure.canvas.draw()
    labels = {text.get_text() for text in axes.get_yticklabels()}
    assert {"0.1", "1", "10", "100"} <= labels


def test_regression_recovers_a_line_and_leaves_out_nan():
    _, (axes,) = plotting.small_multiples(1, 1)
    points = [point(x, 3.0 - 2.0 * x) for x in (0.0, 1.0, 2.5)]
    found = plotting.scatter_with_regression(axes, [*points, point(NAN, 1.0), point(7.0, NAN)])
    assert found == pytest.approx((-2.0, 3.0))
    (line,) = [line for line in axes.lines if len(line.get_xdata()) > 1]
    np.testing.assert_allclose(line.get_ydata(), 3.0 - 2.0 * line.get_xdata())
    assert len(axes.containers) == 3


def test_regression_is_least_squares_of_the_plain_values_on_a_log_axis_too():
    _, (axes,) = plotting.small_multiples(1, 1)
    x, y = np.array([0.1, 1.0, 10.0, 40.0]), np.array([1.0, 3.0, 2.0, 5.0])
    slope, intercept = plotting.scatter_with_regression(
        axes, [point(*p) for p in zip(x, y, strict=True)]
    )
    assert axes.get_xscale() == "log"
    dx = x - x.mean()
    assert slope == pytest.approx(dx @ y / (dx @ dx))
    assert intercept == pytest.approx(y.mean() - slope * x.mean())


@pytest.mark.parametrize("points", [[], [(1, 2), (2, 3)], [(1, 1), (1, 2), (1, 3)]])
def test_no_line_where_none_is_determined(points):
    _, (axes,) = plotting.small_multiples(1, 1)
    assert plotting.scatter_with_regression(axes, [point(*p) for p in points]) is None


def test_error_bars_have_the_errors_lengths():
    _, (axes,) = plotting.small_multiples(1, 1)
    points = [point(1.0, 2.0, x_error=0.25, y_error=0.5), point(3.0, 4.0)]
    plotting.scatter_with_regression(axes, points)
    horizontal, vertical = (bar.get_segments()[0] for bar in axes.containers[0].lines[2])
    np.testing.assert_allclose(horizontal, [[0.75, 2.0], [1.25, 2.0]])
    np.testing.assert_allclose(vertical, [[1.0, 1.5], [1.0, 2.5]])
    assert axes.containers[1].lines[2] == ()


def test_bands_reach_from_minus_to_plus_the_error():
    _, (axes,) = plotting.small_multiples(1, 1)
    x, y, error = np.arange(3.0), np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3])
    plotting.curves_with_bands(axes, [plotting.Curve("c", x, y, STYLE, error)])
    (band,) = axes.collections
    box = band.get_paths()[0].get_extents()
    assert (box.y0, box.y1) == pytest.approx((0.9, 3.3))
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), y)
    assert axes.get_yscale() == "linear"


def test_small_multiples_have_as_many_panels_as_asked():
    figure, panels = plotting.small_multiples(7, 3, panel=(2.0, 1.0))
    assert len(panels) == len(figure.axes) == 7
    assert tuple(figure.get_size_inches()) == (6.0, 3.0)
    assert len(plotting.small_multiples(2, 5)[1]) == 2


def test_the_legend_names_everything_once_beside_the_panels():
    figure, panels = plotting.small_multiples(2, 2)
    for axes in panels:
        plotting.scatter_with_regression(axes, [point(1.0, 2.0), point(2.0, 3.0)])
    panels_width = figure.get_figwidth()
    plotting.shared_legend(figure, width=1.5)
    assert figure.get_figwidth() == panels_width + 1.5  # not taken from the panels
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["(1.0, 2.0)", "(2.0, 3.0)"]
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 and box.y0 >= 0
    assert all(axes.get_tightbbox().x1 <= box.x0 + 1 for axes in panels)


def test_a_legend_below_the_panels_makes_the_figure_higher():
    figure, panels = plotting.small_multiples(2, 2, panel=(2.5, 2.0))
    for axes in panels:
        plotting.scatter_with_regression(axes, [point(float(k), 2.0) for k in range(5)])
    plotting.shared_legend(figure, width=1.6, below=True)
    assert figure.get_figwidth() == 5.0 and figure.get_figheight() == pytest.approx(2.5)
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == 5
    assert 0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
    assert all(axes.get_tightbbox().y0 >= box.y1 - 1 for axes in panels)


def test_long_tick_labels_do_not_overlap():
    figure, (axes,) = plotting.small_multiples(1, 1, panel=(2.2, 2.0))
    axes.plot([0.10091, 0.10134], [1.0, 2.0])
    plotting.label_axes(axes, "title", "x", "y")
    figure.canvas.draw()
    low, high = axes.get_xlim()
    boxes = [
        text.get_window_extent()
        for text, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
        if low <= at <= high
    ]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_save_writes_both_kinds_at_150_dots_an_inch(tmp_path):
    figure, (axes,) = plotting.small_multiples(1, 1, panel=(4.0, 3.0))
    plotting.label_axes(axes, "title", "x", "y")
    png, svg = plotting.save(figure, tmp_path / "new" / "rho_0.5")
    assert (png.name, svg.name) == ("rho_0.5.png", "rho_0.5.svg")
    assert imread(png).shape[:2] == (450, 600)
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


@pytest.mark.commands
def test_nothing_global_changes(tmp_path):
    before = dict(matplotlib.rcParams)
    figure, (axes,) = plotting.small_multiples(1, 1)
    plotting.scatter_with_regression(axes, [point(1.0, 2.0)])
    plotting.save(figure, tmp_path / "f")
    assert dict(matplotlib.rcParams) == before
    code = "import sys, sam_jax.plotting; sys.exit('matplotlib.pyplot' in sys.modules)"
    output_of("-c", code)
