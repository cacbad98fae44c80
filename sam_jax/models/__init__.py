"""Models: one architecture a file, created by name.

Every model is called alike: `module.apply(variables, images, train=False)` maps float images
[n, H, W, C] to logits [n, num_classes]. Its variables are "params" and "batch_stats"; with
`train=True` pass `mutable=["batch_stats"]` and receive the updated running statistics too. A model
without batch norm has no "batch_stats" and receives none. A model that drops or mixes at random
does so with `train=True` alone, and needs `rngs={"model": key}` then; one that mixes differently
backwards than forwards takes `true_gradient=True` too, which has it mix alike.

To add one, write its file here, import its class and give it a line in `MODELS`. It takes
`num_classes`, `dtype` and `use_fast_variance` as `SmallConvNet` does. A config may set its other
attributes, as fields of `config.model`.
"""

from sam_jax import extras

extras.needs(__name__, "lab", "flax")

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from sam_jax.models.efficientnet import EfficientNet as EfficientNet
from sam_jax.models.imagenet_resnet import ImageNetResNet as ImageNetResNet
from sam_jax.models.mobilenet_v2 import MobileNetV2 as MobileNetV2
from sam_jax.models.preact_resnet import PreActResNet as PreActResNet
from sam_jax.models.pyramid_net import PyramidNet as PyramidNet
from sam_jax.models.resnet import ResNet as ResNet
from sam_jax.models.small_conv_net import SmallConvNet as SmallConvNet
from sam_jax.models.vision_transformer import VisionTransformer as VisionTransformer
from sam_jax.models.wide_resnet import WideResNet as WideResNet
from sam_jax.models.wide_resnet_shake_shake import WideResNetShakeShake as WideResNetShakeShake
from sam_jax.suggestions import did_you_mean

MODELS: dict[str, Callable[..., nn.Module]] = {
    "efficientnet": EfficientNet,
    "imagenet_resnet": ImageNetResNet,
    "mobilenet_v2": MobileNetV2,
    "preact_resnet": PreActResNet,
    "pyramid_net": PyramidNet,
    "resnet": ResNet,
    "small_conv_net": SmallConvNet,
    "vision_transformer": VisionTransformer,
    "wide_resnet": WideResNet,
    "wide_resnet_shake_shake": WideResNetShakeShake,
}

_NOT_FOR_CONFIGS = {"num_classes", "parent", "name"}  # the data set gives the first


def create(name: str, num_classes: int, **kwargs: Any) -> nn.Module:
    """Return the model called `name`.

    Args:
      name: a key of `MODELS`.
      num_classes: the number of logits.
      **kwargs: further attributes of the model, such as `dtype`, or `depth` and `width`.

    Raises:
      ValueError: if no model has that name, or the model no such attribute.

    >>> create("wide_resnet", num_classes=100, depth=16, width=4).width
    4
    """
    if name not in MODELS:
        raise ValueError(
            f"model name must be one of {sorted(MODELS)}, got {name!r}.{did_you_mean(name, MODELS)}"
        )
    model: Any = MODELS[name]
    known = sorted({field.name for field in dataclasses.fields(model)} - _NOT_FOR_CONFIGS)
    for attribute in kwargs:
        if attribute not in known:
            raise ValueError(
                f"model {name} has the attributes {', '.join(known)}, and no {attribute!r}."
                f"{did_you_mean(attribute, known)}"
            )
    return model(num_classes=num_classes, **kwargs)
