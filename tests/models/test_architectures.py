import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import lax

from sam_jax import models
from sam_jax.models import mobilenet_v2, preactivation, resnet
from sam_jax.models.norms import batch_norm

IMAGES = [(32, 32, 3), (28, 28, 1), (8, 8, 1)]
NARROW = {
    "mobilenet_v2": {"width": 0.25, "stages": ((1, 16, 1, 1), (6, 24, 1, 2))},
    "resnet": {"width": 8, "blocks": (1, 1)},
    "small_conv_net": {"features": (4, 8), "strides": (1, 2)},
    "wide_resnet": {"depth": 10, "width": 1},
}


def narrow(name, **kwargs):
    return models.create(name, 3, **NARROW[name], **kwargs)


def initialise(model, images):
    return jax.jit(model.init)(jax.random.key(0), images)


def images_of(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def count(model, image_shape):
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_names():
    assert models.create("wide_resnet", 7, depth=16) == models.WideResNet(num_classes=7, depth=16)
    with pytest.raises(ValueError, match="mobilenet_v2.*'mobilenet_v9'"):
        models.create("mobilenet_v9", 10)


def test_parameter_counts():
    # The count of the study's PyTorch model.
    assert count(models.MobileNetV2(10), (32, 32, 3)) == 2_296_922
    assert count(models.WideResNet(10), (32, 32, 3)) == 36_479_194
    shortcuts = 16 * 160 + 160 * 320 + 320 * 640
    padded = models.WideResNet(10, shortcut="padding")
    assert count(padded, (32, 32, 3)) == 36_479_194 - shortcuts
    # By layer: kernel, batch norm's scale and bias; then the dense layer. Of ResNet-18 the stem,
    # the first stage, in each further stage the two convolutions and the shortcut that double the
    # channels and the two that keep them, and the dense layer.
    expected = (27 * 64 + 128) + 4 * (9 * 64 * 64 + 128) + (512 * 10 + 10)
    for c in (64, 128, 256):
        expected += (9 * c * 2 * c + 4 * c) + (c * 2 * c + 4 * c) + 3 * (9 * 4 * c**2 + 4 * c)
    assert count(models.ResNet(10), (32, 32, 3)) == expected == 11_173_962
    assert count(models.ResNet(100), (32, 32, 3)) == expected + 513 * 90 == 11_220_132
    assert count(models.ResNet(10), (28, 28, 1)) == expected - 18 * 64
    assert count(models.ResNet(10, norm="group"), (32, 32, 3)) == expected
    expected = (9 * 16 + 32) + (9 * 16 * 32 + 64) + (9 * 32 * 32 + 64) + (320 + 10)
    assert count(models.SmallConvNet(10), (8, 8, 1)) == expected == 14_458


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_are_float32_of_the_stated_shape(name, shape, dtype):
    model = models.create(name, 7, dtype=dtype)
    images = jnp.zeros((2, *shape))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert set(variables) == {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert {path[-1] for path in flatten_dict(variables["params"])} == {"kernel", "scale", "bias"}

    def apply(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    logits, new = jax.eval_shape(apply, variables, images)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert jax.tree.map(lambda x: x.shape, new["batch_stats"]) == jax.tree.map(
        lambda x: x.shape, variables["batch_stats"]
    )


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1)])
@pytest.mark.parametrize(
    "name, last, channels", [("mobilenet_v2", "head_norm", 1280), ("resnet", "stage3_block1", 512)]
)
def test_ends_in_4x4_maps(shape, name, last, channels):
    model = models.create(name, 10)
    images = jnp.zeros((1, *shape))

    def features(key):
        _, state = model.init_with_output(key, images, capture_intermediates=True)
        return state["intermediates"][last]["__call__"][0]

    assert jax.eval_shape(features, jax.random.key(0)).shape == (1, 4, 4, channels)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet", "small_conv_net"])
