import matplotlib
import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from sam_jax import plotting
from sam_jax.metrics.landscape.grids import LossLine, LossPlane
from sam_jax.plotting.shades import shades

XS, YS = np.linspace(-1, 1, 7), np.linspace(0, 2, 5)
BOWL = 1.0 + XS**2 + YS[:, None]  # 1 ... 4
STEEP = 10 ** (2 * BOWL - 4)  # 0.01 ... 10^4


def panel(projection=None):
    figure, (axes,) = plotting.small_multiples(1, 1, projection=projection)
    return figure, axes


def hatched(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_hatch()]


def test_levels_follow_the_range():
    linear = shades(BOWL, count=4)
    np.testing.assert_allclose(linear.levels, [1.0, 2.0, 3.0, 4.0])
    assert not isinstance(linear.norm, LogNorm) and linear.extend == "neither"
    steep = shades(STEEP, count=7)
    np.testing.assert_allclose(steep.levels, 10.0 ** np.arange(-2, 5))
    assert isinstance(steep.norm, LogNorm)


def test_levels_leave_out_what_nobody_could_read():
    # Zero has no logarithm, and a single tiny value would take all the colours.
    assert shades(np.array([0.0, 1e-30, 1.0])).levels[0] == pytest.approx(1e-6)
    assert shades(np.array([0.0, 1e-30, 1.0])).extend == "min"
    assert shades(np.array([np.nan, np.inf, 1.0, 2.0])).levels[[0, -1]].tolist() == [1.0, 2.0]
    assert shades(np.array([1.0, 2.0, 9.0]), clip=4.0).extend == "max"
    assert not isinstance(shades(np.array([-1.0, 0.1, 90.0])).norm, LogNorm)


def test_levels_of_a_flat_and_of_an_empty_landscape():
    flat = shades(np.full((3, 3), 2.0))
    assert np.all(np.diff(flat.levels) > 0) and flat.levels[0] < 2 < flat.levels[-1]
    assert flat.norm(2.0) == pytest.approx(0.5)
    assert shades(np.full(3, np.nan)) is None
    assert shades(np.array([3.0]), clip=2.0) is None


def test_contours_are_where_the_values_are():
    """Of x alone: a level is the line x = level, from the bottom to the top of the grid."""
    figure, axes = panel()
    plane = LossPlane(np.broadcast_to(XS, (5, 7)), XS, YS, "running")
    filled = plotting.landscape_contours(axes, plane, title="A plane", value_label="Test loss")
    lines = [c for c in axes.collections if c is not filled][0]
    for level, path in zip(lines.levels[1:-1], lines.get_paths()[1:-1], strict=True):
        np.testing.assert_allclose(path.vertices[:, 0], level, atol=1e-12)
        assert (path.vertices[:, 1].min(), path.vertices[:, 1].max()) == (0, 2)
    assert axes.get_title() == "A plane\nbatch norm: running"
    assert figure.axes[1].get_ylabel() == "Test loss"
    assert not hatched(axes) and axes.get_legend() is None


def test_rows_are_ordinates():
    _, axes = panel()
    filled = plotting.landscape_contours(axes, LossPlane(BOWL, XS, YS))
    box = filled.get_datalim(axes.transData)
    assert (box.x0, box.x1, box.y0, box.y1) == pytest.approx((-1, 1, 0, 2))
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("x", "y", "")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_hatched(bad):
    _, axes = panel()
    values = BOWL.copy()
    values[3:, 5:] = bad
    filled = plotting.landscape_contours(axes, LossPlane(values, XS, YS))
    (patch,) = hatched(axes)
    assert patch.get_bbox().bounds == pytest.approx((-1, 0, 2, 2))
    assert patch.get_zorder() < filled.get_zorder()
    # The hatching shows where no contour covers it: beyond the last column and row that are finite.
    corners = np.concatenate([path.vertices for path in filled.get_paths()])
    assert not np.any((corners[:, 0] > XS[4] + 1e-9) & (corners[:, 1] > YS[3] - 1e-9))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["not finite"]
    assert np.max(filled.levels) <= 4


def test_nothing_finite_is_all_hatched():
    figure, axes = panel()
    assert plotting.landscape_contours(axes, LossPlane(BOWL * np.nan, XS, YS, "batch")) is None
    assert len(hatched(axes)) == 1 and axes.get_title() == "batch norm: batch"
    figure.canvas.draw()


