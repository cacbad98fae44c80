import functools
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import lax
from narrow_models import WITHOUT_BATCH_NORM, images_of, initialise, moved, narrow, train_mode

import sam_jax
from sam_jax import models
from sam_jax.models import mobilenet_v2, preactivation, resnet
from sam_jax.models.norms import batch_norm

IMAGES = [(32, 32, 3), (28, 28, 1), (8, 8, 1)]
NORM_CHOSEN = ("preact_resnet", "resnet")
WHOLE = {  # attributes that differ from the default where it is too deep, or does not fit
    "pyramid_net": {"depth": 20},
    "vision_transformer": {"variant": "S/4"},
}


def test_names():
    assert models.create("wide_resnet", 7, depth=16) == models.WideResNet(num_classes=7, depth=16)
    with pytest.raises(ValueError, match=r"mobilenet_v2.*'mobilenet_v9'.*'mobilenet_v2'\?$"):
        models.create("mobilenet_v9", 10)
    with pytest.raises(ValueError, match="got 'x'\\.$"):  # nothing is near
        models.create("x", 10)


def test_the_base_config_names_every_model():
    root = pathlib.Path(__file__).parents[2]
    text = (root / "configs/digits.py").read_text()
    comment = re.search(r"((?: *#.*\n)+) *config\.model\.name = ", text).group(1)
    assert set(models.MODELS) <= set(re.findall(r"\w+", comment))


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_are_float32_of_the_stated_shape(name, shape, dtype):
    model = models.create(name, 7, dtype=dtype, **WHOLE.get(name, {}))
    images = jnp.zeros((2, *shape))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert set(variables) == {"params"} | (set() if name in WITHOUT_BATCH_NORM else {"batch_stats"})
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    extra = {"class_token", "position_embedding"} if name == "vision_transformer" else set()
    leaves = {path[-1] for path in flatten_dict(variables["params"])}
    assert leaves == {"kernel", "scale", "bias"} | extra

    logits, new = jax.eval_shape(functools.partial(train_mode, model), variables, images)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert jax.tree.map(lambda x: x.shape, new) == jax.tree.map(
        lambda x: x.shape, {k: v for k, v in variables.items() if k == "batch_stats"}
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


@pytest.mark.parametrize("name", models.MODELS)
def test_evaluation_ignores_the_rest_of_the_batch(name):
    model, images = narrow(name), images_of((6, 8, 8, 1))
    variables = moved(initialise(model, images))
    evaluate = jax.jit(model.apply)
    logits = evaluate(variables, images)
    other = images.at[2:].multiply(3.0)
    # Only the rounding of a different blocking of the sums may differ.
    np.testing.assert_allclose(evaluate(variables, other)[:2], logits[:2], rtol=1e-4, atol=1e-5)

    train = jax.jit(lambda images: train_mode(model, variables, images))
    trained, new = train(images)
    difference = float(jnp.abs(train(other)[0][:2] - trained[:2]).max())
    if name in WITHOUT_BATCH_NORM:
        assert difference < 1e-4
        return
    assert difference > 1e-2
    for before, after in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(new), strict=True
    ):
        assert not np.array_equal(before, after)


@pytest.mark.parametrize("name", models.MODELS)
def test_a_sam_step_in_bfloat16_is_finite_and_close(name):
    images, labels = images_of((8, 8, 8, 1)), jnp.arange(8) % 3
    variables = moved(initialise(narrow(name), images))
    params = variables["params"]

    def step(dtype):
        model = narrow(name, dtype=dtype)

        @jax.grad
        def grad_fn(params):
            logits = train_mode(model, {**variables, "params": params}, images)[0]
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(8), labels])

        @jax.jit
        def both(params):
            clean, tx = grad_fn(params), sam_jax.sam(0.05)
            updates, _ = tx.update(clean, tx.init(params), params, grad_fn=grad_fn)
            return clean, updates

        grads = both(params)
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
        return [np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in grads]

    exact, rounded = step(jnp.float32), step(jnp.bfloat16)
    assert np.isfinite(rounded).all()
    assert np.linalg.norm(exact[1] - exact[0]) > 1e-3 * np.linalg.norm(exact[0])
    # Relative rounding 2^-8 a layer through five to twenty layers of batch norm on few examples.
    for a, b in zip(exact, rounded, strict=True):
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9


