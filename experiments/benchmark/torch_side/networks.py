"""The networks of nets.py in PyTorch, layer by layer those of sam_jax.models."""

import torch
from nets import NETS
from torch import nn
from torch.nn import functional

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, padded symmetrically."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; with a shortcut where the stride is 1."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        """Make the layers."""
        super().__init__()
        hidden, self.stride = expansion * inputs, stride
        self.body = nn.Sequential(
            *(conv(inputs, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)),
            *(conv(hidden, hidden, 3, stride, hidden), nn.BatchNorm2d(hidden)),
            *(nn.ReLU(inplace=True), conv(hidden, outputs, 1), nn.BatchNorm2d(outputs)),
        )
        changes = stride == 1 and inputs != outputs
        self.shortcut = (
            nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))
            if changes
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [n, C, H, W] to [n, outputs, H / stride, W / stride]."""
        return self.body(x) + self.shortcut(x) if self.stride == 1 else self.body(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make the layers."""
        super().__init__()
        self.body = nn.Sequential(
            *(conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)),
            *(conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)),
        )
        keeps = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if keeps
            else nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [n, C, H, W] to [n, outputs, H / stride, W / stride]."""
        return functional.relu(self.body(x) + self.shortcut(x))


def mobilenet_v2(
    channels: int, classes: int, width: float = 1.0, stages: tuple = STAGES
) -> nn.Sequential:
    """Return MobileNetV2 for small images."""

    def scaled(count: int) -> int:
        return max(1, round(count * width))

    inputs = scaled(32)
    layers: list[nn.Module] = [conv(channels, inputs, 3), nn.BatchNorm2d(inputs), nn.ReLU(True)]
    for expansion, outputs, blocks, stride in stages:
        for block in range(blocks):
            made = InvertedResidual(inputs, scaled(outputs), expansion, 1 if block else stride)
            layers.append(made)
            inputs = scaled(outputs)
    head = scaled(1280)
    layers += [conv(inputs, head, 1), nn.BatchNorm2d(head), nn.ReLU(True)]
    return with_classifier(layers, head, classes)


def resnet(
    channels: int, classes: int, width: int = 64, blocks: tuple[int, ...] = (2, 2, 2, 2)
) -> nn.Sequential:
    """Return a ResNet of basic blocks, by default ResNet-18."""
    layers: list[nn.Module] = [conv(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(True)]
    inputs = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            outputs = width * 2**stage
            layers.append(BasicBlock(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    return with_classifier(layers, inputs, classes)


def small_conv_net(
    channels: int,
    classes: int,
    features: tuple[int, ...] = (16, 32, 32),
    strides: tuple[int, ...] = (1, 2, 2),
) -> nn.Sequential:
    """Return 3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for outputs, stride in zip(features, strides, strict=True):
        layers += [conv(channels, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU(True)]
        channels = outputs
    return with_classifier(layers, channels, classes)


def with_classifier(layers: list[nn.Module], inputs: int, classes: int) -> nn.Sequential:
    """Return the layers, global average pooling and a dense layer."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


MODELS = {"mobilenet_v2": mobilenet_v2, "resnet": resnet, "small_conv_net": small_conv_net}


def build(name: str) -> nn.Sequential:
    """Return a network of nets.py."""
    net = NETS[name]
    return MODELS[net.model](net.image[-1], net.classes, **net.attributes)


def size(net: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def load_flax(net: nn.Sequential, arrays: dict) -> None:
    """Give a small conv net the weights of the Flax model, by their names there.

    Args:
      net: of `small_conv_net`.
      arrays: "params/conv0/kernel" and so on -> NumPy arrays.
    """
    convs = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in net if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for i, (convolution, norm) in enumerate(zip(convs, norms, strict=True)):
            convolution.weight.copy_(like_torch(arrays[f"params/conv{i}/kernel"]))
            norm.weight.copy_(torch.from_numpy(arrays[f"params/norm{i}/scale"]))
            norm.bias.copy_(torch.from_numpy(arrays[f"params/norm{i}/bias"]))
            norm.running_mean.copy_(torch.from_numpy(arrays[f"batch_stats/norm{i}/mean"]))
            norm.running_var.copy_(torch.from_numpy(arrays[f"batch_stats/norm{i}/var"]))
        net[-1].weight.copy_(like_torch(arrays["params/classifier/dense/kernel"]))
        net[-1].bias.copy_(torch.from_numpy(arrays["params/classifier/dense/bias"]))


def flax_names(net: nn.Sequential) -> list[str]:
    """Return the Flax name of every parameter of a small conv net, in the order of PyTorch."""
    count = sum(isinstance(layer, nn.Conv2d) for layer in net)
    names = [[f"conv{i}/kernel", f"norm{i}/scale", f"norm{i}/bias"] for i in range(count)]
    classifier = ["classifier/dense/kernel", "classifier/dense/bias"]
    return [name for layer in names for name in layer] + classifier


def like_torch(array: object) -> torch.Tensor:
    """Return a weight of Flax with the axes of PyTorch: outputs first, then inputs."""
    tensor = torch.from_numpy(array)
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(tensor.ndim)
    return tensor.permute(axes).contiguous() if axes else tensor
