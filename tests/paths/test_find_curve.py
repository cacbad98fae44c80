"""Curves between networks: every step by NumPy, cut runs, and evaluation point by point."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problems import linear_models
from training_problems import (
    Linear,
    TorchSgd,
    assert_same_bits,
    count_compilations,
    random_batch,
    softmax_gradient,
    tiny_config,
)

from sam_jax.measuring.batch_norm_policy import BatchNormPolicy
from sam_jax.metrics.paths import curves
from sam_jax.paths import evaluate_curve, find_curve
from sam_jax.paths.find_curve import CurveSettings
from sam_jax.runs import metrics_log, records
from sam_jax.runs.randomness import stream
from sam_jax.training import losses
from sam_jax.training.program import full_precision
from sam_jax.training.recalibration import recalibrated_batch_stats
from sam_jax.training.step import epoch_order
from sam_jax.training.train_and_evaluate import train_and_evaluate
from sam_jax.training.trained import evaluate_sets, load_trained

SETTINGS = CurveSettings(
    epochs=60, batch_size=32, learning_rate=0.1, weight_decay=1e-3, checkpoint_every_epochs=2
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two networks with batch norm, trained from two seeds."""
    trained = []
    for seed in (0, 1):
        workdir = tmp_path_factory.mktemp(f"seed{seed}")
        config = tiny_config(
            seed=seed,
            epochs=100,
            batch_size=32,
            data__augmentation=(),
            method__name="none",
            evaluation__test_every_epochs=0,
            evaluation__train_every_epochs=0,
        )
        train_and_evaluate(config, workdir)
        trained.append(load_trained(workdir)[1])
    return trained


@pytest.fixture(scope="module")
def chain(models, tmp_path_factory):
    return find_curve.find_curve(*models, tmp_path_factory.mktemp("chain"), SETTINGS)


@pytest.fixture(scope="module")
def evaluated(models, chain):
    line = curves.initial_controls(models[0].state.params, models[1].state.params)
    return {
        name: evaluate_curve.evaluate_curve(models[0], controls, points=9)
        for name, controls in (("line", line), ("chain", chain))
    }


def learning_rates_by_epochs(base_lr, epochs, steps_per_epoch):
    """The authors' loop: the rate is set at the start of an epoch, counted from one."""
    rates = []
    for epoch in range(1, epochs + 1):
        alpha = epoch / epochs
        if alpha <= 0.5:
            factor = 1.0
        elif alpha <= 0.9:
            factor = 1.0 - (alpha - 0.5) / 0.4 * 0.99
        else:
            factor = 0.01
        rates += [factor * base_lr] * steps_per_epoch
    return rates


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(10, 7), (200, 2), (3, 1)])
def test_learning_rate_by_the_authors_loop_over_epochs(epochs, steps_per_epoch):
    schedule = find_curve.curve_learning_rate(3.0, epochs, steps_per_epoch)
    rates = jax.vmap(schedule)(jnp.arange(epochs * steps_per_epoch))
    np.testing.assert_allclose(
        rates, learning_rates_by_epochs(3.0, epochs, steps_per_epoch), rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["chain", "bezier"])
def test_gradient_of_the_regularised_loss_by_the_formula(kind):
    """The penalty is half the squared norm of w(t), of all parameters, and not the norm."""
    t, decay, bends = 0.4, 0.2, 2
    rng = np.random.default_rng(5)
    shapes = {"kernel": (bends + 2, 4, 3), "bias": (bends + 2, 3)}
    images, labels = random_batch()
    with jax.enable_x64(True):
        controls = {"dense": {n: jnp.asarray(rng.normal(size=s)) for n, s in shapes.items()}}

        @jax.jit
        def evaluate(controls, batch):
            start, end = (jax.tree.map(lambda x, k=k: x[k], controls) for k in (0, -1))
            functions = losses.make_functions(Linear(), {}, weight_decay=decay)
            functions = find_curve.on_curve(functions, start, end, t, kind)
            inner = curves.bends_of(controls)
            others = functions.losses_fn(inner, batch), functions.logits_fn(inner, batch)
            return functions.grad_fn(inner, batch), others

        batch = (jnp.asarray(images), jnp.asarray(labels))
        (gradient, outputs), others = jax.tree.map(np.asarray, evaluate(controls, batch))
        controls = jax.tree.map(np.asarray, controls)
    np.testing.assert_allclose(others[0], outputs.losses)
    np.testing.assert_allclose(others[1], outputs.logits)
    coefficients = curves.host_coefficients(t, bends + 2, kind)
    w = {n: np.tensordot(coefficients, x, 1) for n, x in controls["dense"].items()}
    full = softmax_gradient(w, images, labels, decay=decay)
    norm = np.sqrt(sum(np.sum(x**2) for x in w.values()))
    unsquared = softmax_gradient(w, images, labels, decay=decay / norm)
    for name in ("kernel", "bias"):
        for k in range(bends):
            result = gradient["dense"][name][k]
            np.testing.assert_allclose(result, coefficients[k + 1] * full[name], atol=1e-12)
            assert np.abs(result - coefficients[k + 1] * unsquared[name]).max() > 1e-3


