"""Models: one architecture a file, created by name.

Every model is called alike: `module.apply(variables, images, train=False)` maps float images
[n, H, W, C] to logits [n, num_classes]. Its variables are "params" and "batch_stats"; with
`train=True` pass `mutable=["batch_stats"]` and receive the updated running statistics too. A model
without batch norm has no "batch_stats" and receives none.

To add one, write its file here, import its class and give it a line in `MODELS`. It takes
`num_classes`, `dtype` and `use_fast_variance` as `SmallConvNet` does. A config may set its other
attributes, as fields of `config.model`.
"""

from sam_jax import extras

extras.needs(__name__, "lab", "flax")

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from sam_jax.models.mobilenet_v2 import MobileNetV2 as MobileNetV2
from sam_jax.models.resnet import ResNet as ResNet
from sam_jax.models.small_conv_net import SmallConvNet as SmallConvNet
from sam_jax.models.wide_resnet import WideResNet as WideResNet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": MobileNetV2,
    "resnet": ResNet,
    "small_conv_net": SmallConvNet,
    "wide_resnet": WideResNet,
}


def create(name: str, num_classes: int, **kwargs: Any) -> nn.Module:
    """Return the model called `name`.

    Args:
      name: a key of `MODELS`.
      num_classes: the number of logits.
      **kwargs: further attributes of the model, such as `dtype`, or `depth` and `width`.

    Raises:
      ValueError: if no model has that name.

    >>> create("wide_resnet", num_classes=100, depth=16, width=4).width
    4
    """
    if name not in MODELS:
        raise ValueError(f"model name must be one of {sorted(MODELS)}, got {name!r}.")
    return MODELS[name](num_classes=num_classes, **kwargs)
