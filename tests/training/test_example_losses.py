"""The losses by name against NumPy, with integer labels and with shares of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_problems import Linear, random_batch, tiny_config

from configs import digits
from sam_jax.training import build, example_losses, losses

SMOOTHING = 0.3


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def offset_losses(logits, offset):
    """Of two classes, as printed: the label's sign times the difference of the logits."""
    signs = np.array([-1.0, 1.0])
    difference = logits[:, 1] - logits[:, 0]
    return np.log1p(np.exp(-np.outer(difference, signs) + offset))


NUMPY = {
    "cross_entropy": lambda logits: -np.log(softmax(logits)),
    "offset_cross_entropy": lambda logits: offset_losses(logits, 0.75),
    "generalised_cross_entropy": lambda logits: (1 - softmax(logits) ** 0.4) / 0.4,
    "smallest_cross_entropy": lambda logits: -np.log(softmax(logits)),
}
OPTIONS = {
    "offset_cross_entropy": {"offset": 0.75},
    "generalised_cross_entropy": {"q": 0.4},
    "smallest_cross_entropy": {"removed": 0.25},
}


def make(name, smoothing=0.0, classes=2, **options):
    options = {name: OPTIONS.get(name, {}) | options}
    config = {"name": name, "label_smoothing": smoothing} | options
    return example_losses.make_loss(config, classes)


def random_logits(classes=2):
    random = np.random.default_rng(0)
    return 2 * random.normal(size=(8, classes)), random.integers(0, classes, 8)


@pytest.mark.parametrize("smoothing", [0.0, SMOOTHING])
@pytest.mark.parametrize("name", example_losses.LOSSES)
def test_a_loss_is_the_formula(name, smoothing):
    logits, labels = random_logits()
    expected = NUMPY[name](logits)
    shares = (1 - smoothing) * np.eye(2)[labels] + smoothing / 2
    with jax.enable_x64(True):
        loss = make(name, smoothing)
        found = loss.of_examples(jnp.asarray(logits), jnp.asarray(labels))
        mean, found = np.asarray(loss.reduce(found)), np.asarray(found)
    np.testing.assert_allclose(found, (shares * expected).sum(axis=1), rtol=1e-12)
    kept = np.sort(found)[:6] if name == "smallest_cross_entropy" else found
    np.testing.assert_allclose(mean, np.mean(kept), rtol=1e-12)
    others = [NUMPY[other](logits) for other in NUMPY]
    unlike = [x for x in others if np.abs(x - expected).max() > 1e-9]
    for other in unlike:  # the test tells the losses apart
        assert np.abs((shares * other).sum(axis=1) - found).max() > 1e-2


@pytest.mark.parametrize("name", example_losses.LOSSES)
def test_shares_of_labels_weigh_the_losses_of_their_labels(name):
    logits, labels = random_logits()
    weights = np.linspace(0.1, 0.9, 8)[:, None]
    shares = weights * np.eye(2)[labels] + (1 - weights) * np.eye(2)[1 - labels]
    with jax.enable_x64(True):
        loss = make(name)
        mixed, one, other, hard = (
            np.asarray(loss.of_examples(jnp.asarray(logits), jnp.asarray(x)))
            for x in (shares, labels, 1 - labels, np.eye(2)[labels])
        )
    weights = weights[:, 0]
    np.testing.assert_allclose(mixed, weights * one + (1 - weights) * other, rtol=1e-12)
    np.testing.assert_allclose(hard, one, rtol=1e-13)
    assert np.abs(mixed - one).max() > 0.01


def test_limits_of_the_losses():
    logits, labels = map(jnp.asarray, random_logits())
    cross_entropy = losses.cross_entropy(logits, labels)
    near = {
        "offset 0": make("offset_cross_entropy", offset=0.0),
        "q to 0": make("generalised_cross_entropy", q=1e-5),
    }
    for loss in near.values():
        # q = 1e-5 is off by q l^2 / 2, and l is below 5.
        np.testing.assert_allclose(loss.of_examples(logits, labels), cross_entropy, rtol=1e-4)
    one = make("generalised_cross_entropy", q=1.0).of_examples(logits, labels)
    np.testing.assert_allclose(one, 1 - jnp.exp(-cross_entropy), rtol=1e-5)
    all_kept = make("smallest_cross_entropy", removed=0.0)
    assert float(all_kept.reduce(cross_entropy)) == pytest.approx(float(cross_entropy.mean()))


