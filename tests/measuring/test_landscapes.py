"""Planes and lines of networks against evaluations point by point, their policies, and cut runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured_models import make_trained
from training_problems import NormNet, count_compilations

from sam_jax import metrics
from sam_jax.measuring import grid_losses, landscapes
from sam_jax.measuring.batch_norm_policy import BatchNormPolicy, policy_of
from sam_jax.measuring.landscapes import measure_line, measure_plane, read_line, read_plane
from sam_jax.measuring.set_losses import Sets, make_set_losses
from sam_jax.runs import records
from sam_jax.training.evaluation import Inputs
from sam_jax.training.program import full_precision
from sam_jax.training.recalibration import recalibrated_batch_stats

XS, YS = np.array([-0.5, 0.0, 1.0]), np.array([0.0, 0.25])
DISTANCES = np.linspace(-1.0, 0.8, 10)  # two lines of a file on eight devices
SIZES = {"batch_size": 24}  # of 64 and 64 examples
POLICIES = {
    "running": BatchNormPolicy(),
    "batch": BatchNormPolicy("batch", 24),
    "recalibrated": BatchNormPolicy("recalibrated", 16),
}
SAME = {"rtol": 2e-5, "atol": 1e-6}  # two compilations of one float32 computation


def directions_of(trained, seed=0):
    both = metrics.random_directions(
        jax.random.key(seed), trained.state.params, 2, "gaussian", "filter"
    )
    return [jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in (0, 1)]


@pytest.fixture(scope="module")
def trained():
    return make_trained(0)


def by_hand(trained, params, policy, which):
    """Mean loss and accuracy of a set from single calls of the network, without any loop."""
    data, model = trained.data, full_precision(trained.program.model)
    images, labels = getattr(data, f"{which}_images"), getattr(data, f"{which}_labels")
    stats = trained.state.batch_stats
    if policy == "recalibrated":
        stats = recalibrated_batch_stats(
            model, params, stats, data.train_images, trained.program.inputs, 16
        )
    size = 24 if policy == "batch" else len(labels)
    losses, correct = [], []
    for start in range(0, len(labels), size):
        x, y = images[start : start + size], labels[start : start + size]
        logits = model.apply(
            {"params": params, "batch_stats": stats},
            trained.program.inputs(x),
            train=policy == "batch",
            **({"mutable": ["batch_stats"]} if policy == "batch" else {}),
        )
        logits = logits[0] if policy == "batch" else logits
        losses += list(-jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])
        correct += list(jnp.argmax(logits, -1) == y)
    return np.mean(losses), np.mean(correct)


@pytest.mark.parametrize("policy", ["running", "batch", "recalibrated"])
def test_a_plane_point_by_point(trained, policy, tmp_path):
    dx, dy = directions_of(trained)
    plane = measure_plane(
        trained, dx, dy, XS, YS, tmp_path / "plane.jsonl", batch_norm=POLICIES[policy], **SIZES
    )
    assert plane.batch_norm == policy
    np.testing.assert_array_equal(plane.xs, XS)
    np.testing.assert_array_equal(plane.ys, YS)
    for i, j in ((0, 1), (1, 0), (1, 2)):  # the model itself and two others
        params = jax.tree.map(
            lambda w, a, b, i=i, j=j: w + XS[j] * a + YS[i] * b, trained.state.params, dx, dy
        )
        for which in ("train", "test"):
            loss, accuracy = by_hand(trained, params, policy, which)
            np.testing.assert_allclose(plane.values[f"{which}_loss"][i, j], loss, **SAME)
            np.testing.assert_allclose(plane.values[f"{which}_accuracy"][i, j], accuracy, **SAME)
        squares = sum(float(jnp.sum(w**2)) for w in jax.tree.leaves(params))
        np.testing.assert_allclose(plane.values["squared_norm"][i, j], squares, **SAME)
    # Rows are y: the two directions do not do the same.
    assert abs(plane.values["train_loss"][0, 2] - plane.values["train_loss"][1, 0]) > 1e-3


@pytest.mark.parametrize("policy", ["running", "recalibrated"])
def test_a_line_point_by_point(trained, policy, tmp_path):
    direction, other = directions_of(trained)
    origin = jax.tree.map(lambda w, d: w + 0.1 * d, trained.state.params, other)
    path = tmp_path / "line.jsonl"
    line = measure_line(
        trained, direction, DISTANCES, path, origin=origin, batch_norm=POLICIES[policy], **SIZES
    )
    assert line.batch_norm == policy and records.read(path)[0]["batch_norm"] == policy
    np.testing.assert_array_equal(line.distances, DISTANCES)
    for i in (0, 7, 8):  # the last two are in different lines of the file
        params = jax.tree.map(lambda w, d, i=i: w + DISTANCES[i] * d, origin, direction)
        for which in ("train", "test"):
            loss, accuracy = by_hand(trained, params, policy, which)
            np.testing.assert_allclose(line.values[f"{which}_loss"][i], loss, **SAME)
            np.testing.assert_allclose(line.values[f"{which}_accuracy"][i], accuracy, **SAME)
        squares = sum(float(jnp.sum(w**2)) for w in jax.tree.leaves(params))
        np.testing.assert_allclose(line.values["squared_norm"][i], squares, **SAME)
    # Neighbours are told apart.
    assert np.abs(np.diff(line.values["train_loss"])).min() > 1e-4


@pytest.mark.devices
def test_a_cut_line_goes_on_and_a_whole_one_is_only_read(trained, tmp_path, monkeypatch):
    path = tmp_path / "line.jsonl"
    arguments = (trained, directions_of(trained)[0], DISTANCES, path)
    measure_line(*arguments, **SIZES)
    whole = path.read_bytes()
    head, first, second = whole.splitlines(keepends=True)
    path.write_bytes(head + first + second[:20])
    partial = read_line(path).values["test_loss"]
    assert np.isfinite(partial[:8]).all() and np.isnan(partial[8:]).all()
    measure_line(*arguments, **SIZES)
    assert path.read_bytes() == whole
    monkeypatch.setattr(grid_losses, "_compiled_measure", lambda *_: None)
    measure_line(*arguments, **SIZES)
    assert path.read_bytes() == whole
    with pytest.raises(ValueError, match="another measurement; distances differ"):
        measure_line(*arguments[:2], 2 * DISTANCES, path, **SIZES)
    with pytest.raises(ValueError, match="holds a loss_line, and no loss_plane"):
        read_plane(path)


def test_policies_differ(trained, tmp_path):
    losses = {
        policy: measure_plane(
            trained,
            *directions_of(trained),
            XS,
            YS,
            tmp_path / policy,
            batch_norm=POLICIES[policy],
            **SIZES,
        ).values["train_loss"]
        for policy in ("running", "batch", "recalibrated")
    }
    assert np.abs(losses["running"] - losses["recalibrated"]).max() > 1e-2
    assert np.abs(losses["batch"] - losses["recalibrated"]).max() > 1e-4


def test_batch_statistics_do_not_see_examples_that_fill_up():
    """A last batch of 2 of 8 examples normalises over these two, in float64."""
    with jax.enable_x64(True):
        model, random = NormNet(), np.random.default_rng(0)
        images = random.integers(0, 256, (8, 2, 2, 1)).astype(np.uint8)
        labels = jnp.asarray(random.integers(0, 3, 8))
        inputs = Inputs((0.5,), (0.3,))
        variables = model.init(jax.random.key(0), inputs(jnp.asarray(images)))
        data = Sets(*[(jnp.asarray(images), labels)] * 2)
        found = make_set_losses(model, inputs, BatchNormPolicy("batch", 3))(
            variables["params"], variables["batch_stats"], data
        )
        losses = []
        for rows in (slice(0, 3), slice(3, 6), slice(6, 8)):
            logits, _ = model.apply(
                variables, inputs(jnp.asarray(images[rows])), train=True, mutable=["batch_stats"]
            )
            each = jax.nn.log_softmax(logits)[jnp.arange(len(labels[rows])), labels[rows]]
            losses += list(-each)
        np.testing.assert_allclose(found.train.loss, np.mean(losses), rtol=1e-6)


def test_a_cut_plane_goes_on_and_a_whole_one_is_only_read(trained, tmp_path, monkeypatch):
    path = tmp_path / "plane.jsonl"
    arguments = (trained, *directions_of(trained), XS, YS, path)
    measure_plane(*arguments, **SIZES)
    whole = path.read_bytes()
    head, first, second = whole.splitlines(keepends=True)
    path.write_bytes(head + first + second[:20])
    assert not landscapes.is_whole(path) and not landscapes.is_whole(tmp_path / "none")
    partial = read_plane(path)
    assert np.isfinite(partial.values["test_loss"][0]).all()
    assert np.isnan(partial.values["test_loss"][1]).all()
    measure_plane(*arguments, **SIZES)
    assert path.read_bytes() == whole and landscapes.is_whole(path)
    monkeypatch.setattr(grid_losses, "_compiled_measure", lambda *_: None)  # would fail when called
    plane = measure_plane(*arguments, **SIZES)
    np.testing.assert_array_equal(plane.values["train_loss"], read_plane(path).values["train_loss"])
    assert path.read_bytes() == whole


def test_a_file_of_another_plane_is_refused(trained, tmp_path):
    path = tmp_path / "plane.jsonl"
    dx, dy = directions_of(trained)
    measure_plane(trained, dx, dy, XS, YS, path, **SIZES)
    with pytest.raises(ValueError, match="another measurement; xs differ"):
        measure_plane(trained, dx, dy, 2 * XS, YS, path, **SIZES)
    with pytest.raises(ValueError, match="another measurement; checksum differ"):
        measure_plane(trained, dy, dx, XS, YS, path, **SIZES)
    with pytest.raises(ValueError, match="another measurement; batch_norm, batch_size differ"):
        measure_plane(trained, dx, dy, XS, YS, path, batch_norm=POLICIES["batch"], **SIZES)
    with pytest.raises(ValueError, match="another measurement; epoch differ"):
        measure_plane(trained, dx, dy, XS, YS, path, about={"epoch": 2}, **SIZES)
    # Fields that JSON gives back as others are the same fields.
    about = {"pair": ("a", "b"), "bound": np.float32(np.nan)}
    other = tmp_path / "about.jsonl"
    planes = [measure_plane(trained, dx, dy, XS, YS, other, about=about, **SIZES) for _ in "12"]
    np.testing.assert_array_equal(*(plane.values["train_loss"] for plane in planes))
    assert len(records.read(other)) == 3
    with pytest.raises(ValueError, match="another measurement; bound, pair differ"):
        measure_plane(trained, dx, dy, XS, YS, other, about={"bound": 1.0}, **SIZES)
    # With running statistics the batch bounds the memory only.
    before = path.read_bytes()
    measure_plane(trained, dx, dy, XS, YS, path, batch_size=7)
    assert path.read_bytes() == before


def test_one_compilation_serves_all_rows_planes_and_models(trained, tmp_path):
    measure_plane(trained, *directions_of(trained), XS, YS, tmp_path / "first", **SIZES)
    other = make_trained(1)
    directions = directions_of(other, seed=1)
    measure_line(trained, directions[0], XS, tmp_path / "line", **SIZES)
    with count_compilations() as compiled:
        measure_plane(other, *directions, 0.1 * XS, np.arange(5.0), tmp_path / "second", **SIZES)
        measure_line(other, directions[1], DISTANCES, tmp_path / "another", **SIZES)
    assert not compiled


def test_what_is_not_finite_is_kept(trained, tmp_path):
    path = tmp_path / "plane.jsonl"
    dx, dy = directions_of(trained)
    plane = measure_plane(trained, dx, dy, np.array([0.0, 1e30]), YS, path, **SIZES)
    assert np.isfinite(plane.values["train_loss"][:, 0]).all()
    assert not np.isfinite(plane.values["train_loss"][:, 1]).any()
    assert len(records.read(path)) == 3


def test_policies_of_batch_norm():
    for kind in ("batch", "recalibrated"):
        assert policy_of(kind, 16) == BatchNormPolicy(kind, 16)
        for size in (None, 0):
            with pytest.raises(ValueError, match=f'by "{kind}" needs .* batch_size, got {size}'):
                BatchNormPolicy(kind, size)
    assert policy_of("running", 16) == BatchNormPolicy()
    with pytest.raises(ValueError, match="sees no batch; leave out batch_size, got 16"):
        BatchNormPolicy("running", 16)
    with pytest.raises(ValueError, match="batch_norm must be one of"):
        BatchNormPolicy("fixed")


def test_errors(trained, tmp_path):
    dx, dy = directions_of(trained)
    zero = jax.tree.map(jnp.zeros_like, dx)
    path = tmp_path / "plane.jsonl"
    with pytest.raises(ValueError, match="direction_y is zero"):
        measure_plane(trained, dx, zero, XS, YS, path)
    with pytest.raises(ValueError, match="same pytree structure"):
        measure_plane(trained, {"w": jnp.ones(1)}, dy, XS, YS, path)
    with pytest.raises(ValueError, match="ys must have the shape"):
        measure_plane(trained, dx, dy, XS, np.zeros((2, 2)), path)
    with pytest.raises(ValueError, match="xs must be finite"):
        measure_plane(trained, dx, dy, np.array([0.0, np.nan]), YS, path)
    with pytest.raises(TypeError, match="must be a BatchNormPolicy, .* got 'recalibrated'"):
        measure_plane(trained, dx, dy, XS, YS, path, batch_norm="recalibrated")
    with pytest.raises(ValueError, match="direction is zero"):
        measure_line(trained, zero, XS, path)
    with pytest.raises(ValueError, match="distances must have the shape"):
        measure_line(trained, dx, np.zeros(0), path)
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match="holds no loss_plane"):
        read_plane(path)
