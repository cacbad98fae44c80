"""MobileNetV2 with SAM on Fashion-MNIST, otherwise as the study trained it on CIFAR-10.

  python -m sam_jax.data.prepare fashion_mnist
  python -m sam_jax.train --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

Where there is no network, `--from_dir=/usr/share/datasets/fashion-mnist` prepares the set from the
files of the Debian package dataset-fashion-mnist. Hardware: one GPU or TPU; on CPUs a part of the
set, shown every ten steps:
--config.data.train_examples=12800 --config.epochs=5 --config.steps_per_call=10
FASHION_NUMBERS
"""

import ml_collections

from configs import cifar10


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Return the config; `variant` is empty or "smoke"."""
    config = cifar10.get_config(variant)
    config.data.name = "fashion_mnist"
    config.data.augmentation = ("flip", "crop_zero", "cutout")
    config.data.cutout_size = 14
    config.method.rho = 0.05
    return config