def test_pytorch_initialisation(name):
    variables = initialise(narrow(name), jnp.zeros((1, 8, 8, 3)))
    params = flatten_dict(variables["params"])
    checked = 0
    for path, leaf in params.items():
        if path[-1] == "kernel" or path[0] == "classifier":
            fan_in = np.prod(params[path[:-1] + ("kernel",)].shape[:-1])
            largest = float(jnp.abs(leaf).max()) * np.sqrt(fan_in)
            # The largest of k uniform numbers falls below 1 - 20 / k with probability e^-20.
            assert max(0, 1 - 20 / leaf.size) < largest <= 1 + 1e-6, path
            # A few hundred numbers tell 1 / 3 from He's 2 and Glorot's 1.
            if leaf.size > 200:  # five deviations of the estimated variance
                np.testing.assert_allclose(
                    float(jnp.var(leaf)) * fan_in, 1 / 3, rtol=5 * (0.8 / leaf.size) ** 0.5
                )
            checked += 1
        else:
            np.testing.assert_array_equal(leaf, 1.0 if path[-1] == "scale" else 0.0)
    assert checked == {"mobilenet_v2": 11, "resnet": 8, "small_conv_net": 4}[name]


def test_wide_resnet_initialisation():
    variables = initialise(models.WideResNet(10, depth=10, width=1), jnp.zeros((1, 8, 8, 3)))
    params = flatten_dict(variables["params"])
    for path, leaf in params.items():
        if path[0] == "classifier" and path[-1] == "kernel":
            assert 0.96 * 10**-0.5 < jnp.abs(leaf).max() <= 10**-0.5
        elif path[-1] == "kernel":  # fan_out = area * output channels; five deviations
            fan_out = leaf.shape[0] * leaf.shape[1] * leaf.shape[-1]
            np.testing.assert_allclose(
                float(jnp.var(leaf)) * fan_out, 2, rtol=5 * (2 / leaf.size) ** 0.5
            )
        else:
            np.testing.assert_array_equal(leaf, 1.0 if path[-1] == "scale" else 0.0)


@pytest.mark.parametrize("name", models.MODELS)
def test_evaluation_ignores_the_rest_of_the_batch(name):
    model, images = narrow(name), images_of((6, 8, 8, 1))
    variables = initialise(model, images)
    evaluate = jax.jit(model.apply)
    logits = evaluate(variables, images)
    other = images.at[2:].multiply(3.0)
    # Only the rounding of a different blocking of the sums may differ.
    np.testing.assert_allclose(evaluate(variables, other)[:2], logits[:2], rtol=1e-4, atol=1e-5)

    @jax.jit
    def train(images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    trained, new = train(images)
    assert float(jnp.abs(train(other)[0][:2] - trained[:2]).max()) > 1e-2
    for before, after in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(new), strict=True
    ):
        assert not np.array_equal(before, after)


@pytest.mark.parametrize("name", models.MODELS)
def test_bfloat16_gradient_is_finite_and_close(name):
    images, labels = images_of((8, 8, 8, 1)), jnp.arange(8) % 3
    variables = initialise(narrow(name), images)

    def gradient(dtype):
        model = narrow(name, dtype=dtype)

        def loss(params):
            inputs = {**variables, "params": params}
            logits, _ = model.apply(inputs, images, train=True, mutable=["batch_stats"])
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(8), labels])

        grads = jax.jit(jax.grad(loss))(variables["params"])
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])

    exact, rounded = gradient(jnp.float32), gradient(jnp.bfloat16)
    assert np.isfinite(rounded).all()
    # Relative rounding 2^-8 a layer through about ten layers of batch norm on few examples.
    cosine = exact @ rounded / np.linalg.norm(exact) / np.linalg.norm(rounded)
    assert cosine > 0.95


def test_float64_reaches_the_logits():
    with jax.enable_x64(True):
        model = narrow("small_conv_net", dtype=jnp.float64)
        images = jnp.ones((2, 8, 8, 1), jnp.float64)
        variables = model.init(jax.random.key(0), images)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        variables = jax.tree.map(lambda x: x.astype(jnp.float64), variables)
        assert model.apply(variables, images).dtype == jnp.float64


