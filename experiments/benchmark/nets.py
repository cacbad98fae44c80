"""The networks that both sides build: names, images and widths."""

from typing import Any, NamedTuple


class Net(NamedTuple):
    """A network by its name in sam_jax.models, "dense" for a plain perceptron."""

    model: str
    title: str
    image: tuple[int, int, int]  # height, width, channels
    attributes: dict[str, Any] = {}
    classes: int = 10


CIFAR = (32, 32, 3)
NETS = {
    "mobilenet_v2": Net("mobilenet_v2", "MobileNetV2", CIFAR),
    "resnet": Net("resnet", "ResNet-18", CIFAR),
    "small_conv_net": Net("small_conv_net", "small conv net", (8, 8, 1)),
    "small_conv_net_32": Net("small_conv_net", "small conv net, 32x32", CIFAR),
    "dense": Net("dense", "dense net 784-256-256-10", (28, 28, 1), {"widths": (256, 256)}),
    "wide_dense": Net("dense", "dense net, 18 million", (28, 28, 1), {"widths": (4096, 3584)}),
    "tiny_mobilenet": Net(
        "mobilenet_v2", "tiny MobileNetV2", (8, 8, 3), {"width": 0.25, "stages": ((6, 24, 1, 2),)}
    ),
    "tiny_resnet": Net("resnet", "tiny ResNet", (8, 8, 3), {"width": 4, "blocks": (1, 1)}),
    "tiny_dense": Net("dense", "tiny dense net", (8, 8, 1), {"widths": (16,)}),
}


def title(name: str) -> str:
    """Return the name of a network for readers.

    >>> title("resnet")
    'ResNet-18'
    """
    return NETS[name].title