def test_models_and_paths_are_drawn_and_named():
    _, axes = panel()
    path = np.array([[-1.0, 2.0], [0.0, 0.5], [0.5, 0.0]])
    marks = [plotting.Landmark("SGD", 0.5, 0.0), plotting.Landmark("SAM", -0.5, 1.0)]
    plotting.landscape_contours(axes, LossPlane(STEEP, XS, YS), landmarks=marks, path=path)
    run, first, second = axes.lines
    np.testing.assert_array_equal(run.get_xydata(), path)
    np.testing.assert_array_equal(first.get_xydata(), [[0.5, 0.0]])
    np.testing.assert_array_equal(second.get_xydata(), [[-0.5, 1.0]])
    assert first.get_marker() != second.get_marker()
    named = {text.get_text(): text.xy for text in axes.texts if text.get_text() in ("SGD", "SAM")}
    assert named == {"SGD": (0.5, 0.0), "SAM": (-0.5, 1.0)}


def test_the_colour_bar_has_plain_numbers():
    figure, axes = panel()
    plotting.landscape_contours(axes, LossPlane(STEEP, XS, YS))
    figure.canvas.draw()
    bar = figure.axes[1]
    labels = [text.get_text() for text in bar.get_yticklabels(which="both") if text.get_text()]
    assert labels[0] == "0.01" and len(labels) == 6
    values = [float(label) for label in labels]
    np.testing.assert_allclose(values, bar.get_yticks(), rtol=0.05)


def test_one_of_several_quantities():
    _, axes = panel()
    plane = LossPlane({"loss": STEEP, "accuracy": BOWL / 4}, XS, YS)
    filled = plotting.landscape_contours(axes, plane, quantity="accuracy")
    assert np.max(filled.levels) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"choose quantity= from \['loss', 'accuracy'\]"):
        plotting.landscape_contours(axes, plane)


def test_panels_of_one_scale_share_colours_and_one_bar():
    figure, panels = plotting.small_multiples(2, 2)
    scale = plotting.shades(np.stack([BOWL, 2 * BOWL]), count=8)
    filled = [
        plotting.landscape_contours(axes, LossPlane(values, XS, YS), scale=scale, bar=False)
        for axes, values in zip(panels, (BOWL, 2 * BOWL), strict=True)
    ]
    assert len(figure.axes) == 2  # no bars yet
    for drawn in filled:
        np.testing.assert_array_equal(drawn.levels, scale.levels)
        assert drawn.norm is scale.norm
    plotting.colour_bar(panels, filled[0], scale, "Loss")
    assert len(figure.axes) == 3 and figure.axes[2].get_ylabel() == "Loss"
    # A panel of nothing finite beside others is drawn too.
    assert plotting.landscape_contours(panels[0], LossPlane(BOWL * np.nan, XS, YS), scale=scale,
                                       bar=False) is None  # fmt: skip


def test_one_level_of_every_seed():
    _, axes = panel()
    seeds = [LossPlane(np.broadcast_to(XS + shift, (5, 7)), XS, YS) for shift in (0.0, 0.25)]
    mean = plotting.mean_plane(seeds)
    plotting.landscape_contours(axes, mean, seeds=[(seeds[0], 0.5), (seeds[1], 0.75)])
    first, second = axes.collections[-2:]
    for lines, place in ((first, 0.5), (second, 0.5)):
        np.testing.assert_allclose(lines.get_paths()[0].vertices[:, 0], place, atol=1e-12)


def test_the_mean_of_planes():
    one, three = (LossPlane({"loss": v * BOWL}, XS, YS, "running") for v in (1.0, 3.0))
    mean = plotting.mean_plane([one, three], "loss")
    np.testing.assert_allclose(mean.values, 2 * BOWL)
    assert mean.batch_norm == "running"
    for other in (
        LossPlane({"loss": BOWL}, 2 * XS, YS, "running"),
        LossPlane({"loss": BOWL}, XS, YS, "batch"),
    ):
        with pytest.raises(ValueError, match="one grid and one policy"):
            plotting.mean_plane([one, other], "loss")


def test_surfaces_of_one_scale_have_one_height():
    scale = plotting.shades(np.stack([BOWL, 5 * BOWL]))
    heights = set()
    for values in (BOWL, 5 * BOWL):
        axes, _, _ = surface_of(LossPlane(values, XS, YS), scale=scale)
        heights.add(axes.get_zlim())
    assert len(heights) == 1


