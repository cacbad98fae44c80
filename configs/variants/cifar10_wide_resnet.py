"""The SAM family on CIFAR-10: WideResNet-28-10, 200 epochs, as in the published comparison.

  python -m sam_jax.data.prepare cifar10
  python -m experiments.variants --config=configs/variants/cifar10_wide_resnet.py \
      --workdir=runs/variants_cifar10_wide_resnet

CIFAR-100: --config.training.data.name=cifar100. Most papers double rho there.

Hardware: one GPU or TPU with 40 GB. Expected time: as many images as with ResNet-18, at the 801
images/s of the published SGD five days a seed, an estimate and no measurement.
Expected numbers: these runs have not been made here. The published comparison, which the report
shows beside them, has accuracies of 96.34 % (SGD), 97.27 % (SAM), 97.63 % (ASAM), 97.89 % (Fisher
SAM).
"""

import ml_collections

from configs.variants import cifar10_resnet18


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = cifar10_resnet18.get_config(variant)
    with config.unlocked():
        config.training.model = ml_collections.ConfigDict(
            {"name": "wide_resnet", "dtype": "float32", "depth": 28, "width": 10}
        )
    if variant == "smoke":
        config.training.model.depth = 10
        config.training.model.width = 1
    return config
