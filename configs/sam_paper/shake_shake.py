"""Wide ResNet 28-6 with Shake-Shake and SAM on CIFAR, as in the first SAM paper.

  python -m sam_jax.data.prepare cifar10
  python -m sam_jax.train --config=configs/sam_paper/shake_shake.py \
      --workdir=runs/sam_paper/shake_shake

The variants are those of configs/sam_paper/wide_resnet.py; the default is cifar10-autoaugment-1800.
The ascent pass mixes the branches alike forwards and backwards (the original's `true_gradient`).
Learning rate, weight decay and rho are those of the paper. Published test errors after 1800 epochs
in %, SAM (SGD, the better one of 1800 and 3600 epochs):

| set       | basic       | cutout      | autoaugment |
| cifar10   | 2.3 (2.7)   | 2.0 (2.3)   | 1.6 (1.9)   |
| cifar100  | 15.1 (17.0) | 14.2 (15.7) | 12.8 (14.1) |

Hardware: eight accelerators, m = 32. Expected time: 46 hours on one for 1800 epochs, by
the multiply-adds (3.4 G an image) beside those of wide_resnet.py; an estimate and no measurement.
"""

import ml_collections

from configs.sam_paper import wide_resnet

RHOS = {"cifar10": 0.02, "cifar100": 0.05}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is SET-AUGMENTATION-EPOCHS, "smoke" or empty."""
    config = wide_resnet.get_config(variant or "cifar10-autoaugment-1800")
    smoke = variant == "smoke"
    config.model = ml_collections.ConfigDict(
        {
            "name": "wide_resnet_shake_shake",
            "depth": 8 if smoke else 26,
            "width": 1 if smoke else 6,
            "dtype": "float32",
        }
    )
    config.method.rho = RHOS[config.data.name]
    config.optimiser.learning_rate = 0.02
    config.optimiser.weight_decay = 1e-3
    return config