def surface_of(plane, **options):
    """Draw a surface; return its panel, what matplotlib was given and the colours it drew."""
    figure, axes = panel("3d")
    given, draw = [], axes.plot_surface
    axes.plot_surface = lambda *args, **kwargs: (
        given.append((args, kwargs)) or draw(*args, **kwargs)
    )
    plotting.landscape_surface(axes, plane, **options)
    figure.canvas.draw()
    (((x, y, z), _),) = given
    np.testing.assert_array_equal(x, np.broadcast_to(XS, x.shape))
    np.testing.assert_array_equal(y.T, np.broadcast_to(YS, y.T.shape))
    (surface,) = axes.collections
    return axes, z, surface.get_facecolor()


def same_colours(drawn, expected):
    """Without their order, which is that of the distance from the eye."""
    drawn, expected = (np.array(sorted(map(tuple, np.round(c, 6)))) for c in (drawn, expected))
    np.testing.assert_allclose(drawn, expected, atol=2e-6)


def test_a_surface_has_the_heights_and_the_colours_of_the_contours():
    plane = LossPlane(BOWL, XS, YS, "recalibrated")
    axes, heights, colours = surface_of(plane, title="A bowl")
    np.testing.assert_array_equal(heights, BOWL)
    middle = (BOWL[1:, 1:] + BOWL[1:, :-1] + BOWL[:-1, 1:] + BOWL[:-1, :-1]).ravel() / 4
    expected = matplotlib.colormaps["viridis"](shades(BOWL).norm(middle))
    same_colours(colours, expected)
    assert axes.get_title() == "A bowl\nbatch norm: recalibrated"
    assert axes.get_zlabel() == "Loss"


def test_a_surface_is_clipped_and_leaves_out_what_is_not_finite():
    values = BOWL.copy()
    values[0, 0] = np.inf
    _, heights, _ = surface_of(LossPlane(values, XS, YS), clip=2.5)
    assert np.isnan(heights[0, 0])
    expected = np.minimum(values, 2.5)
    np.testing.assert_array_equal(heights.ravel()[1:], expected.ravel()[1:])


def test_a_steep_surface_is_logarithmic():
    axes, heights, colours = surface_of(LossPlane(STEEP, XS, YS))
    np.testing.assert_allclose(heights, 2 * BOWL - 4, atol=1e-9)
    labels = [text.get_text() for text in axes.get_zticklabels()]
    assert labels == ["0.01", "0.1", "1", "10", "100", "1000", "10000"]
    # The logarithm of the steep plane rises as the bowl does, and so do the colours.
    same_colours(colours, surface_of(LossPlane(BOWL, XS, YS))[2])


def test_lines_have_the_mean_and_the_spread_of_the_seeds():
    _, axes = panel()
    seeds = [LossLine(values, XS, "running") for values in (XS**2 + 1, XS**2 + 2, XS**2 + 6)]
    seeds[0].values[3] = np.nan  # XS[3] = 0
    single = [LossLine(XS**2 + 4, XS, "running")]
    plotting.landscape_lines(axes, {"SGD": seeds, "SAM": single}, title="Lines")
    mean, alone = axes.lines
    expected = np.where(np.arange(7) == 3, np.nan, XS**2 + 3)
    np.testing.assert_allclose(mean.get_ydata(), expected)
    np.testing.assert_allclose(alone.get_ydata(), XS**2 + 4)
    (band,) = axes.collections
    box = band.get_datalim(axes.transData)
    # The standard deviation of 1, 2, 6 is sqrt(7); the smallest abscissa that is left is 1 / 3.
    assert (box.y0, box.y1) == pytest.approx((1 / 9 + 3 - 7**0.5, 4 + 7**0.5))
    assert [line.get_label() for line in axes.lines] == ["SGD", "SAM"]
    assert axes.get_title() == "Lines\nbatch norm: running"


def test_lines_that_cannot_be_compared():
    _, axes = panel()
    line = LossLine(XS, XS, "running")
    with pytest.raises(ValueError, match=r"different batch_norm .* \['None', 'running'\]"):
        plotting.landscape_lines(axes, {"a": [line], "b": [LossLine(XS, XS)]})
    with pytest.raises(ValueError, match="'a' must be at the same distances"):
        plotting.landscape_lines(axes, {"a": [line, LossLine(XS, XS / 2, "running")]})