def numpy_mobilenet(variables, x, stages):
    """Evaluation of MobileNetV2 in float64, from the paper's table and the class docstring."""
    params = flatten_dict(jax.tree.map(np.float64, variables["params"]))
    stats = flatten_dict(jax.tree.map(np.float64, variables["batch_stats"]))

    def norm(x, *path):
        mean, var = stats[*path, "mean"], stats[*path, "var"]
        scale, bias = params[*path, "scale"], params[*path, "bias"]
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def pointwise(x, *path):
        return np.einsum("nhwc,co->nhwo", x, params[*path, "kernel"][0, 0])

    def windows(x, stride):  # [n, h, w, c, 3, 3]
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::stride, ::stride]

    x = np.einsum("nhwcab,abco->nhwo", windows(x, 1), params["stem", "kernel"])
    x = np.maximum(norm(x, "stem_norm"), 0)
    for i, (*_, blocks, first_stride) in enumerate(stages):
        for j in range(blocks):
            name, stride = f"stage{i}_block{j}", first_stride if j == 0 else 1
            y = np.maximum(norm(pointwise(x, name, "expand"), name, "expand_norm"), 0)
            kernel = params[name, "depthwise", "kernel"][:, :, 0]
            y = np.einsum("nhwcab,abc->nhwc", windows(y, stride), kernel)
            y = np.maximum(norm(y, name, "depthwise_norm"), 0)
            y = norm(pointwise(y, name, "project"), name, "project_norm")
            if stride == 1 and x.shape[-1] == y.shape[-1]:
                y = y + x
            elif stride == 1:
                y = y + norm(pointwise(x, name, "shortcut"), name, "shortcut_norm")
            x = y
    x = np.maximum(norm(pointwise(x, "head"), "head_norm"), 0).mean((1, 2))
    return x @ params["classifier", "dense", "kernel"] + params["classifier", "dense", "bias"]


@pytest.fixture(scope="module")
def mobilenet_problem():
    model, images = models.MobileNetV2(10, width=0.5), images_of((2, 32, 32, 3), 1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        kind = path[-1].key
        if kind in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if kind == "kernel" else 25
        return (rng.normal(size=leaf.shape) * fan_in**-0.5).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return jax.jit(model.apply)(variables, images), variables, np.float64(images)


def test_mobilenet_is_the_numpy_forward_pass(mobilenet_problem):
    logits, variables, images = mobilenet_problem
    expected = numpy_mobilenet(variables, images, mobilenet_v2.STAGES)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)
    # Negative control: a single running mean moved by a tenth is seen.
    variables["batch_stats"]["stage3_block1"]["depthwise_norm"]["mean"] += np.float32(0.1)
    moved = numpy_mobilenet(variables, images, mobilenet_v2.STAGES)
    assert np.abs(logits - moved).max() / scale > 1e-3


