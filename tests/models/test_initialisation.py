"""The laws that the parameters of every model are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from narrow_models import NARROW, initialise, narrow

from sam_jax import models

# Of a law with variance 1: the largest value it can have, and the variance of the square.
UNIFORM, NORMAL, TRUNCATED = (3**0.5, 0.8), (np.inf, 2.0), (2 / 0.87962566, 1.46)


def assert_drawn(leaf, variance, law):
    """Five deviations of the estimated variance; the bound, near which uniform samples come."""
    largest, variance_of_square = law
    size = float(jnp.abs(leaf).max()) / variance**0.5
    assert size <= largest * (1 + 1e-6)
    if law is UNIFORM:  # the largest of k falls below 1 - 20 / k with probability e^-20
        assert size > max(0, 1 - 20 / leaf.size) * largest
    if leaf.size > 200:  # a few hundred numbers tell the usual laws from one another
        tolerance = 5 * (variance_of_square / leaf.size) ** 0.5
        np.testing.assert_allclose(float(jnp.var(leaf)) / variance, 1, rtol=tolerance)
    if law is NORMAL and leaf.size > 2000:  # not truncated at two deviations
        assert size > 2.5


def parameters(name, **attributes):
    """The fresh parameters of a narrow model by their paths."""
    return flatten_dict(initialise(narrow(name, **attributes), jnp.zeros((1, 8, 8, 3)))["params"])


def fans(path, leaf):
    """Inputs of an output, and area times outputs, as TensorFlow counts them."""
    fan_in = np.prod(leaf.shape[:-1])
    outputs = 1 if path[-2] == "depthwise" else leaf.shape[-1]
    return fan_in, np.prod(leaf.shape[:2]) * outputs if leaf.ndim == 4 else outputs


def assert_laws(params, convolution, dense, dense_bias=None):
    """Hold kernels to laws of their fans, the dense bias to one, and the rest to one or zero."""
    assert len([path for path in params if path[-1] == "kernel"]) > 2
    for path, leaf in params.items():
        classifier = path[0] == "classifier"
        if path[-1] == "kernel":
            fan_in, fan_out = fans(path, leaf)
            variance, law = (dense if classifier else convolution)(fan_in, fan_out)
            assert_drawn(leaf, variance, law)
        elif classifier and dense_bias:
            assert_drawn(leaf, *dense_bias(params[path[:-1] + ("kernel",)].shape[0]))
        else:
            np.testing.assert_array_equal(leaf, expected_constant(path))


def expected_constant(path):
    """Scales begin at one, but for the last norm of ImageNet's bottlenecks; the rest at zero."""
    return 1.0 if path[-1] == "scale" and path[-2] != "norm3" else 0.0


def pytorch(fan_in, fan_out=None):
    return 1 / (3 * fan_in), UNIFORM


def he(fan_in, fan_out):
    return 2 / fan_out, NORMAL


def he_truncated(fan_in, fan_out):
    return 2 / fan_out, TRUNCATED


def lecun(fan_in, fan_out):
    return 1 / fan_in, TRUNCATED


def release(fan_in, fan_out):
    """U(-b, b) with b = 1 / sqrt(num_classes)."""
    return 1 / (3 * fan_out), UNIFORM


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet", "small_conv_net"])
def test_of_pytorch(name):
    assert_laws(parameters(name), pytorch, pytorch, pytorch)


@pytest.mark.parametrize("name", ["wide_resnet", "wide_resnet_shake_shake"])
def test_of_the_first_release_s_models_for_small_images(name):
    assert_laws(parameters(name), he, release)


def test_of_pyramid_net():
    params = parameters("pyramid_net")
    last = {path: leaf for path, leaf in params.items() if path[1:] == ("norm3", "scale")}
    assert len(last) == 3  # an inner norm here, whose scale begins at one
    for leaf in last.values():
        np.testing.assert_array_equal(leaf, 1)
    assert_laws({path: params[path] for path in params if path not in last}, he, release)


@pytest.mark.parametrize("name", ["preact_resnet", "resnet"])
def test_of_understanding_sam(name):
    attributes = {"he_initialisation": True} if name == "resnet" else {"norm": "group"}
    assert_laws(parameters(name, **attributes), he, pytorch)


def test_of_imagenet_resnet():
    assert_laws(parameters("imagenet_resnet"), lecun, lecun)


def test_of_efficientnet():
    assert_laws(parameters("efficientnet"), he_truncated, release)
    assert NARROW["efficientnet"]["stages"][1][-1] == 5  # of depthwise kernels of 25 entries


def test_of_vision_transformer():
    params = parameters("vision_transformer")
    for path, leaf in params.items():
        if path[-1] == "position_embedding":
            assert_drawn(leaf, 0.02**2, NORMAL)
        elif path[0] == "embedding" and path[-1] == "kernel":
            assert_drawn(leaf, 1 / leaf.shape[0], TRUNCATED)
        elif path[0] != "classifier" and path[-1] == "kernel":
            assert_drawn(leaf, 2 / sum(leaf.shape), UNIFORM)
        elif path[-2:] in (("hidden", "bias"), ("out", "bias")) and "attention" not in path:
            assert_drawn(leaf, 1e-12, NORMAL)
        else:
            np.testing.assert_array_equal(leaf, 1.0 if path[-1] == "scale" else 0.0)


def test_of_a_fresh_imagenet_resnet_blocks_are_their_shortcuts():
    model = models.ImageNetResNet(3, width=4, blocks=(2,))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)

    @jax.jit
    def outputs(key):
        _, state = model.init_with_output(key, images, capture_intermediates=True)
        return [state["intermediates"][f"stage0_block{i}"]["__call__"][0] for i in (0, 1)]

    first, second = outputs(jax.random.key(0))
    assert jnp.abs(first).max() > 0.1
    np.testing.assert_array_equal(first, second)
