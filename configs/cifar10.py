"""MobileNetV2 with SAM on CIFAR-10, with the study's hyperparameters.

  python -m sam_jax.data.prepare cifar10
  python -m sam_jax.train --config=configs/cifar10.py --workdir=runs/cifar10

AutoAugment has the levels and the black border of torchvision, which the study trained with.
Known differences: a last partial batch is left out of an epoch (80 of 50,000 images); cutout paints
the channel mean rounded to a grey level; Flax's running variance is biased.

Hardware: one GPU or TPU. Two CPU cores train 30 images/s of this net with SAM, four days in all.
Expected (the study's Table 1, one run on PyTorch): test accuracy 93.98 %, test loss 0.174.
"""

import ml_collections

from configs import digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = digits.get_config()
    config.epochs = 200
    config.batch_size = 128
    config.data.name = "cifar10"
    config.data.augmentation = ("autoaugment_cifar10_torchvision", "flip", "crop_reflect", "cutout")
    config.data.pad = 4
    config.data.cutout_size = 16
    config.model.name = "mobilenet_v2"
    config.method.rho = 0.1
    config.evaluation.batch_size = 1000
    config.instruments.examples = 20000
    config.instruments.batch_size = 1000
    config.instruments.adversarial.m = (128, 5000)
    config.instruments.average.m = (128, 5000)
    config.instruments.worst_case_sharpness.m = (128,)
    config.instruments.curve.limit = 6.0
    if variant == "smoke":
        digits.smoke(config)
        with config.unlocked():
            config.model.width = 0.25
            config.model.stages = ((6, 24, 1, 2),)
    elif variant:
        raise ValueError(f'the only variant is "smoke", got {variant!r}.')
    return config
