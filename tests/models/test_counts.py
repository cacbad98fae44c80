"""Numbers of parameters: the published ones, and sums over the layers."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from sam_jax import models
from sam_jax.models import efficientnet


def count(model, image_shape):
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_small_conv_net():
    expected = (9 * 16 + 32) + (9 * 16 * 32 + 64) + (9 * 32 * 32 + 64) + (320 + 10)
    assert count(models.SmallConvNet(10), (8, 8, 1)) == expected == 14_458


def test_mobilenet():
    # The count of the study's PyTorch model.
    assert count(models.MobileNetV2(10), (32, 32, 3)) == 2_296_922


def test_wide_resnet():
    assert count(models.WideResNet(10), (32, 32, 3)) == 36_479_194
    shortcuts = 16 * 160 + 160 * 320 + 320 * 640
    for skips in (False, True):
        padded = models.WideResNet(10, shortcut="padding", additional_skips=skips)
        assert count(padded, (32, 32, 3)) == 36_479_194 - shortcuts


def test_resnet():
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


def test_preact_resnet():
    # Of each block the norms of its input and its middle, its convolutions and shortcut.
    def expected(blocks):
        total, inputs = 27 * 64, 64
        for i, blocks_of_stage in enumerate(blocks):
            c = 64 * 2**i
            for _ in range(blocks_of_stage):
                total += 2 * inputs + 9 * inputs * c + 2 * c + 9 * c * c
                total += inputs * c if inputs != c else 0
                inputs = c
        return total + 2 * inputs + (inputs * 10 + 10)

    for norm in ("batch", "group"):  # the counts of understanding-sam's PyTorch models
        model = models.PreActResNet(10, norm=norm)
        assert count(model, (32, 32, 3)) == expected((2, 2, 2, 2)) == 11_172_170
    model = models.PreActResNet(10, blocks=(3, 4, 6, 3))
    assert count(model, (32, 32, 3)) == expected((3, 4, 6, 3)) == 21_280_330


def test_shake_shake():
    # Two branches of two convolutions with norms; shortcuts where the channels change.
    expected, inputs = 27 * 16 + 32, 16
    for c in (96, 192, 384):
        for _ in range(4):
            expected += 2 * (9 * inputs * c + 2 * c + 9 * c * c + 2 * c)
            expected += inputs * c + 2 * c if inputs != c else 0
            inputs = c
    expected += 384 * 10 + 10
    found = count(models.WideResNetShakeShake(10), (32, 32, 3))
    assert found == expected == 26_192_922
    assert f"{found / 1e6:.1f}" == "26.2"  # the paper's Table 1, of 26 2x96d


@pytest.mark.parametrize("channels, published", [(round, "26.2"), (int, "26.0")])
def test_pyramid_net(channels, published):
    # Truncated channels, as in the paper's code, have the paper's 26.0 million.
    expected, inputs = 27 * 16 + 32, 16
    for block in range(1, 91):
        c = channels(16 + 200 * block / 90)
        expected += 2 * inputs + (inputs * c + 2 * c) + (9 * c * c + 2 * c) + (4 * c * c + 8 * c)
        inputs = 4 * c
    expected += 2 * inputs + inputs * 10 + 10
    assert f"{expected / 1e6:.1f}" == published
    if channels is round:
        assert count(models.PyramidNet(10), (32, 32, 3)) == expected == 26_210_842


@pytest.mark.parametrize(
    "blocks, published",
    [((3, 4, 6, 3), 25_557_032), ((3, 4, 23, 3), 44_549_160), ((3, 8, 36, 3), 60_192_808)],
)
def test_imagenet_resnet(blocks, published):
    # The counts of torchvision's resnet50, resnet101 and resnet152.
    assert count(models.ImageNetResNet(1000, blocks=blocks), (64, 64, 3)) == published


@pytest.mark.parametrize(
    "variant, published",
    {  # of the first SAM release's tests, as in Keras; L2 as in Xie et al. (2020), 480 million
        "b0": 5_288_548,
        "b1": 7_794_184,
        "b2": 9_109_994,
        "b3": 12_233_232,
        "b4": 19_341_616,
        "b5": 30_389_784,
        "b6": 43_040_704,
        "b7": 66_347_960,
        "l2-475": 480_309_308,
    }.items(),
)
def test_efficientnet(variant, published):
    assert count(models.EfficientNet(1000, variant=variant), (32, 32, 3)) == published


def test_every_variant_of_efficientnet_is_counted():
    (mark,) = test_efficientnet.pytestmark
    assert {variant for variant, _ in mark.args[1]} == set(efficientnet.VARIANTS)


@pytest.mark.parametrize(
    "variant, published",
    [  # of the tests of google-research/vision_transformer
        ("Ti/16", 5_717_416),
        ("S/16", 22_050_664),
        ("S/32", 22_878_952),
        ("B/16", 86_567_656),
        ("B/32", 88_224_232),
    ],
)
def test_vision_transformer(variant, published):
    # Embedding, class token and positions; of each block two norms, four dense layers of the
    # attention and two of the perceptron; the last norm and the classifier.
    size, _, side = variant.partition("/")
    d, p = {"Ti": 192, "S": 384, "B": 768}[size], int(side)
    expected = (3 * p * p + 1) * d + d + ((224 // p) ** 2 + 1) * d
    expected += 12 * (4 * d + 4 * (d + 1) * d + (d + 1) * 4 * d + (4 * d + 1) * d)
    expected += 2 * d + (d + 1) * 1000
    assert expected == published
    assert count(models.VisionTransformer(1000, variant=variant), (224, 224, 3)) == published


def test_the_table_has_every_model_and_its_count():
    text = (pathlib.Path(models.__file__).parent / "README.md").read_text()
    small, large = text.split("## For ImageNet")
    tables = {(32, 32, 3): (small, 10), (224, 224, 3): (large, 1000)}
    listed = {}
    for shape, (table, classes) in tables.items():
        for name, number in re.findall(r"^\| `(\w+)` \|.*?\| ([\d,]+) \|", table, re.MULTILINE):
            own = (8, 8, 1) if name == "small_conv_net" else shape
            listed[name] = int(number.replace(",", "")), count(models.create(name, classes), own)
    assert set(listed) == set(models.MODELS)
    assert [name for name, (stated, counted) in listed.items() if stated != counted] == []
