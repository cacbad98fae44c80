"""PyramidNet-272 with ShakeDrop and SAM on CIFAR, as in the first SAM paper.

  python -m sam_jax.data.prepare cifar10
  python -m sam_jax.train --config=configs/sam_paper/pyramid_net.py \
      --workdir=runs/sam_paper/pyramid_net

The variants are those of configs/sam_paper/wide_resnet.py; the default is cifar10-autoaugment-1800.
Learning rate, weight decay and rho are those of the paper. Published test errors after 1800 epochs
in %, SAM (SGD, the better one of 1800 and 3600 epochs):

| set       | basic       | cutout      | autoaugment |
| cifar10   | 2.1 (2.5)   | 1.6 (1.9)   | 1.4 (1.6)   |
| cifar100  | 13.3 (14.5) | 11.3 (11.8) | 10.3 (10.6) |

Hardware: eight accelerators, m = 32. Expected time: 58 hours on one for 1800 epochs, by
the multiply-adds (4.3 G an image) beside those of wide_resnet.py; an estimate and no measurement.
"""

import ml_collections

from configs.sam_paper import wide_resnet

LEARNING_RATES = {"cifar10": 0.02, "cifar100": 0.05}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is SET-AUGMENTATION-EPOCHS, "smoke" or empty."""
    config = wide_resnet.get_config(variant or "cifar10-autoaugment-1800")
    smoke = variant == "smoke"
    config.model = ml_collections.ConfigDict(
        {
            "name": "pyramid_net",
            "depth": 11 if smoke else 272,
            "alpha": 6 if smoke else 200,  # channels that all blocks add together
            "dtype": "float32",
        }
    )
    config.method.rho = 0.05
    config.optimiser.learning_rate = LEARNING_RATES[config.data.name]
    config.optimiser.weight_decay = 5e-4
    return config
