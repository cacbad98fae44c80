"""Fast geometric ensembling: the cycle, every step by NumPy, and the mean of softmax outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problems import linear_models
from training_problems import (
    TorchSgd,
    assert_same_bits,
    count_compilations,
    softmax_gradient,
    tiny_config,
)

from sam_jax.paths import collect_members, evaluate_ensemble
from sam_jax.paths.collect_members import EnsembleSettings, Members
from sam_jax.runs import checkpoints
from sam_jax.runs.randomness import stream
from sam_jax.training import build
from sam_jax.training.step import epoch_order
from sam_jax.training.trained import Trained

SETTINGS = EnsembleSettings(
    epochs=5,
    cycle_epochs=2,
    highest_learning_rate=0.4,
    lowest_learning_rate=0.01,
    batch_size=16,  # 64 examples: four steps an epoch, eight a cycle
    weight_decay=0.02,
    seed=5,
)


def test_cycle_by_the_paper():
    """The paper's alpha(i) with i from one; its t(i) = (mod(i - 1, c) + 1) / c."""
    high, low, c = 0.05, 0.0005, 6
    schedule = collect_members.cyclic_learning_rate(high, low, c)
    for i in range(1, 4 * c + 1):
        t = ((i - 1) % c + 1) / c
        wanted = (1 - 2 * t) * high + 2 * t * low if t <= 0.5 else (2 - 2 * t) * low
        wanted += (2 * t - 1) * high if t > 0.5 else 0.0
        assert float(schedule(i - 1)) == pytest.approx(wanted, rel=1e-4)
        assert (float(schedule(i - 1)) == np.float32(low)) == (i % c == c // 2)
        assert (i % c == 0) == (float(schedule(i - 1)) == pytest.approx(high, rel=1e-6))


@pytest.fixture(scope="module")
def linear():
    return linear_models()[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("members")


@pytest.fixture(scope="module")
def members(linear, folder):
    return collect_members.collect_members(linear, folder, SETTINGS)


def weights_after_every_step(trained, settings):
    """Train a linear model on by NumPy, with the learning rate of the cycle."""
    data = trained.data
    images = np.asarray(trained.program.inputs(data.train_images))
    labels = np.asarray(data.train_labels)
    steps = len(labels) // settings.batch_size
    cycle = settings.cycle_epochs * steps
    schedule = collect_members.cyclic_learning_rate(
        settings.highest_learning_rate, settings.lowest_learning_rate, cycle
    )
    sgd = TorchSgd(0.0, settings.momentum, nesterov=False)
    key = stream(jax.random.key(settings.seed), "order")
    params = {n: np.asarray(x, np.float64) for n, x in trained.state.params["dense"].items()}
    after = []
    for step in range(steps * settings.epochs):
        order = np.asarray(epoch_order(key, step // steps, len(labels), settings.batch_size))
        rows = order[step % steps]
        sgd.lr = float(schedule(step))
        gradient = softmax_gradient(params, images[rows], labels[rows], decay=settings.weight_decay)
        params = sgd.step(params, gradient)
        after.append(params)
    return after


def test_members_are_collected_at_the_lowest_learning_rate(linear, members):
    after = weights_after_every_step(linear, SETTINGS)
    collected = members.params["dense"]
    # Of 20 steps in cycles of eight: after the 4th, the 12th and the 20th.
    assert collected["kernel"].shape[0] == 3
    for name, stacked in collected.items():
        for i, step in enumerate((3, 11, 19)):
            # Twenty steps in float32.
            np.testing.assert_allclose(stacked[i], after[step][name], atol=2e-5)
            assert np.abs(stacked[i] - after[step - 1][name]).max() > 1e-4
    assert members.batch_stats == {}


def test_the_model_that_is_given_stays(linear, tmp_path):
    given = jax.tree.map(np.array, linear.state.params)
    shorter = collect_members.collect_members(linear, tmp_path, SETTINGS._replace(epochs=2))
    assert_same_bits(jax.tree.map(np.asarray, linear.state.params), given)
    # Half a cycle and the half that follows it: one member.
    assert shorter.params["dense"]["bias"].shape[0] == 1


@pytest.fixture(scope="module")
def networks():
    """Networks with batch norm whose running statistics differ, stacked."""
    config = tiny_config()
    source, data = build.load_data(config)
    program = build.make_program(config, source, len(data.train_labels))
    states = [program.init(jax.random.key(seed)) for seed in range(3)]
    members = Members(
        jax.tree.map(lambda *x: 3 * jnp.stack(x), *(state.params for state in states)),
        jax.tree.map(
            lambda *x: jnp.stack([(0.5 + i) * s + 0.1 for i, s in enumerate(x)]),
            *(state.batch_stats for state in states),
        ),
    )
    return Trained(states[0], program, data, source, epoch=1), members


def probabilities(trained, members):
    images, each = trained.program.inputs(trained.data.test_images), []
    for i in range(3):
        params, batch_stats = jax.tree.map(lambda x, i=i: x[i], members)
        variables = {"params": params, "batch_stats": batch_stats}
        logits = np.asarray(trained.program.model.apply(variables, images, train=False), np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        each.append(shifted / shifted.sum(axis=1, keepdims=True))
    return np.stack(each)


def test_the_ensemble_is_the_mean_of_softmax_outputs(networks):
    trained, members = networks
    images, labels = trained.data.test_images, np.asarray(trained.data.test_labels)
    each = probabilities(trained, members)
    logits_fn = evaluate_ensemble.make_ensemble_logits_fn(
        trained.program.model, trained.program.inputs
    )
    result = np.asarray(jax.jit(logits_fn)(members, images))
    np.testing.assert_allclose(np.exp(result), each.mean(axis=0), atol=1e-5)
    # The normalised geometric mean is the softmax of the mean of logits, another ensemble.
    geometric = np.exp(np.log(each).mean(axis=0))
    geometric /= geometric.sum(axis=1, keepdims=True)
    assert np.abs(geometric - each.mean(axis=0)).max() > 1e-2
    rows = np.arange(len(labels))
    for batch_size in (1000, 5):
        evaluation = evaluate_ensemble.evaluate_ensemble(
            trained, members, images, trained.data.test_labels, batch_size
        )
        mean = each.mean(axis=0)
        assert float(evaluation.loss) == pytest.approx(-np.log(mean[rows, labels]).mean(), rel=1e-4)
        assert float(evaluation.accuracy) == pytest.approx(np.mean(mean.argmax(axis=1) == labels))
    # By convexity it is better than its members are on average.
    assert float(evaluation.loss) < -np.log(each[:, rows, labels]).mean() - 1e-2


def test_an_ensemble_of_one_is_the_model(networks):
    trained, members = networks
    one = jax.tree.map(lambda x: x[1:2], members)
    test_set = (trained.data.test_images, trained.data.test_labels)
    result = evaluate_ensemble.evaluate_ensemble(trained, one, *test_set)
    single = trained.program.evaluate(*jax.tree.map(lambda x: x[0], one), *test_set)
    assert float(result.loss) == pytest.approx(float(single.loss), rel=1e-5)
    assert float(result.accuracy) == float(single.accuracy)


def test_members_of_a_network_have_their_own_statistics(networks, tmp_path):
    trained, _ = networks
    settings = SETTINGS._replace(epochs=3, batch_size=32)
    members = collect_members.collect_members(trained, tmp_path, settings)
    for leaf in jax.tree.leaves(members):
        assert leaf.shape[0] == 2 and np.all(np.isfinite(leaf))
        assert np.abs(leaf[0] - leaf[1]).max() > 0
    for leaf in jax.tree.leaves(trained.state.params):
        assert not leaf.is_deleted()


@pytest.mark.e2e
@pytest.mark.parametrize("saved", [0, 1, 2])
def test_cut_members_equal_uninterrupted_ones(networks, tmp_path, monkeypatch, saved):
    """Three members of a network with batch norm and augmentation, cut after some of them."""
    trained, _ = networks
    settings = SETTINGS._replace(batch_size=32, augmentation="crop")
    arguments = (settings, trained.program.prepare_images)
    whole = collect_members.collect_members(trained, tmp_path / "whole", *arguments)
    save = checkpoints.save

    def cut(manager, member, state):
        if member == saved + 1:
            raise KeyboardInterrupt
        save(manager, member, state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "save", cut)
        collect_members.collect_members(trained, tmp_path / "cut", *arguments)
    assert [checkpoints.exists(tmp_path / "cut", k) for k in (1, 2, 3)].count(True) == saved
    steps = []
    advance = collect_members.Progress.advance
    monkeypatch.setattr(
        collect_members.Progress, "advance", lambda *a: (steps.append(a[1] // 32), advance(*a))
    )
    resumed = collect_members.collect_members(trained, tmp_path / "cut", *arguments)
    assert_same_bits(resumed, whole)
    assert sum(steps) == {0: 10, 1: 8, 2: 4}[saved]  # of two steps an epoch, four a cycle


def test_a_whole_ensemble_is_only_read_and_another_is_refused(linear, members, folder, monkeypatch):
    def no_step(*_):
        raise AssertionError

    other = linear_models()[1]
    with pytest.raises(ValueError, match=r"another training; params_checksum"):
        collect_members.collect_members(other, folder, SETTINGS)
    with pytest.raises(ValueError, match=r"; weight_decay \(was 0.02, is 0.0\).*delete the folder"):
        collect_members.collect_members(linear, folder, SETTINGS._replace(weight_decay=0.0))
    with pytest.raises(ValueError, match=r"; augmentation \(was '', is 'crop'\)"):
        named = SETTINGS._replace(augmentation="crop")
        collect_members.collect_members(linear, folder, named, linear.program.prepare_images)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.glob("checkpoints/**/*"))
    optimiser, _ = collect_members._compiled_training(
        linear.program.model, linear.program.inputs, SETTINGS._replace(seed=0), 8, None
    )
    monkeypatch.setattr(collect_members, "_compiled_training", lambda *_: (optimiser, no_step))
    assert_same_bits(collect_members.collect_members(linear, folder, SETTINGS), members)
    after = sorted((path, path.stat().st_mtime_ns) for path in folder.glob("checkpoints/**/*"))
    assert after == before and before


def test_a_second_ensemble_compiles_nothing(linear, members, tmp_path):
    del members  # the first one
    with count_compilations() as compiled:
        collect_members.collect_members(linear_models()[1], tmp_path, SETTINGS._replace(seed=6))
    assert not compiled


def test_errors(linear, tmp_path):
    for steps in (0, 3):
        with pytest.raises(ValueError, match="cycle_steps must be even and at least 2"):
            collect_members.cyclic_learning_rate(0.1, 0.01, steps)
    with pytest.raises(ValueError, match="0 <= lowest <= highest"):
        collect_members.cyclic_learning_rate(0.01, 0.1, 4)
    with pytest.raises(ValueError, match="cycles of 1 steps"):
        collect_members.collect_members(
            linear, tmp_path, SETTINGS._replace(batch_size=64, cycle_epochs=1)
        )
    with pytest.raises(ValueError, match="half of one must fit"):
        collect_members.collect_members(
            linear, tmp_path, SETTINGS._replace(epochs=1, cycle_epochs=4)
        )
    with pytest.raises(ValueError, match="batch_size = 128"):
        collect_members.collect_members(linear, tmp_path, SETTINGS._replace(batch_size=128))
    with pytest.raises(ValueError, match="augmentation must name what prepare_images does"):
        collect_members.collect_members(linear, tmp_path, SETTINGS, linear.program.prepare_images)
    for name, tree in (("params", linear.state.params), ("batch_stats", {"mean": jnp.ones(2)})):
        broken = {name: jax.tree.map(lambda x: x * jnp.nan, tree)}
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            state = linear.state._replace(**broken)
            collect_members.collect_members(linear._replace(state=state), tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir())