@pytest.mark.parametrize(("removed", "kept"), [(0.0, 20), (0.29, 15), (0.3, 14), (0.99, 1)])
def test_the_number_of_losses_that_are_kept(removed, kept):
    values = np.random.default_rng(0).permutation(20).astype(np.float32)
    mean = make("smallest_cross_entropy", removed=removed).reduce(jnp.asarray(values))
    assert float(mean) == pytest.approx(np.arange(kept).mean())


@pytest.mark.parametrize("name", example_losses.LOSSES)
def test_large_logits_give_no_nan(name):
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4], [3e38, -3e38], [0.0, 0.0]], jnp.float32)

    def mean(logits):
        loss = make(name)
        return loss.reduce(loss.of_examples(logits, jnp.zeros(len(logits), jnp.int32)))

    value, gradient = jax.value_and_grad(mean)(logits)
    assert not jnp.isnan(value) and jnp.all(jnp.isfinite(gradient))


def test_the_gradient_leaves_out_the_largest_losses():
    images, labels = random_batch(examples=8, classes=2)
    with jax.enable_x64(True):
        model = Linear(num_classes=2)
        batch = jnp.asarray(images), jnp.asarray(labels)
        params = model.init(jax.random.key(0), images)["params"]
        plain = losses.make_functions(model, {})
        functions = losses.make_functions(model, {}, make("smallest_cross_entropy"))
        gradient, outputs = functions.grad_fn(params, batch)
        rows = np.argsort(plain.losses_fn(params, batch))[:6]
        wanted, kept = plain.grad_fn(params, (batch[0][rows], batch[1][rows]))
        whole, _ = plain.grad_fn(params, batch)
    for a, b, c in zip(*map(jax.tree.leaves, (gradient, wanted, whole)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)
        assert np.abs(a - c).max() > 1e-3
    np.testing.assert_allclose(outputs.loss, kept.loss, rtol=1e-12)
    assert outputs.losses.shape == (8,) and outputs.accuracy == np.mean(
        np.argmax(outputs.logits, axis=1) == labels
    )


def test_the_accuracy_of_shares_is_that_of_the_largest():
    logits = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    shares = jnp.array([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]])
    assert float(example_losses.accuracy(logits, shares)) == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss__name": "hinge"}, "loss.name must be one of cross_entropy, .*got 'hinge'"),
        (
            {"loss__label_smoothing": 1.0},
            r"loss.label_smoothing must be a number in \[0, 1\), got 1.0",
        ),
        (
            {
                "loss__name": "generalised_cross_entropy",
                "loss__generalised_cross_entropy__q": 0.0,
            },
            r"generalised_cross_entropy.q must be a number in \(0, 1\], got 0.0",
        ),
        (
            {
                "loss__name": "smallest_cross_entropy",
                "loss__smallest_cross_entropy__removed": 1.0,
            },
            r"smallest_cross_entropy.removed must be a number in \[0, 1\), got 1.0",
        ),
    ],
)
def test_a_loss_that_cannot_be_is_refused(changes, message):
    build.check(tiny_config())
    with pytest.raises(ValueError, match=message):
        build.check(tiny_config(**changes))


def test_a_loss_of_two_classes_refuses_more():
    config = tiny_config(loss__name="offset_cross_entropy")
    source, data = build.load_data(config)
    with pytest.raises(ValueError, match="takes two classes, and the data set has 10; choose"):
        build.make_program(config, source, len(data.train_labels))


def test_the_base_config_has_the_options_of_every_loss():
    options = digits.get_config().loss
    for name in OPTIONS:
        assert set(options[name]) == set(OPTIONS[name])
        example_losses.make_loss({**options.to_dict(), "name": name}, classes=2)
