"""The SAM family on Fashion-MNIST: MobileNetV2, the papers' values of rho, three seeds.

  python -m sam_jax.data.prepare fashion_mnist
  python -m experiments.variants --config=configs/variants/fashion_mnist.py \
      --workdir=runs/variants_fashion_mnist

Hardware: one GPU or TPU. The published comparison did not use this set and these runs have not been
made here, so there is no expected number. What fits two CPU cores is a few methods on a part of
the set, with --config.training.data.train_examples, --config.training.epochs and --config.methods.
"""

import ml_collections

from configs import fashion_mnist
from configs.variants import cifar10_resnet18, digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config(variant)
    config.training = fashion_mnist.get_config(variant)
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.evaluation.test_every_epochs = 0
    if not variant:
        cifar10_resnet18.large(config)
    return config
