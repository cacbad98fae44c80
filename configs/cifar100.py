"""Wide ResNet 28-10 with SAM on CIFAR-100, as in the first SAM paper.

  python -m sam_jax.data.prepare cifar100
  python -m sam_jax.train --config=configs/cifar100.py --workdir=runs/cifar100

Hardware: eight accelerators; the batch is split over them and each perturbs on its own share, so
that m = 32. Fewer devices keep it by --config.method.m=32.
Expected (Foret et al. 2021, Table 1, basic augmentation, 200 epochs): test accuracy 83.5 %.
"""

import ml_collections

from configs import cifar10


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = cifar10.get_config(variant)
    smoke = variant == "smoke"
    config.data.name = "cifar100"
    config.data.augmentation = ("flip", "crop_reflect")
    config.model = ml_collections.ConfigDict(
        {
            "name": "wide_resnet",
            "depth": 10 if smoke else 28,
            "width": 1 if smoke else 10,
            "shortcut": "padding",  # as in google-research/sam
            "dtype": "float32",
        }
    )
    config.batch_size = 32 if smoke else 256
    config.method.rho = 0.1
    config.optimiser.weight_decay_in = "loss"  # as in google-research/sam
    return config
