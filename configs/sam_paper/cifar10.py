"""The tables of the first SAM paper on CIFAR-10, with its Wide ResNet 28-10.

  python -m sam_jax.data.prepare cifar10
  python -m experiments.sam_paper --config=configs/sam_paper/cifar10.py --workdir=runs/sam_cifar10

Hardware: eight accelerators. The arms of one seed cost about 170 trainings of 200 epochs of SGD: 25
days on one machine at the 801 images/s of the published SGD, an estimate and no measurement. The
published numbers stand in the report beside these runs. All arms have the learning rate and weight
decay of 200 epochs; those that the paper chose for 1800 are in wide_resnet.py.
"""

import ml_collections

from configs.sam_paper import digits, wide_resnet


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config(variant)
    config.training = wide_resnet.get_config("smoke" if variant else "cifar10-basic-200")
    config.training.on_nonfinite = "continue"  # an arm that diverges is a result
    config.training.evaluation.test_every_epochs = 0
    config.augmentations = tuple(wide_resnet.AUGMENTATIONS.items())[: 1 if variant else 3]
    if not variant:
        config.rho = 0.05
        config.lengths = (1, 9)
        config.label_noise = ((0.2, 0.1), (0.4, 0.1), (0.6, 0.1), (0.8, 0.05))
        config.m = (4, 16, 64, 256)
        config.rhos = (0.02, 0.05, 0.1, 0.2)
    return config