def types_in(jaxpr):
    """The types of the floating-point numbers of a computation."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            if jnp.issubdtype(variable.aval.dtype, jnp.floating):
                yield variable.aval.dtype
        for inner in jax.tree.leaves(list(equation.params.values())):
            if hasattr(inner, "eqns"):
                yield from types_in(inner)


@pytest.mark.parametrize("name", models.MODELS)
def test_float64_reaches_the_logits(name):
    with jax.enable_x64(True):
        model = narrow(name, dtype=jnp.float64)
        images = jnp.ones((2, 8, 8, 1), jnp.float64)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        variables = jax.tree.map(lambda x: x.update(dtype=jnp.float64), variables)
        # No number on the way is a narrower one, but for a model of float32.
        wide, narrow_model = (
            set(types_in(jax.make_jaxpr(m.apply)(variables, images)))
            for m in (model, model.clone(dtype=jnp.dtype("float32")))
        )
        assert wide == {jnp.dtype("float64")}
        assert jnp.dtype("float32") in narrow_model
        assert jax.eval_shape(model.apply, variables, images).dtype == jnp.float64


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


@pytest.mark.parametrize(
    "name, attributes, message",
    [
        *(("wide_resnet", {"depth": d}, f"6 b \\+ 4.*{d}") for d in (4, 12, 29)),
        *(("wide_resnet_shake_shake", {"depth": d}, f"6 b \\+ 2.*{d}") for d in (2, 28)),
        *(("pyramid_net", {"depth": d}, f"9 b \\+ 2.*{d}") for d in (2, 270)),
        ("pyramid_net", {"alpha": -1}, "alpha must not be negative, got -1"),
        *((name, {"norm": "layer"}, "batch.*group.*'layer'") for name in NORM_CHOSEN),
        *((name, {"width": 3, "norm": "group"}, "even width, got 3") for name in NORM_CHOSEN),
        ("small_conv_net", {"features": (4,)}, "features and strides"),
        ("efficientnet", {"variant": "b9"}, "b0, b1.*l2-475, got 'b9'"),
        *(
            ("vision_transformer", {"variant": v}, f"Ti, S, B.*'{v}'")
            for v in ("S", "S/", "S/0", "S/4.5", "X/4", "S/16/2")
        ),
        ("vision_transformer", {"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_invalid_attributes(name, attributes, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, 10, **attributes)


def test_patches_must_tile_the_images():
    model = models.VisionTransformer(10, variant="S/16")
    for shape in ((1, 32, 28, 3), (1, 28, 32, 3)):
        with pytest.raises(ValueError, match=f"16x16.*{shape[1]}x{shape[2]}.*image size"):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


def test_frozen_batch_norm_is_that_of_evaluation():
    images = images_of((4, 8, 8, 1))
    rates = {"dropout": 0.0, "stochastic_depth": 0.0}
    difference = {}
    for freeze in (False, True):
        model = narrow("efficientnet", freeze_batch_norm=freeze, **rates)
        variables = moved(initialise(model, images))
        trained, new = jax.jit(functools.partial(train_mode, model))(variables, images)
        difference[freeze] = jnp.abs(trained - jax.jit(model.apply)(variables, images)).max()
        kept = jax.tree.map(np.array_equal, new["batch_stats"], variables["batch_stats"])
        assert set(jax.tree.leaves(kept)) == {freeze}
    assert difference[True] < 1e-5 < 1e-2 < difference[False]


def test_an_unknown_attribute_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no 'widht'. Did you mean 'width'"):
        models.create("wide_resnet", num_classes=10, widht=2)
    with pytest.raises(ValueError, match="no 'parent'"):
        models.create("small_conv_net", num_classes=10, parent=None)
