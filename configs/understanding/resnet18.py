"""ResNet-18 with group norm and SAM on CIFAR-10, with the settings of understanding-sam.

  python -m sam_jax.data.prepare cifar10
  python -m sam_jax.train --config=configs/understanding/resnet18.py --workdir=runs/resnet18_gn

The released code holds out a tenth of the training set for validation, and so does this config. m
is lowered by --config.method.m; `preact_resnet` and ResNet-34 are fields of `model`. Hardware: one
GPU or TPU, an hour and a half by the 1,717 images/s of the study's Table 3 for SAM, an estimate and
no measurement. Expected (its Figure 1, read off the image, +- 0.1): test error 5.15 % with ERM, 4.3
% with 128-SAM at rho = 0.2.
"""

import ml_collections

from configs import cifar10


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = cifar10.get_config(variant)
    smoke = variant == "smoke"
    config.data.augmentation = ("flip", "crop_zero")
    config.model = ml_collections.ConfigDict(
        {
            "name": "resnet",
            "norm": "group",
            "width": 4 if smoke else 64,
            "blocks": (1, 1) if smoke else (2, 2, 2, 2),
            "dtype": "float32",
        }
    )
    config.method.rho = 0.2
    config.optimiser.schedule = "piecewise"  # a tenth after half, a hundredth after three quarters
    config.optimiser.nesterov = False
    config.optimiser.clip_norm = 0.0
    config.optimiser.weight_decay_in = "loss"
    if not smoke:
        config.data.validation_examples = 5000
        config.method.m = 128
    return config
