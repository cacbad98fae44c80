"""Two weights, one function: which asymmetries see the same minimum."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import metrics

KEY = jax.random.key(11)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(12, 5, 5, 2))
INPUTS = RNG.normal(size=(40, 3))
TARGETS = RNG.normal(size=(40, 2))


def normalised(x, axes):
    """BatchNorm with the statistics of the batch, and nothing added to the variance."""
    return (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True))


def conv_loss(w):
    """A convolution, BatchNorm, ReLU, mean and a dense layer with BatchNorm."""
    x = jax.lax.conv_general_dilated(
        jnp.asarray(IMAGES), w["conv"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    scale, shift = (w[name].reshape(1, 1, 1, -1) for name in ("scale", "shift"))
    x = jax.nn.relu(normalised(x, (0, 1, 2)) * scale + shift).mean((1, 2))
    logits = normalised(x @ w["dense"], 0) + w["bias"][None]
    return jnp.mean((logits - TARGETS[:12]) ** 2) + jnp.mean(jax.nn.softplus(logits[:, 0]))


def conv_weights():
    rng = np.random.default_rng(1)
    shapes = dict(conv=(3, 3, 2, 4), scale=(4,), shift=(4,), dense=(4, 2), bias=(2,))
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def scale_filters(w):
    return w | {
        "conv": w["conv"] * np.array([[[[0.1, 3.0, 20.0, 0.7]]]]),
        "dense": w["dense"] * np.array([[5.0, 0.3]]),
    }


def scale_leaves(w):
    return w | {"conv": 7 * w["conv"], "dense": 0.2 * w["dense"]}


def relu_loss(w):
    hidden = jax.nn.relu(INPUTS @ w["first"] + w["bias"][None])
    return jnp.mean((hidden @ w["second"] - TARGETS) ** 2)


def relu_weights():
    rng = np.random.default_rng(2)
    shapes = dict(first=(3, 4), bias=(4,), second=(4, 2))
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def scale_nodes(w):
    """c inwards and 1 / c outwards, for every hidden neuron."""
    c = np.array([0.05, 4.0, 1.5, 30.0])
    return {
        "first": w["first"] * c[None],
        "bias": w["bias"] * c,
        "second": w["second"] / c[:, None],
    }


def global_loss(w):
    """A function of the direction of all weights alone."""
    flat, _ = jax.flatten_util.ravel_pytree(w)
    flat = flat / jnp.linalg.norm(flat)
    return jnp.mean((jnp.tanh(INPUTS[:, :2] @ flat[:20].reshape(2, 10)) - 0.1) ** 2)


def scale_all(w):
    return jax.tree.map(lambda x: 13.0 * x, w)


# symmetry -> loss, weights, the same function at other weights, normalisations that see the same
SYMMETRIES = {
    "filters": (conv_loss, conv_weights, scale_filters, {"filter", "adaptive"}),
    "leaves": (conv_loss, conv_weights, scale_leaves, {"filter", "layer", "adaptive"}),
    "nodes": (relu_loss, relu_weights, scale_nodes, {"adaptive"}),
    "all": (global_loss, relu_weights, scale_all, {"filter", "layer", "relative", "adaptive"}),
}


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("normalisation", ["unit", "filter", "layer", "relative", "adaptive"])
def test_symmetry_leaves_the_asymmetry_or_does_not(symmetry, normalisation):
    loss_fn, weights, transform, invariant = SYMMETRIES[symmetry]

    @jax.jit
    def measure(w):
        return metrics.asymmetry_factor(
            loss_fn,
            w,
            0.3,
            key=KEY,
            num_directions=4,
            distribution="gaussian",
            normalisation=normalisation,
        )

    with jax.enable_x64(True):
        w = weights()
        np.testing.assert_allclose(loss_fn(transform(w)), loss_fn(w), rtol=1e-12)
        first, second = measure(w), measure(transform(w))
    if normalisation in invariant:
        # Float64 rounding of losses of order one, over rises of 1e-3 and more.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), first, second
        )
    else:
        change = np.asarray(first.plus) / np.asarray(second.plus) - 1
        assert np.max(np.abs(change)) > 0.05


@pytest.mark.parametrize(
    ("symmetry", "normalisation"), [("filters", "filter"), ("nodes", "adaptive"), ("all", "unit")]
)
def test_level_set_widths_share_the_invariance(symmetry, normalisation):
    loss_fn, weights, transform, invariant = SYMMETRIES[symmetry]

    @jax.jit
    def measure(w):
        return metrics.level_set_widths(
            loss_fn, w, 0.01, 16.0, key=KEY, num_directions=3, normalisation=normalisation
        )

    with jax.enable_x64(True):
        first, second = measure(weights()), measure(transform(weights()))
    same = np.array_equal(np.asarray(first.plus_censored), np.asarray(second.plus_censored)) and (
        np.allclose(first.plus, second.plus, rtol=1e-8)
    )
    assert same == (normalisation in invariant)
    assert np.min(first.num_censored) < 3