@pytest.mark.parametrize("stride, features", [(1, 4), (2, 6), (1, 6)])
def test_resnet_block_by_lax(stride, features):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(3, 6, 6, 4)))

        def norm(name):  # of Flax, over the batch
            return nn.BatchNorm(use_running_average=False, dtype=jnp.float64, name=name)

        block = resnet.BasicBlock(features, norm, stride, dtype=jnp.float64)
        shapes = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
        params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)
        y, _ = block.apply({"params": params}, x, mutable=["batch_stats"])

        def layer(x, conv, norm, stride):
            kernel = params[conv]["kernel"]
            pad = [(kernel.shape[0] // 2,) * 2] * 2
            dimensions = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(x, kernel, (stride,) * 2, pad, None, None, dimensions)
            mean, variance = (f((0, 1, 2), keepdims=True) for f in (x.mean, x.var))
            scale, bias = (params[norm][name].reshape(mean.shape) for name in ("scale", "bias"))
            return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias

        residual = layer(jnp.maximum(layer(x, "conv1", "norm1", stride), 0), "conv2", "norm2", 1)
        changes = stride == 2 or features != 4
        assert changes == ("shortcut" in params)
        shortcut = layer(x, "shortcut", "shortcut_norm", stride) if changes else x
        np.testing.assert_allclose(y, jnp.maximum(shortcut + residual, 0), rtol=1e-10, atol=1e-10)
        # Negative control: a block that adds the shortcut after its last ReLU is another.
        assert jnp.abs(y - (shortcut + jnp.maximum(residual, 0))).max() > 0.1


def test_resnet_with_group_norm_treats_every_example_by_itself():
    images = images_of((6, 8, 8, 1))
    other = images.at[2:].multiply(3.0)
    difference = {}
    for norm in ("group", "batch"):
        model = narrow("resnet", norm=norm)
        variables = initialise(model, images)
        assert ("batch_stats" in variables) == (norm == "batch")

        @jax.jit
        def both_modes(images, model=model, variables=variables):
            trained, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
            return trained, model.apply(variables, images)

        logits, evaluated = both_modes(images)
        assert np.allclose(logits, evaluated, rtol=1e-4, atol=1e-5) == (norm == "group")
        difference[norm] = jnp.abs(logits - both_modes(other)[0])[:2].max()
    # Rounding of a different blocking of the sums, against the other examples' share.
    assert difference["group"] < 1e-4 < 1e-2 < difference["batch"]


def test_resnet_has_half_as_many_groups_as_stem_channels():
    images = images_of((2, 8, 8, 3)) / 100  # so small that the norm's epsilon is seen
    model = narrow("resnet", norm="group")

    @jax.jit
    def stem(key):
        _, state = model.init_with_output(key, images, capture_intermediates=True)
        layers = state["intermediates"]
        return layers["stem"]["__call__"][0], layers["stem_norm"]["__call__"][0]

    before, after = stem(jax.random.key(0))

    def normalise(groups, epsilon=1e-5):
        x = np.float64(before).reshape(2, 64, groups, -1)
        mean, var = x.mean((1, 3), keepdims=True), x.var((1, 3), keepdims=True)
        return ((x - mean) / np.sqrt(var + epsilon)).reshape(after.shape)

    np.testing.assert_allclose(after, normalise(4), rtol=1e-4, atol=1e-4)
    for other in (normalise(2), normalise(8), normalise(4, 1e-6)):  # negative controls
        assert np.abs(after - other).max() > 1e-2


def test_wide_resnet_shortcut_convolves_the_normalised_input():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    block = preactivation.PreActivationBlock(
        5, functools.partial(batch_norm, False, jnp.float32), stride=2
    )
    variables = block.init(jax.random.key(1), x)
    # Without the two 3x3 convolutions the block is its shortcut: fresh running statistics make
    # the norm a division by sqrt(1 + 1e-5), and a strided 1x1 convolution takes every other pixel.
    params = dict(variables["params"], conv2={"kernel": jnp.zeros((3, 3, 5, 5))})
    y = block.apply({**variables, "params": params}, x)
    kernel = params["shortcut"]["kernel"][0, 0]
    expected = jnp.maximum(x, 0)[:, ::2, ::2] / jnp.sqrt(1 + 1e-5) @ kernel
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert jnp.abs(y).max() > 0.1


def test_wide_resnet_rejects_an_unknown_shortcut():
    with pytest.raises(ValueError, match="convolution.*padding.*'pad'"):
        models.WideResNet(10, shortcut="pad")


def test_wide_resnet_shortcut_pools_and_pads():
    x = images_of((2, 5, 4, 3))
    y = np.asarray(preactivation.padded_shortcut(x, 7, 2))
    assert y.shape == (2, 3, 2, 7)
    np.testing.assert_allclose(y[:, 0, 1, :3], x[:, :2, 2:].mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y[:, 2, 0, :3], x[:, 4:, :2].mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[..., 3:], 0)
    np.testing.assert_array_equal(preactivation.padded_shortcut(x, 3, 1), x)


def test_invalid_attributes():
    for depth in (4, 12, 29):
        with pytest.raises(ValueError, match=f"6 b \\+ 4.*{depth}"):
            models.WideResNet(10, depth=depth)
    with pytest.raises(ValueError, match="batch.*group.*'layer'"):
        models.ResNet(10, norm="layer")
    with pytest.raises(ValueError, match="even width, got 3"):
        models.ResNet(10, width=3, norm="group")
    with pytest.raises(ValueError, match="features and strides"):
        models.SmallConvNet(10, features=(4,))