def curve_by_numpy(models, settings, nesterov=False, one_t_each_epoch=False):
    """Train a curve of linear models step by step from the formulas."""
    data, inputs = models[0].data, models[0].program.inputs
    images, labels = np.asarray(inputs(data.train_images)), np.asarray(data.train_labels)
    key = jax.random.key(settings.seed)
    ends = [
        {n: np.asarray(x, np.float64) for n, x in model.state.params["dense"].items()}
        for model in models
    ]
    shares = np.arange(1, settings.bends + 1) / (settings.bends + 1)
    bends = {n: np.stack([(1 - a) * ends[0][n] + a * ends[1][n] for a in shares]) for n in ends[0]}
    steps = len(labels) // settings.batch_size
    rates = learning_rates_by_epochs(settings.learning_rate, settings.epochs, steps)
    sgd = TorchSgd(settings.learning_rate, settings.momentum, nesterov)
    for step in range(steps * settings.epochs):
        order = epoch_order(stream(key, "order"), step // steps, len(labels), settings.batch_size)
        rows = np.asarray(order)[step % steps]
        drawn_at = step // steps if one_t_each_epoch else step
        t = float(jax.random.uniform(jax.random.fold_in(stream(key, "curve"), drawn_at)))
        c = curves.host_coefficients(t, settings.bends + 2, settings.kind)
        w = {
            n: c[0] * ends[0][n] + np.tensordot(c[1:-1], bends[n], 1) + c[-1] * ends[1][n]
            for n in bends
        }
        g = softmax_gradient(w, images[rows], labels[rows], decay=settings.weight_decay)
        sgd.lr = rates[step]
        each = {n: c[1:-1].reshape(-1, *(1,) * g[n].ndim) * g[n] for n in g}
        bends = sgd.step(bends, each)
    return ends, bends


@pytest.mark.parametrize(("kind", "bends"), [("chain", 1), ("bezier", 3)])
def test_training_by_numpy_and_ends_that_do_not_move(tmp_path, kind, bends):
    models = linear_models()
    settings = CurveSettings(
        kind, bends, epochs=5, batch_size=16, learning_rate=0.5, weight_decay=0.02, seed=9
    )
    given = [jax.tree.map(np.array, model.state.params) for model in models]
    controls = find_curve.find_curve(*models, tmp_path, settings)
    assert curves.number_of_controls(controls) == bends + 2
    # The second model is the last point and no bend; both are as they were, bit for bit.
    for k, params in ((0, given[0]), (-1, given[1])):
        assert_same_bits(jax.tree.map(lambda x, k=k: np.asarray(x[k]), controls), params)
    _, wanted = curve_by_numpy(models, settings)
    _, looked_ahead = curve_by_numpy(models, settings, nesterov=True)
    _, few_positions = curve_by_numpy(models, settings, one_t_each_epoch=True)
    for name, x in wanted.items():
        trained = np.asarray(controls["dense"][name])[1:-1]
        # Twenty steps in float32.
        np.testing.assert_allclose(trained, x, atol=1e-5)
        assert np.abs(trained - looked_ahead[name]).max() > 1e-3
        assert np.abs(trained - few_positions[name]).max() > 1e-3


@pytest.mark.e2e
def test_a_cut_run_equals_an_uninterrupted_one_and_knows_its_ends(tmp_path, models, monkeypatch):
    settings = SETTINGS._replace(epochs=5)
    whole = find_curve.find_curve(*models, tmp_path / "whole", settings)
    write = metrics_log.MetricsLog.write

    def cut(log, record):
        if record["epoch"] == 4:
            raise KeyboardInterrupt
        write(log, record)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(metrics_log.MetricsLog, "write", cut)
        find_curve.find_curve(*models, tmp_path / "cut", settings)
    assert [r["epoch"] for r in records.read(tmp_path / "cut" / "metrics.jsonl")] == [1, 2, 3]
    resumed = find_curve.find_curve(*models, tmp_path / "cut", settings)
    assert_same_bits(resumed, whole)
    written = [records.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    assert written[0] == written[1] and [r["epoch"] for r in written[0]] == [1, 2, 3, 4, 5]
    # A curve that is done is read; other ends or other settings are refused.
    assert_same_bits(find_curve.find_curve(*models, tmp_path / "cut", settings), whole)
    with pytest.raises(ValueError, match=r"another training; end_checksum .*start_checksum"):
        find_curve.find_curve(*models[::-1], tmp_path / "cut", settings)
    with pytest.raises(
        ValueError, match=r"; weight_decay \(was 0.001, is 0.5\).*delete the folder"
    ):
        find_curve.find_curve(*models, tmp_path / "cut", settings._replace(weight_decay=0.5))
    prepare_images = models[0].program.prepare_images
    with pytest.raises(ValueError, match=r"; augmentation \(was '', is 'crop'\)"):
        find_curve.find_curve(
            *models, tmp_path / "cut", settings._replace(augmentation="crop"), prepare_images
        )
    # How often it is saved is no other curve.
    again = settings._replace(checkpoint_every_epochs=3)
    assert_same_bits(find_curve.find_curve(*models, tmp_path / "cut", again), whole)


def test_ends_of_networks_do_not_move_and_bends_do(models, chain):
    for k, model in ((0, models[0]), (-1, models[1])):
        end = jax.tree.map(lambda x, k=k: np.asarray(x[k]), chain)
        assert_same_bits(end, jax.tree.map(np.asarray, model.state.params))
    line = curves.initial_controls(models[0].state.params, models[1].state.params)
    for x, y in zip(jax.tree.leaves(chain), jax.tree.leaves(line), strict=True):
        assert np.abs(np.asarray(x[1]) - np.asarray(y[1])).max() > 1e-3


def test_evaluation_point_by_point(models, chain, evaluated):
    """Nine positions on eight devices: some are filled up, and none is lost."""
    trained, evaluation = models[0], evaluated["chain"]
    np.testing.assert_allclose(evaluation.positions, np.arange(9) / 8)
    model, data = full_precision(trained.program.model), trained.data
    stale = []
    for i in (0, 3, 8):
        params = curves.curve_point(chain, evaluation.positions[i], "chain")
        stats = recalibrated_batch_stats(
            model,
            params,
            trained.state.batch_stats,
            data.train_images,
            trained.program.inputs,
            128,
        )
        sets = {
            "train": (data.train_images, data.train_labels),
            "test": (data.test_images, data.test_labels),
        }
        for name, examples in sets.items():
            along = getattr(evaluation, name)
            one = trained.program.evaluate(params, stats, *examples)
            # Two compilations of one float32 computation.
            assert along.loss[i] == pytest.approx(float(one.loss), rel=1e-4)
            assert along.accuracy[i] == pytest.approx(float(one.accuracy))
            images, labels = examples  # and not the labels of other examples
            wrong = trained.program.evaluate(params, stats, images, jnp.roll(labels, 1))
            assert abs(along.loss[i] - float(wrong.loss)) > 0.3
        old = trained.program.evaluate(params, trained.state.batch_stats, *sets["train"])
        stale.append(abs(float(old.loss) - evaluation.train.loss[i]))
    assert stale[1] > 0.05  # the running statistics of an end do not fit a point of the curve


def test_ends_are_as_accurate_as_the_models(models, evaluated):
    """Recalibration replaces the moving average of training by the exact mean."""
    for i, model in ((0, models[0]), (-1, models[1])):
        own = evaluate_sets(model.program, model.data, model.state, ("train", "test"))
        for evaluation in evaluated.values():
            for name in ("train", "test"):
                along = getattr(evaluation, name)
                assert along.accuracy[i] == pytest.approx(
                    own[f"{name}_accuracy"], abs=0.065
                )  # one of 16
                assert along.loss[i] == pytest.approx(own[f"{name}_loss"], abs=0.05)
        # The middle of the line, or a network that is not trained, is not as accurate.
        assert own["train_accuracy"] > 0.7 > evaluated["line"].train.accuracy[4] + 0.2
    np.testing.assert_allclose(
        evaluated["chain"].train.loss[[0, -1]], evaluated["line"].train.loss[[0, -1]], rtol=1e-5
    )


@pytest.mark.devices
def test_a_trained_chain_is_lower_than_the_line(evaluated):
    line, chain = (evaluate_curve.curve_record(evaluated[name]) for name in ("line", "chain"))
    assert line["train_barrier"] > 0.3 > 0.2 > chain["train_barrier"]
    assert chain["train_loss_integral"] < line["train_loss_integral"] - 0.05
    assert chain["length"] > line["length"]
    assert chain["batch_norm"] == "recalibrated"


def test_record_by_numpy(evaluated):
    evaluation = evaluated["line"]
    record = evaluate_curve.curve_record(evaluation)
    t, loss = evaluation.positions, np.asarray(evaluation.test.loss, np.float64)
    above = loss - (1 - t) * loss[0] - t * loss[-1]
    assert record["test_barrier"] == pytest.approx(above.max(), abs=1e-6)
    assert record["test_barrier_position"] == t[above.argmax()]
    assert record["test_loss"] == pytest.approx(loss.tolist())
    assert record["test_loss_maximum"] == pytest.approx(loss.max())
    assert record["train_accuracy_minimum"] == pytest.approx(evaluation.train.accuracy.min())
    assert record["test_loss_mean"] == pytest.approx(loss.mean())
    # A line is run through at one speed.
    trapezoid = np.trapezoid(loss, t)
    assert record["test_loss_integral"] == pytest.approx(trapezoid, rel=1e-6)
    assert abs(trapezoid - loss.mean()) > 1e-4
    assert len(evaluation.lengths) == 8
    np.testing.assert_allclose(evaluation.lengths, record["length"] / 8, rtol=1e-4)


@pytest.mark.devices
def test_a_cut_evaluation_equals_an_uninterrupted_one(tmp_path, models, chain, evaluated):
    """Nine positions are two lines on eight devices."""
    path = tmp_path / "curve.jsonl"
    evaluate = functools.partial(
        evaluate_curve.evaluate_curve, models[0], chain, points=9, path=path
    )
    found = [evaluate()]
    whole = path.read_bytes()
    head, first, second = whole.splitlines(keepends=True)
    path.write_bytes(head + first + second[:20])
    found.append(evaluate())
    assert path.read_bytes() == whole
    # What is there is not measured again.
    marked = {**json.loads(second), "test_loss": [12.5]}
    path.write_text((head + first).decode() + json.dumps(marked) + "\n")
    records.seals_of(path).unlink()  # of what was measured
    found.append(evaluate())
    assert found[2].test.loss.tolist() == [*found[0].test.loss[:8], 12.5]
    assert_same_bits(found[2].train, found[0].train)
    for one in found[:2]:  # nor is it another evaluation with a file than without one
        assert_same_bits(one, evaluated["chain"])
    with pytest.raises(ValueError, match="another measurement; positions differ"):
        evaluate_curve.evaluate_curve(models[0], chain, points=8, path=path)
    with pytest.raises(ValueError, match="another measurement; checksum, kind differ"):
        other = jax.tree.map(lambda x: 2 * x, chain)
        evaluate_curve.evaluate_curve(models[0], other, "bezier", points=9, path=path)
    with pytest.raises(ValueError, match="another measurement; batch_size differ"):
        evaluate(batch_norm=BatchNormPolicy("recalibrated", 16))


def test_one_compilation_serves_all_curves_of_an_architecture(tmp_path, models, chain, evaluated):
    del evaluated  # it compiled the evaluation, as `chain` did the training
    other = jax.tree.map(lambda x: x[::-1] * 0.9, chain)
    with count_compilations() as compiled:
        trained = find_curve.find_curve(
            *models[::-1], tmp_path, SETTINGS._replace(seed=1, checkpoint_every_epochs=0)
        )
        evaluate_curve.evaluate_curve(models[1], other, points=9)
        evaluate_curve.evaluate_curve(models[1], trained, points=9)
    assert not compiled


@pytest.mark.devices
def test_errors(tmp_path, models):
    one, two = models
    other = two._replace(program=two.program._replace(model=Linear()))
    with pytest.raises(ValueError, match="must be of one architecture and trained on one set"):
        find_curve.find_curve(one, other, tmp_path)
    with pytest.raises(ValueError, match=r"batch_size a multiple of 8 .* batch_size = 12"):
        find_curve.find_curve(one, two, tmp_path, SETTINGS._replace(batch_size=12))
    with pytest.raises(ValueError, match="kind must be one of"):
        find_curve.find_curve(one, two, tmp_path, SETTINGS._replace(kind="spline"))
    with pytest.raises(ValueError, match="bends must be a whole number from 1 on, got 0"):
        find_curve.find_curve(one, two, tmp_path, SETTINGS._replace(bends=0))
    with pytest.raises(ValueError, match="the same weights, at distance 0"):
        find_curve.find_curve(one, one, tmp_path, SETTINGS)
    broken = jax.tree.map(lambda w: w.at[(0,) * w.ndim].set(jnp.nan), two.state.params)
    broken = two._replace(state=two.state._replace(params=broken))
    for ends, name in (((broken, one), "start"), ((one, broken), "end")):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            find_curve.find_curve(*ends, tmp_path, SETTINGS)
    prepare_images = one.program.prepare_images
    with pytest.raises(ValueError, match="augmentation must name what prepare_images does"):
        find_curve.find_curve(one, two, tmp_path, SETTINGS, prepare_images)
    with pytest.raises(ValueError, match="got 'crop', and of prepare_images none was given"):
        find_curve.find_curve(one, two, tmp_path, SETTINGS._replace(augmentation="crop"))
    with pytest.raises(ValueError, match="points must be a whole number from 2 on, got 1"):
        line = curves.initial_controls(one.state.params, two.state.params)
        evaluate_curve.evaluate_curve(one, line, points=1)
    assert not list(tmp_path.iterdir())
